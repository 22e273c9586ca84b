package tracedat

import (
	"fmt"

	"labctl/host/text"
)

// version7 reads what follows the page size: how sections are compressed, and
// where the first one with options is. Options say where the rest is.
func (p *parser) version7(c *cursor) error {
	algorithm, version := c.name(), c.name()
	next := c.u64()
	if c.err != nil {
		return c.err
	}
	if algorithm != "none" {
		if p.unpack = unpackers[algorithm]; p.unpack == nil {
			c.fail("compressed by %s: known are zstd and zlib", text.Line(algorithm+" "+version, 40))
			return c.err
		}
	}
	p.take(0, c.off, "the header")
	p.sections = map[uint16]int64{}
	for n := 0; next != 0; n++ {
		if next > uint64(p.size) {
			p.note("the file is cut short: options at offset %d are missing", next)
			break
		}
		if n == 1<<12 {
			return &BadFile{"options", int64(next), fmt.Sprintf("more than %d sections of options", n)}
		}
		// A section that comes again overlaps itself, but only an end ends the loop.
		var err error
		if next, err = p.options7(int64(next)); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		id   uint16
		name string
		read func(*cursor)
		must bool
	}{
		{optHeaderInfo, "header_page", p.headerInfo, true},
		{optFtraceEvents, "ftrace formats", p.ftraceEvents, false},
		{optEventFormats, "event formats", p.eventFormats, false},
		{optKallsyms, "kallsyms", p.kallsyms, false},
		{optPrintk, "printk_formats", p.printk, false},
		{optCmdlines, "saved_cmdlines", p.cmdlines, false},
	} {
		off, ok := p.sections[s.id]
		if !ok && s.must {
			return &BadFile{s.name, p.size, "is not in the file"}
		}
		if !ok {
			continue
		}
		c, err := p.section(off, s.id, s.name)
		if err != nil {
			return err
		}
		if s.read(c); c.err != nil {
			return c.err
		}
	}
	for i, b := range p.instances {
		if b.recorded() == 0 {
			continue
		}
		what := fmt.Sprintf("instance %q", b.name)
		if b.at > uint64(p.size) {
			p.note("%s: the file is cut short: its pages at offset %d are missing", what, b.at)
			p.instances[i].cpus = nil
			continue
		}
		h, err := p.sectionHeader(int64(b.at), optBuffer, what)
		if err != nil {
			return err
		}
		p.instances[i].packed = h.packed && p.unpack != nil
		p.take(int64(b.at), int64(b.at)+headerSize, what)
	}
	return nil
}

const headerSize = 16

type sectionHeader struct {
	packed bool
	size   uint64 // without the header
}

// sectionHeader reads the header of the section id at off.
func (p *parser) sectionHeader(off int64, id uint16, name string) (h sectionHeader, err error) {
	c := p.cursor(off, name)
	got, flags := c.u16(), c.u16()
	c.u32() // a description, for people
	h = sectionHeader{flags&1 != 0, c.u64()}
	if c.err == nil && got != id {
		c.off = off
		c.fail("section %d where section %d should be", got, id)
	}
	return h, c.err
}

// section returns the content of the section at off, uncompressed.
func (p *parser) section(off int64, id uint16, name string) (*cursor, error) {
	h, err := p.sectionHeader(off, id, name)
	if err != nil {
		return nil, err
	}
	c := p.cursor(off+headerSize, name)
	if h.size > uint64(c.left()) {
		c.fail("size %d is past the end: %d bytes are left", h.size, c.left())
		return nil, c.err
	}
	c = at(p.r, off+headerSize, off+headerSize+int64(h.size), name, p.order, p.budget)
	p.take(off, c.end, name)
	if !h.packed || p.unpack == nil {
		return c, nil
	}
	packed, size := c.u32(), c.u32()
	switch {
	case c.err != nil:
		return nil, c.err
	case int64(packed) > c.left():
		c.fail("%d compressed bytes: %d are left", packed, c.left())
	case packed > maxText || size > maxText:
		c.fail("%d bytes out of %d compressed ones: %d at most", size, packed, maxText)
	}
	if c.err != nil {
		return nil, c.err
	}
	start := c.off
	b := c.raw(int(packed))
	if c.err != nil {
		return nil, c.err
	}
	content, err := p.unpack(b, int(size))
	if err != nil {
		return nil, &BadFile{name, start, err.Error()}
	}
	return in(content, name+" (uncompressed)", p.order, p.budget), nil
}

// options7 reads one section of options and returns where the next is, 0 for
// none.
func (p *parser) options7(off int64) (next uint64, err error) {
	c, err := p.section(off, optDone, "options")
	if err != nil {
		return 0, err
	}
	for {
		id := c.u16()
		data := c.text(uint64(c.u32()), maxOptions)
		if c.err != nil {
			return 0, c.err
		}
		if id == optDone {
			if len(data) != 8 {
				c.fail("the last option has %d bytes; it must have 8", len(data))
				return 0, c.err
			}
			return p.order.Uint64(data), nil
		}
		if err := p.option(c, id, data); err != nil {
			return 0, err
		}
	}
}
