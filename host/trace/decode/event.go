package decode

import (
	"fmt"
	"slices"

	"labctl/host/text"
	"labctl/host/trace/format"
)

// Event is one record of a ring buffer.
type Event struct {
	Time uint64 // of the capture's trace clock: nanoseconds, for most clocks
	CPU  int
	// Instance is that of the tracing which has recorded the event; "" for the top one.
	Instance string
	PID      int // of the task that ran: a TID
	Flags    Flags
	Preempt  uint8 // preempt_count in the low four bits, migrate_disable above
	Format   *format.Event
	Data     []byte // the whole record, common fields included
	Offset   int64  // of the record in the CPU's pages
	// Lost is how many events this CPU is known to have lost just before.
	Lost uint64
	// Stack is the kernel stack that was taken with the event, return
	// addresses, innermost first, the tracer's own machinery included; nil
	// when none was taken. UserStack is the task's own.
	Stack, UserStack []uint64

	dec               *Decoder
	stackBuf, userBuf []uint64
}

// Clone is the event to keep: an iteration overwrites its own.
func (e *Event) Clone() *Event {
	c := *e
	c.Data = slices.Clone(e.Data)
	c.Stack, c.UserStack = slices.Clone(e.Stack), slices.Clone(e.UserStack)
	c.stackBuf, c.userBuf = nil, nil
	return &c
}

// Flags are common_flags (include/linux/trace_events.h, enum trace_flag_type).
type Flags uint8

const (
	IRQsOff         Flags = 0x01
	NeedReschedLazy Flags = 0x02 // before 6.13: it is not known whether interrupts are off
	NeedResched     Flags = 0x04
	HardIRQ         Flags = 0x08
	SoftIRQ         Flags = 0x10
	PreemptResched  Flags = 0x20
	NMI             Flags = 0x40
	BHOff           Flags = 0x80
)

// level orders the contexts that interrupt each other.
func (f Flags) level() int {
	switch {
	case f&NMI != 0:
		return 3
	case f&HardIRQ != 0:
		return 2
	case f&SoftIRQ != 0:
		return 1
	}
	return 0
}

// event makes the head the event, with the stacks that follow it.
func (c *cpu) event(e *Event) {
	d, h := c.dec, &c.head
	c.stats.Events++
	e.Time, e.Offset, e.Lost = d.capture.Times.Of(h.time), h.offset, h.lost
	e.CPU, e.Instance = c.in.ID, c.in.Instance
	e.Data = c.buf[h.start:h.stop:h.stop]
	e.PID, e.Flags, e.Preempt = d.commons(e.Data)
	if h.id < len(d.events) && d.events[h.id] != nil {
		e.Format = d.events[h.id]
	} else {
		e.Format = d.format(h.id)
		c.stats.Unknown++
	}
	e.Stack, e.UserStack = nil, nil
	switch {
	case h.id == d.kernelStack.id:
		e.stackBuf = d.callers(e.stackBuf[:0], e.Data, d.kernelStack)
		e.Stack = e.stackBuf
	case h.id == d.userStack.id:
		e.userBuf = d.callers(e.userBuf[:0], e.Data, d.userStack)
		e.UserStack = e.userBuf
	case d.kernelStack.id >= 0 || d.userStack.id >= 0:
		c.join(e)
	}
}

func (d *Decoder) commons(data []byte) (pid int, flags Flags, count uint8) {
	pid = int(int32(d.u32(data[d.common.pid:])))
	if d.common.flags >= 0 {
		flags = Flags(data[d.common.flags])
	}
	if d.common.count >= 0 {
		count = data[d.common.count]
	}
	return pid, flags, count
}

// Bounds on the search for an event's stack. An interrupt may write any number
// of events between the two; contexts nest four deep, and each may have two
// stacks outstanding.
const (
	maxPeek   = 4096
	maxJoined = 64
	maxFrames = 1024
)

// join finds the stacks of the event: the kernel writes them right after it in
// the same context, and only events of contexts that interrupted that one come
// in between.
func (c *cpu) join(e *Event) {
	d := c.dec
	page, pos, end := c.page, c.pos, c.end
	for range maxPeek {
		if pos >= end {
			if page, pos, end = c.peekPage(page); pos >= end {
				return
			}
		}
		r, reason := d.record(c.buf, pos, end)
		at := c.base + int64(pos)
		if reason != "" {
			return
		}
		pos = r.next
		if r.typ > maxDataLen {
			continue
		}
		data := c.buf[r.start:r.next]
		if len(data) < d.common.size {
			return
		}
		pid, flags, _ := d.commons(data)
		if flags.level() > e.Flags.level() {
			continue
		}
		id := int(d.u16(data[d.common.typ:]))
		switch {
		case pid != e.PID || flags.level() != e.Flags.level() || len(c.joined) >= maxJoined:
			return
		case id == d.kernelStack.id && e.Stack == nil && e.UserStack == nil:
			e.stackBuf = d.callers(e.stackBuf[:0], data, d.kernelStack)
			e.Stack = e.stackBuf
		case id == d.userStack.id && e.UserStack == nil:
			e.userBuf = d.callers(e.userBuf[:0], data, d.userStack)
			e.UserStack = e.userBuf
		default:
			return
		}
		c.joined = append(c.joined, at)
	}
}

// peekPage is the page after page, as far as the window has it: where its records
// are. A page that says events were lost before it ends the search.
func (c *cpu) peekPage(page int) (next, pos, end int) {
	d := c.dec
	next = page + d.pageSize
	if next+d.page.DataOffset > c.n {
		return next, 0, 0
	}
	b := c.buf[next:min(next+d.pageSize, c.n)]
	commit := d.u32(b[d.page.CommitOffset:])
	if d.big && d.page.CommitSize == 8 {
		commit = d.u32(b[d.page.CommitOffset+4:])
	}
	pos = next + d.page.DataOffset
	if int64(commit) > int64(d.pageSize-d.page.DataOffset) { // a flag, or damage
		return next, 0, 0
	}
	return next, pos, min(pos+int(commit), next+len(b))
}

// callers reads a stack's addresses. Their declared number (8) is not theirs:
// the record's length and its size field are.
func (d *Decoder) callers(dst []uint64, data []byte, f stackFormat) []uint64 {
	if len(data) < f.callers {
		return dst
	}
	n := min((len(data)-f.callers)/d.longSize, maxFrames)
	if f.size >= 0 && len(data) >= f.size+4 {
		n = min(n, max(int(int32(d.u32(data[f.size:]))), 0))
	}
	last := ^uint64(0)
	if d.longSize == 4 {
		last = 1<<32 - 1
	}
	for i := range n {
		pc := d.long(data[f.callers+i*d.longSize:])
		if pc == last || pc == 0 && f.size < 0 { // the end of a stack of fixed size
			break
		}
		dst = append(dst, pc)
	}
	return dst
}

// Name is the event's: "sched_switch".
func (e *Event) Name() string { return e.Format.Name }

func (e *Event) errorf(form string, args ...any) error {
	return fmt.Errorf("event %s of CPU %d, byte %d: %w", e.Format, e.CPU, e.Offset, fmt.Errorf(form, args...))
}

func (e *Event) field(name string) (*format.Field, error) {
	f := e.Format.Field(name)
	if f == nil {
		return nil, e.errorf("no field %s", name)
	}
	return f, nil
}

// Bytes are those of a field, an array's wherever they are in the record. They
// are the guest's, and belong to the event's Data.
func (e *Event) Bytes(name string) ([]byte, error) {
	f, err := e.field(name)
	if err != nil {
		return nil, err
	}
	return e.bytes(f)
}

func (e *Event) bytes(f *format.Field) ([]byte, error) {
	start, size, ok := f.Span(e.Data, e.dec.u32)
	if !ok {
		return nil, e.errorf("field %s claims bytes %d to %d of a record of %d", f.Name, start, start+size, len(e.Data))
	}
	return e.Data[start : start+size : start+size], nil
}

// Uint is a field as a number without a sign. An array's first element is not one.
func (e *Event) Uint(name string) (uint64, error) {
	f, err := e.field(name)
	if err != nil {
		return 0, err
	}
	v, ok := e.UintOf(f)
	if !ok {
		if f.Array || f.Size > 8 {
			return 0, e.errorf("field %s is no number", name)
		}
		return 0, e.errorf("field %s is past the record's %d bytes", name, len(e.Data))
	}
	return v, nil
}

// UintOf is Uint of a field of the event's Format; false when it is not a number or
// not in the record.
func (e *Event) UintOf(f *format.Field) (uint64, bool) {
	if f.Array || f.Offset+f.Size > len(e.Data) {
		return 0, false
	}
	return e.dec.number(e.Data[f.Offset:], f.Size)
}

func (d *Decoder) number(b []byte, size int) (uint64, bool) {
	switch size {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(d.u16(b)), true
	case 4:
		return uint64(d.u32(b)), true
	case 8:
		return d.u64(b), true
	}
	return 0, false
}

// Int is Uint with the field's sign.
func (e *Event) Int(name string) (int64, error) {
	v, err := e.Uint(name)
	if err != nil {
		return 0, err
	}
	f := e.Format.Field(name)
	if f.Signed {
		return extend(v, f.Size), nil
	}
	return int64(v), nil
}

func extend(v uint64, size int) int64 {
	shift := 64 - 8*size
	return int64(v<<shift) >> shift
}

// String is a text field up to its NUL, cleaned for terminals.
func (e *Event) String(name string) (string, error) {
	b, err := e.Bytes(name)
	if err != nil {
		return "", err
	}
	return text.Clean(cstring(b)), nil
}

func cstring(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Array are the elements of an array, appended to dst. A bit mask is an array of
// unsigned longs.
func (e *Event) Array(dst []uint64, name string) ([]uint64, error) {
	f, err := e.field(name)
	if err != nil {
		return dst, err
	}
	b, err := e.bytes(f)
	if err != nil {
		return dst, err
	}
	for ; len(b) >= f.Elem; b = b[f.Elem:] {
		v, ok := e.dec.number(b, f.Elem)
		if !ok {
			return dst, e.errorf("field %s has elements of %d bytes, no numbers", name, f.Elem)
		}
		dst = append(dst, v)
	}
	return dst, nil
}
