// Package decode decodes the pages of a kernel's trace ring buffers into events, by
// the kernel's own descriptions of them.
//
// The pages are those of kernel/trace/ring_buffer.c, as trace_pipe_raw gives
// them; Documentation/trace/ring-buffer-design.rst tells how they come to be.
// They come from a guest or a file: what is damaged is told and passed over, and
// the next page is read.
package decode

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"

	"labctl/host/trace/capture"
	"labctl/host/trace/format"
	"labctl/host/trace/syscalls"
)

const (
	maxCPUs     = 8192 // NR_CPUS of the largest kernels
	maxFormats  = 1 << 16
	minPageSize = 64
	maxPageSize = 1 << 20 // RB_WRITE_MASK
)

// Decoder reads one capture. It is for one goroutine, and one run of Events at a
// time; runs may follow each other.
type Decoder struct {
	capture  *capture.Capture
	big      bool // byte order
	longSize int
	page     format.Page
	pageSize int

	events  []*format.Event // by ID; nil where there is none
	broken  map[int]error   // formats of which only the common fields could be read
	common  common
	unknown map[int]*format.Event // formats made up for IDs without one

	kernelStack, userStack stackFormat

	stats      []Stats
	names      func() *names
	syms       func() Lookup
	kernelFrom func() uint64 // lowest address that may be the kernel's
	strings    func() map[uint64]string
	calls      func() *syscalls.Table
	texts      map[*format.Event]*printer
}

// common is where each record has what all records have.
type common struct {
	size         int // of all of it
	typ, pid     int
	flags, count int // -1 when the kernel has none
}

// stackFormat is where a stack's record has its addresses.
type stackFormat struct {
	id      int // -1 when the kernel has no such event
	size    int // offset of the number of addresses; -1 when there is none
	callers int
}

// Ticks is Capture.Ticks: the times are no nanoseconds.
func (d *Decoder) Ticks() bool { return d.capture.Ticks() }

// Open checks the descriptions of a capture. Pages are read by Events.
//
// The error is one of the descriptions: nothing can be decoded without them.
func Open(c *capture.Capture) (*Decoder, error) {
	d, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("read capture: %w", err)
	}
	return d, nil
}

func open(c *capture.Capture) (*Decoder, error) {
	if c.Order == nil {
		return nil, fmt.Errorf("its byte order is not known")
	}
	if c.LongSize != 4 && c.LongSize != 8 {
		return nil, fmt.Errorf("an unsigned long of %d bytes; there are kernels of 4 and 8", c.LongSize)
	}
	if len(c.CPUs) > maxCPUs {
		return nil, fmt.Errorf("%d CPUs, more than %d", len(c.CPUs), maxCPUs)
	}
	if len(c.Formats) > maxFormats {
		return nil, fmt.Errorf("%d formats, more than %d", len(c.Formats), maxFormats)
	}
	d := &Decoder{
		capture:  c,
		big:      c.Order.Uint16([]byte{0, 1}) == 1,
		longSize: c.LongSize,
		pageSize: c.PageSize,
		broken:   map[int]error{},
		unknown:  map[int]*format.Event{},
		texts:    map[*format.Event]*printer{},
	}
	var err error
	if d.page, err = format.ParsePage(c.HeaderPage); err != nil {
		return nil, err
	}
	if err := format.CheckRecord(c.HeaderEvent); err != nil {
		return nil, err
	}
	if d.pageSize == 0 {
		d.pageSize = d.page.Size
	}
	if d.pageSize < minPageSize || d.pageSize > maxPageSize || d.pageSize <= d.page.DataOffset {
		return nil, fmt.Errorf("pages of %d bytes; they have %d to %d", d.pageSize, minPageSize, maxPageSize)
	}
	if err := d.formats(c.Formats); err != nil {
		return nil, err
	}
	d.kernelStack = d.stackFormat("kernel_stack")
	d.userStack = d.stackFormat("user_stack")
	d.names = sync.OnceValue(func() *names { return parseNames(c) })
	d.syms = sync.OnceValue(func() Lookup { return SymbolsOf(c.Kallsyms).Find })
	d.kernelFrom = sync.OnceValue(func() uint64 { return SymbolsOf(c.Kallsyms).lowest(d.longSize) })
	d.strings = sync.OnceValue(func() map[uint64]string { return parseStrings(c.Printk) })
	d.calls = sync.OnceValue(func() *syscalls.Table {
		if t := syscalls.Of(c.Uname); t != nil {
			return t
		}
		return syscalls.OfSymbols(c.Kallsyms)
	})
	d.stats = make([]Stats, len(c.CPUs))
	for i := range c.CPUs {
		d.stats[i] = parseStats(c.CPUs[i])
	}
	return d, nil
}

func (d *Decoder) formats(all []capture.Format) error {
	d.common.typ = -1
	var first error
	for _, f := range all {
		e, err := format.Parse(f.System, f.Text, d.longSize)
		if err != nil {
			// A capture has the formats of whole systems. One that cannot be read
			// matters if there are records of its event, and Events reports it then.
			if first == nil {
				first = err
			}
			if e == nil {
				continue
			}
			d.broken[e.ID] = err
		}
		c := commonOf(e)
		if d.common.typ < 0 {
			d.common = c
		}
		if c != d.common {
			return fmt.Errorf("format of event %s: its common fields are not where %s has them", e, all[0].System)
		}
		for len(d.events) <= e.ID {
			d.events = append(d.events, nil)
		}
		// The same format twice is no harm: systems overlap in some captures.
		if old := d.events[e.ID]; old != nil && (old.Name != e.Name || old.System != e.System) {
			return fmt.Errorf("formats of events %s and %s: both have ID %d", old, e, e.ID)
		}
		d.events[e.ID] = e
	}
	if d.common.typ < 0 {
		if first != nil {
			return first
		}
		return fmt.Errorf("no format of any event")
	}
	return nil
}

func commonOf(e *format.Event) common {
	c := common{typ: -1, pid: -1, flags: -1, count: -1}
	for i := range e.Common {
		f := &e.Common[i]
		c.size = max(c.size, f.Offset+f.Size)
		switch {
		case f.Name == "common_type":
			c.typ = f.Offset
		case f.Name == "common_pid":
			c.pid = f.Offset
		case f.Name == "common_flags" && f.Size == 1:
			c.flags = f.Offset
		case f.Name == "common_preempt_count" && f.Size == 1:
			c.count = f.Offset
		}
	}
	return c
}

func (d *Decoder) stackFormat(name string) stackFormat {
	s := stackFormat{id: -1, size: -1}
	for _, e := range d.events {
		if e == nil || e.System != "ftrace" || e.Name != name {
			continue
		}
		callers := e.Field("caller")
		if callers == nil || callers.Loc != format.Here {
			continue
		}
		s.id, s.callers = e.ID, callers.Offset
		if n := e.Field("size"); n != nil && n.Size == 4 {
			s.size = n.Offset
		}
	}
	return s
}

// format is the event of an ID; one is made up for an ID that the capture does
// not describe, so that its records are not lost to view.
func (d *Decoder) format(id int) *format.Event {
	if id < len(d.events) && d.events[id] != nil {
		return d.events[id]
	}
	e := d.unknown[id]
	if e == nil {
		var commons []format.Field
		for _, known := range d.events {
			if known != nil {
				commons = known.Common
				break
			}
		}
		e = &format.Event{Name: "unknown-" + strconv.Itoa(id), ID: id, Common: commons}
		d.unknown[id] = e
	}
	return e
}

// Events goes through the records of all CPUs by time; of one time, by CPU. The
// event is valid until the next iteration: who keeps it copies Data, Stack and
// UserStack.
//
// An error, with a nil event, is a place that cannot be read (*Damage) or a file
// that cannot: iteration goes on with what can be. Each damaged page is one
// error at most. Memory does not grow with the capture: a window of each CPU's
// pages is held.
func (d *Decoder) Events() iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		var h heap
		if len(d.stats) != len(d.capture.CPUs) {
			d.stats = make([]Stats, len(d.capture.CPUs))
		}
		for i := range d.capture.CPUs {
			st := parseStats(d.capture.CPUs[i])
			d.stats[i] = st
			if c := newCPU(d, i); c.next() {
				h = append(h, c)
			}
		}
		h.order()
		e := Event{dec: d}
		told := map[int]bool{} // broken formats that were reported
		for len(h) > 0 {
			c := h[0]
			if c.err != nil {
				err := c.err
				c.err = nil
				if !yield(nil, err) {
					return
				}
			} else {
				c.event(&e)
				if err := d.broken[e.Format.ID]; err != nil && !told[e.Format.ID] {
					told[e.Format.ID] = true
					if !yield(nil, err) {
						return
					}
				}
				if !yield(&e, nil) {
					return
				}
			}
			if c.next() {
				h.down(0)
			} else {
				h[0] = h[len(h)-1]
				h = h[:len(h)-1]
				h.down(0)
			}
		}
	}
}

// heap has the CPU whose next record is the earliest at its front.
type heap []*cpu

func (h heap) before(i, j int) bool {
	a, b := h[i], h[j]
	return a.head.time < b.head.time || a.head.time == b.head.time && a.index < b.index
}

func (h heap) order() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h heap) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// Stats counts what one CPU's pages had.
type Stats struct {
	CPU      int
	Instance string
	Events   int64 // records, stacks included
	// Lost is what the pages say is missing between them: overwritten before
	// it could be read. AtLeast says that a page did not know how many, which
	// counts one.
	Lost    int64
	AtLeast bool
	// Overrun and Dropped are the kernel's own counts (per_cpu/cpuN/stats):
	// overwritten events, and ones for which there was no room.
	Overrun, Dropped int64
	Unknown          int64 // records of events without a format
	Damaged          int64 // pages with damage, and records too short to be one
}

// Missing is how many events are known to be lost, however it is known.
func (s Stats) Missing() int64 { return max(s.Lost, s.Overrun) + s.Dropped }

// Stats are those of the latest run of Events, in the order of the capture's CPUs.
func (d *Decoder) Stats() []Stats { return d.stats }

func parseStats(c capture.CPU) Stats {
	s := Stats{CPU: c.ID, Instance: c.Instance}
	const maxStats = 16 << 10
	for line := range strings.Lines(string(c.Stats[:min(len(c.Stats), maxStats)])) {
		name, value, _ := strings.Cut(line, ":")
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "overrun", "commit overrun":
			s.Overrun += n
		case "dropped events":
			s.Dropped = n
		}
	}
	return s
}

func (d *Decoder) u16(b []byte) uint16 {
	if d.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (d *Decoder) u32(b []byte) uint32 {
	if d.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (d *Decoder) u64(b []byte) uint64 {
	if d.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// long is an unsigned long of the kernel's.
func (d *Decoder) long(b []byte) uint64 {
	if d.longSize == 4 {
		return uint64(d.u32(b))
	}
	return d.u64(b)
}
