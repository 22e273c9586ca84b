package tracedat

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"labctl/host/text"
	"labctl/host/trace/capture"
)

// Read reads a trace.dat of size bytes but for its pages, which stay in r. A
// file that was cut inside the pages, or that promises more of them than it has,
// is read with a note of the shortfall; any other fault is a *BadFile.
//
// Of a file with several trace instances the CPUs of all are there, those of the top
// one first. One whose pages have another size than theirs, or whose times are of
// another clock, is left out with a note.
func Read(r io.ReaderAt, size int64) (*File, error) {
	budget := int64(maxTexts)
	c := at(r, 0, size, "header", binary.LittleEndian, &budget)
	c.expect(magic)
	version := c.name()
	order, long, page := c.raw(1)[0], c.raw(1)[0], c.raw(4)
	if c.err != nil {
		return nil, c.err
	}
	p := &parser{r: r, size: size, order: binary.LittleEndian, budget: &budget, f: &File{}}
	switch {
	case version != "6" && version != "7":
		c.fail("version %q: known are 6 and 7", text.Line(version, 20))
	case order > 1:
		c.fail("byte order %d: known are 0 (little endian) and 1 (big endian)", order)
	case long != 4 && long != 8:
		c.fail("a long of %d bytes: known are 4 and 8", long)
	case order == 1:
		p.order = binary.BigEndian
	}
	c.order = p.order
	p.f.Version, _ = strconv.Atoi(version)
	p.f.Order, p.f.LongSize, p.f.PageSize = p.order, int(long), p.pageSize(c, p.order.Uint32(page))
	if c.err != nil {
		return nil, c.err
	}
	parse := p.version6
	if p.f.Version == 7 {
		parse = p.version7
	}
	if err := parse(c); err != nil {
		return nil, err
	}
	if err := p.buffers(); err != nil {
		return nil, err
	}
	return p.f, nil
}

// parser is what both versions share.
type parser struct {
	r      io.ReaderAt
	size   int64
	order  binary.ByteOrder
	budget *int64
	f      *File

	// from options
	cpuCount  int
	clock     bool   // the clock is there, in version 6 behind the CPU table too
	instance  string // whose statistics come
	stats     []stat
	instances []instance
	sections  map[uint16]int64 // version 7: where they are

	unpack unpacker // version 7: nil when nothing is compressed
	chunks int      // of compressed pages, so far
	taken  []span
}

type stat struct {
	instance string
	cpu      int
	text     []byte
}

// instance is one trace instance's pages.
type instance struct {
	name, clock string
	at          uint64
	page        uint32
	packed      bool
	cpus        []extent
}

// extent is where the file says a CPU's pages are.
type extent struct {
	cpu       int
	off, size uint64
}

// span is a part of the file that something has.
type span struct {
	off, end int64
	what     string
}

func (p *parser) cursor(off int64, section string) *cursor {
	return at(p.r, off, p.size, section, p.order, p.budget)
}

func (p *parser) note(format string, args ...any) {
	p.f.Notes = append(p.f.Notes, text.Line(fmt.Sprintf(format, args...), 300))
}

func (p *parser) take(off, end int64, what string) {
	if end > off {
		p.taken = append(p.taken, span{off, end, what})
	}
}

// overlap is an error when two sections share bytes.
func (p *parser) overlap() error {
	slices.SortFunc(p.taken, func(a, b span) int { return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.end, b.end)) })
	for i := 1; i < len(p.taken); i++ {
		if before, s := p.taken[i-1], p.taken[i]; s.off < before.end {
			return &BadFile{s.what, s.off, fmt.Sprintf("lies in %s, which ends at %d", before.what, before.end)}
		}
	}
	return nil
}

func (p *parser) pageSize(c *cursor, n uint32) int {
	if n < 512 || n > maxPage || n&(n-1) != 0 {
		c.fail("a page of %d bytes: it must be a power of two from 512 to %d", n, maxPage)
	}
	return int(n)
}

var commitField = regexp.MustCompile(`local_t commit;\s*offset:\d+;\s*size:([48]);`)

// longSize is the kernel's, out of header_page; 0 when that does not tell. The
// header's own is that of trace-cmd, which may be a 32-bit program.
func longSize(headerPage []byte) int {
	m := commitField.FindSubmatch(headerPage)
	if m == nil {
		return 0
	}
	return int(m[1][0] - '0')
}

func (p *parser) headerInfo(c *cursor) {
	c.section = "header_page"
	c.expect("header_page\x00")
	p.f.HeaderPage = c.text(c.u64(), maxText)
	c.section = "header_event"
	c.expect("header_event\x00")
	p.f.HeaderEvent = c.text(c.u64(), maxText)
	if n := longSize(p.f.HeaderPage); n != 0 {
		p.f.LongSize = n
	}
}

func (p *parser) ftraceEvents(c *cursor) {
	c.section = "ftrace formats"
	p.formats(c, "ftrace")
}

func (p *parser) eventFormats(c *cursor) {
	c.section = "event formats"
	for n := c.u32(); n > 0 && c.err == nil; n-- {
		p.formats(c, c.name())
	}
}

// formats reads a count and as many formats of one system. Empty ones, of
// events that trace-cmd could not read, are dropped.
func (p *parser) formats(c *cursor, system string) {
	for n := c.u32(); n > 0 && c.err == nil; n-- {
		if b := c.text(c.u64(), maxText); len(b) > 0 {
			p.f.Formats = append(p.f.Formats, capture.Format{System: system, Text: b})
		}
	}
}

func (p *parser) kallsyms(c *cursor) {
	c.section = "kallsyms"
	p.f.Kallsyms = c.text(uint64(c.u32()), maxText)
}

func (p *parser) printk(c *cursor) {
	c.section = "printk_formats"
	p.f.Printk = c.text(uint64(c.u32()), maxText)
}

func (p *parser) cmdlines(c *cursor) {
	c.section = "saved_cmdlines"
	p.f.Cmdlines = c.text(c.u64(), maxText)
}

// option takes one option in. Those that say nothing of pages or of their times
// are left alone.
func (p *parser) option(c *cursor, id uint16, data []byte) error {
	o := in(data, fmt.Sprintf("option %d", id), p.order, p.budget)
	str := string(bytes.TrimSuffix(data, []byte{0}))
	switch id {
	case optStats:
		p.stat(str)
	case optBuffer:
		b := instance{at: o.u64(), name: o.name()}
		if p.f.Version == 7 {
			b.clock, b.page = o.name(), o.u32()
			n := o.u32()
			if n > maxCPUs {
				o.fail("%d CPUs: %d at most", n, maxCPUs)
			}
			for ; n > 0 && o.err == nil; n-- {
				cpu := o.u32()
				if cpu >= maxCPUs {
					o.fail("CPU %d: %d at most", cpu, maxCPUs-1)
				}
				b.cpus = append(b.cpus, extent{int(cpu), o.u64(), o.u64()})
			}
		}
		if len(p.instances) == 1<<12 {
			o.fail("more than %d trace instances", len(p.instances))
		}
		p.instances = append(p.instances, b)
	case optBufferText:
		p.note("a text trace (a latency tracer's) is left out: it has no pages")
	case optClock:
		p.clock, p.f.Clocks = true, nonEmpty(str)
	case optUname:
		p.f.Uname = str
	case optCPUCount:
		n := o.u32()
		if n > maxCPUs {
			o.fail("%d CPUs: %d at most", n, maxCPUs)
		}
		p.cpuCount = int(n)
	case optDate, optOffset:
		// Microseconds from the trace clock to the time of day; nanoseconds by --ts-offset.
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimRight(str, "\x00")), 0, 64)
		if id == optDate {
			n *= 1000
		}
		if err != nil {
			p.note("an offset of times is not a number: %q", str)
			break
		}
		p.f.Times.Add += n
	case optTSC:
		p.f.Times.Mult, p.f.Times.Shift = o.u32(), o.u32()
		if p.f.Times.Shift > 63 {
			o.fail("a shift of %d bits: 63 at most", p.f.Times.Shift)
		}
	case optTimeShift:
		p.note("option TIME_SHIFT is not applied: times are those of the guest's trace clock, not of its host's")
	case optHeaderInfo, optFtraceEvents, optEventFormats, optKallsyms, optPrintk, optCmdlines:
		if p.f.Version != 7 {
			break
		}
		off := o.u64()
		if o.err == nil && off > uint64(p.size) {
			o.fail("its section is at offset %d, the file ends at %d", off, p.size)
		}
		p.sections[id] = int64(off)
	}
	if o.err != nil {
		bad := o.err.(*BadFile) // in memory: reads do not fail
		bad.Section, bad.Offset = c.section+", "+bad.Section, bad.Offset+c.off-int64(len(data))
		return bad
	}
	return nil
}

// stat keeps one CPU's statistics: "CPU: 0" and the stats file. "Buffer: NAME"
// says that those of another instance follow.
func (p *parser) stat(s string) {
	if name, ok := strings.CutPrefix(strings.TrimSpace(s), "Buffer: "); ok {
		p.instance = name
		return
	}
	head, rest, _ := strings.Cut(s, "\n")
	n, ok := strings.CutPrefix(head, "CPU: ")
	cpu, err := strconv.Atoi(n)
	if ok && err == nil && cpu >= 0 && cpu < maxCPUs && rest != "" {
		p.stats = append(p.stats, stat{p.instance, cpu, []byte(rest)})
	}
}

func nonEmpty(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// buffers makes the CPUs of all instances.
func (p *parser) buffers() error {
	instances := p.sorted()
	first := instances[0]
	if first.page != 0 {
		c := p.cursor(int64(first.at), first.what())
		if p.f.PageSize = p.pageSize(c, first.page); c.err != nil {
			return c.err
		}
	}
	if first.clock != "" && !strings.Contains(string(p.f.Clocks), "["+first.clock+"]") {
		p.f.Clocks = []byte("[" + first.clock + "]")
	}
	for _, b := range instances {
		switch {
		case b.page != first.page:
			p.note("%s: pages of %d CPUs are left out: they have %d bytes each, where those of %s have %d", b.what(), b.recorded(), b.page, first.what(), first.page)
		case b.clock != first.clock:
			p.note("%s: pages of %d CPUs are left out: their times are of the clock %q, where those of %s are of %q", b.what(), b.recorded(), b.clock, first.what(), first.clock)
		default:
			if err := p.buffer(b); err != nil {
				return err
			}
		}
	}
	p.f.CPUCount = p.cpuCount
	return p.overlap()
}

// buffer makes the CPUs of one instance.
func (p *parser) buffer(b instance) error {
	for _, s := range p.stats { // of CPUs that recorded nothing, too
		if s.instance == b.name && !slices.ContainsFunc(b.cpus, func(e extent) bool { return e.cpu == s.cpu }) {
			b.cpus = append(b.cpus, extent{cpu: s.cpu})
		}
	}
	slices.SortStableFunc(b.cpus, func(x, y extent) int { return cmp.Compare(x.cpu, y.cpu) })
	for i, e := range b.cpus {
		if i > 0 && b.cpus[i-1].cpu == e.cpu {
			return &BadFile{fmt.Sprintf("CPU %d", e.cpu), int64(e.off), "is there twice"}
		}
		cpu := capture.CPU{ID: e.cpu, Instance: b.name}
		if e.size > 0 {
			pages, n, err := p.pages(b, e)
			if err != nil {
				return err
			}
			cpu.Pages, cpu.Size = pages, n
		}
		for _, s := range p.stats {
			if s.instance == b.name && s.cpu == e.cpu {
				cpu.Stats = s.text
			}
		}
		if cpu.Size == 0 {
			cpu.Pages = bytes.NewReader(nil)
		}
		if len(p.f.CPUs) == maxCPUs {
			return &BadFile{b.what(), int64(b.at), fmt.Sprintf("more than %d buffers of CPUs", maxCPUs)}
		}
		if e.size > 0 || cpu.Stats != nil {
			p.f.CPUs = append(p.f.CPUs, cpu)
		}
		p.cpuCount = max(p.cpuCount, e.cpu+1)
	}
	return nil
}

// what names the instance in an error or a note.
func (b instance) what() string {
	if b.name == "" {
		return "the top instance"
	}
	return fmt.Sprintf("instance %q", text.Line(b.name, maxName))
}

func (b instance) recorded() (n int) {
	for _, e := range b.cpus {
		if e.size > 0 {
			n++
		}
	}
	return n
}

// sorted are the instances that have pages, the top one first; that one alone, if
// none has any.
func (p *parser) sorted() (out []instance) {
	var empty instance
	for _, b := range p.instances {
		switch {
		case b.recorded() > 0 && b.name == "":
			out = slices.Insert(out, 0, b)
		case b.recorded() > 0:
			out = append(out, b)
		case b.name == "":
			empty = b
		}
	}
	if len(out) == 0 {
		return []instance{empty}
	}
	return out
}

// pages returns the pages at e, cut to what the file has.
func (p *parser) pages(b instance, e extent) (io.ReaderAt, int64, error) {
	what := fmt.Sprintf("CPU %d", e.cpu)
	if e.off+e.size < e.off || e.off+e.size > 1<<63-1 {
		return nil, 0, &BadFile{what, p.size, fmt.Sprintf("%d bytes of pages at offset %d cannot be", e.size, e.off)}
	}
	off, end := int64(e.off), min(int64(e.off+e.size), p.size)
	short := int64(e.off+e.size) - max(off, end)
	if short > 0 {
		p.note("%s: the file is cut short: %d of %d bytes of pages at offset %d are missing", what, short, e.size, e.off)
	}
	if off >= end {
		return nil, 0, nil
	}
	if b.packed {
		return p.packed(off, end, what, short > 0)
	}
	p.take(off, end, what)
	return io.NewSectionReader(p.r, off, end-off), end - off, nil
}
