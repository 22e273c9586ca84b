package tracedat

import "fmt"

// version6 reads what follows the page size.
func (p *parser) version6(c *cursor) error {
	for _, section := range []func(*cursor){
		p.headerInfo, p.ftraceEvents, p.eventFormats, p.kallsyms, p.printk, p.cmdlines,
	} {
		if section(c); c.err != nil {
			return c.err
		}
	}
	c.section = "CPU count"
	n := c.u32()
	if n > maxCPUs {
		c.fail("%d CPUs: %d at most", n, maxCPUs)
	}
	p.cpuCount = int(n)
	c.section = "options"
	word := string(c.raw(10))
	if word == "options  \x00" {
		if err := p.options6(c); err != nil {
			return err
		}
		word = string(c.raw(10))
	}
	switch {
	case c.err != nil:
		return c.err
	case word == "latency  \x00":
		return &BadFile{"options", c.off, "the file holds a latency tracer's text, which has no pages"}
	case word != "flyrecord\x00":
		return &BadFile{"options", c.off - 10, fmt.Sprintf("%q where \"flyrecord\" should be", word)}
	}
	// An instance's option has the place of a table of its own.
	named := p.instances
	top, err := p.table6(c, true)
	if err != nil {
		return err
	}
	p.take(0, c.off, "the header")
	p.instances = []instance{{cpus: top}}
	for _, b := range named {
		what := fmt.Sprintf("instance %q", b.name)
		if b.at > uint64(p.size) {
			p.note("%s: the file is cut short: its table at offset %d is missing", what, b.at)
			continue
		}
		c := p.cursor(int64(b.at), what)
		c.expect("flyrecord\x00")
		if b.cpus, err = p.table6(c, false); err != nil {
			return err
		}
		if b.name != "" {
			p.take(int64(b.at), c.off, what)
			p.instances = append(p.instances, b)
		}
	}
	return nil
}

func (p *parser) options6(c *cursor) error {
	for {
		id := c.u16()
		if c.err != nil || id == optDone {
			return c.err
		}
		data := c.text(uint64(c.u32()), maxOptions)
		if c.err != nil {
			return c.err
		}
		if err := p.option(c, id, data); err != nil {
			return err
		}
	}
}

// table6 reads where the pages are, and behind that the clock.
func (p *parser) table6(c *cursor, top bool) (cpus []extent, err error) {
	c.section = "CPU table"
	for cpu := range p.cpuCount {
		e := extent{cpu, c.u64(), c.u64()}
		if c.err != nil {
			return nil, c.err
		}
		cpus = append(cpus, e)
	}
	if top && p.clock && len(p.f.Clocks) == 0 {
		// trace-cmd has written it wrong at times, and reads on without it.
		if k := p.cursor(c.off, "clock"); k.left() > 8 {
			p.f.Clocks = k.text(k.u64(), 4096)
		}
	}
	return cpus, nil
}
