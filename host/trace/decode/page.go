package decode

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"labctl/host/outcome"
	"labctl/host/trace/capture"
)

// Damage is a place in a CPU's pages that is not what the kernel writes. The rest
// of its page is passed over.
type Damage struct {
	CPU    int
	Offset int64 // in the CPU's pages, bytes
	Reason string
}

func (e *Damage) Error() string {
	return fmt.Sprintf("trace of CPU %d, byte %d: %s", e.CPU, e.Offset, e.Reason)
}

// Outcome is CheckFailed: the trace is not what the kernel should write.
func (e *Damage) Outcome() outcome.Kind { return outcome.CheckFailed }

// The commit word of a page has flags above the number of bytes.
const (
	missedEvents = 1 << 31 // events before this page were overwritten
	missedStored = 1 << 30 // their number stands behind the data, an unsigned long
)

// Types of records (include/linux/ring_buffer.h). Up to maxDataLen the type is
// the length of the data in units of 4 bytes, 0 has the length in a word of its own.
const (
	maxDataLen = 28
	padding    = 29 // a discarded event, or with no time the rest of the page
	timeExtend = 30 // time since the record before, of 59 bits
	timeStamp  = 31 // absolute time, its low 59 bits
)

const (
	timeBits = 27
	topBits  = uint64(0xf8) << 56 // of a time; an absolute stamp has no room for them
)

// A window of this many bytes of each CPU's pages is held, of which at least a
// quarter is ahead of the current page: an event's stack is looked for there.
const window = 128 << 10

// cpu reads one CPU's pages, oldest record first.
type cpu struct {
	dec   *Decoder
	index int // in the capture
	in    capture.CPU
	stats *Stats

	buf  []byte // the window
	n    int    // bytes in it
	base int64  // offset of buf[0] in the pages
	// short is why there is no more to read than the window has; io.EOF when
	// that is as it should be.
	short error

	started        bool
	page, pos, end int // in buf: current page, next record, end of its records
	time           uint64
	lost           uint64 // before the next record
	joined         []int64

	head head
	err  error // in place of head
}

// head is the next record, to be merged with those of other CPUs.
type head struct {
	time        uint64
	offset      int64
	start, stop int // data in buf
	id          int
	lost        uint64
}

func newCPU(d *Decoder, index int) *cpu {
	in := d.capture.CPUs[index]
	size := int64(max(window/d.pageSize, 2)) * int64(d.pageSize)
	if in.Size < size {
		size = max(in.Size, 0)
	}
	c := &cpu{dec: d, index: index, in: in, stats: &d.stats[index], buf: make([]byte, size), joined: make([]int64, 0, maxJoined)}
	if in.Pages == nil || in.Size <= 0 {
		c.short = io.EOF
	}
	return c
}

// record is one record of a page, of whatever type.
type record struct {
	typ   uint32
	delta uint64
	start int // of the data
	next  int // end of the data, where the next record starts
}

// record reads the record at pos; the page's records go on to end. What is wrong
// with it is returned as reason.
func (d *Decoder) record(b []byte, pos, end int) (r record, reason string) {
	if end-pos < 4 {
		return r, "a record is cut: less than 4 bytes are left"
	}
	word := d.u32(b[pos:])
	if d.big {
		r.typ, r.delta = word>>timeBits, uint64(word&(1<<timeBits-1))
	} else {
		r.typ, r.delta = word&31, uint64(word>>5)
	}
	if r.typ-1 < maxDataLen { // the most of all records
		r.start = pos + 4
		r.next = r.start + int(r.typ)*4
		if r.next > end {
			return r, "a record goes on past the end of its page's data"
		}
		return r, ""
	}
	if r.typ == padding && r.delta == 0 {
		r.next = end
		return r, ""
	}
	if end-pos < 8 {
		return r, "a record is cut: less than 8 bytes are left"
	}
	more := d.u32(b[pos+4:])
	switch r.typ {
	case timeExtend, timeStamp:
		r.delta += uint64(more) << timeBits
		r.next = pos + 8
		return r, ""
	}
	// A length counts its own word.
	if more < 4 || more%4 != 0 || int64(more) > int64(end-pos-4) {
		return r, "a record's length is not one that fits its page"
	}
	r.start = pos + 8
	r.next = pos + 4 + int(more)
	return r, ""
}

// next goes to the next record that is an event's or a stack without one, or to
// an error. It reports false at the end.
func (c *cpu) next() bool {
	d := c.dec
	for {
		if c.pos >= c.end {
			if !c.nextPage() {
				return false
			}
			if c.err != nil {
				c.head.time = c.time
				return true
			}
			continue
		}
		at := c.pos
		r, reason := d.record(c.buf, at, c.end)
		if reason == "" && r.typ <= maxDataLen && r.next-r.start < d.common.size {
			reason = "a record is too short for an event"
		}
		if reason != "" {
			c.pos = c.end
			c.damage(at, reason)
			c.head.time = c.time
			return true
		}
		c.pos = r.next
		switch r.typ {
		case timeExtend:
			c.time += r.delta
			continue
		case timeStamp:
			c.time = absolute(r.delta, c.time)
			continue
		case padding:
			// Discarded. 1 stands for no time, which would mean the rest of
			// the page (rb_event_discard, check_buffer).
			if r.delta != 1 {
				c.time += r.delta
			}
			continue
		}
		c.time += r.delta
		id := int(d.u16(c.buf[r.start+d.common.typ:]))
		if id == d.kernelStack.id || id == d.userStack.id {
			if i := slices.Index(c.joined, c.base+int64(at)); i >= 0 {
				c.joined = slices.Delete(c.joined, i, i+1)
				c.stats.Events++
				continue
			}
		}
		c.head = head{time: c.time, offset: c.base + int64(at), start: r.start, stop: r.next, id: id, lost: c.lost}
		c.lost = 0
		return true
	}
}

// absolute puts the top bits, for which a stamp has no room, back from the time
// before (rb_fix_abs_ts).
func absolute(stamp, before uint64) uint64 {
	if before&topBits == 0 {
		return stamp
	}
	stamp |= before & topBits
	if stamp < before {
		stamp += 1 << 59
	}
	return stamp
}

// nextPage goes to the next page. It reports false when there is none, and leaves
// the page without records where it sets c.err.
func (c *cpu) nextPage() bool {
	d := c.dec
	if c.started {
		c.page += d.pageSize
	}
	c.started = true
	if c.short == nil && c.page+len(c.buf)/4 >= c.n {
		c.read()
	}
	c.pos, c.end = c.page, c.page
	if c.page >= c.n {
		if c.short != nil && c.short != io.EOF {
			c.err, c.short = c.short, io.EOF
			return true
		}
		return false
	}
	avail := min(d.pageSize, c.n-c.page)
	if avail < d.page.DataOffset {
		c.damage(c.page, fmt.Sprintf("the capture ends in the header of a page: %d bytes of %d", avail, d.pageSize))
		return true
	}
	b := c.buf[c.page : c.page+avail]
	c.time = d.u64(b)
	// A flag in the sign bit of an int fills the upper half of a long.
	commit := d.u32(b[d.page.CommitOffset:])
	if d.big && d.page.CommitSize == 8 {
		commit = d.u32(b[d.page.CommitOffset+4:])
	}
	data := int64(commit &^ (missedEvents | missedStored))
	room := int64(d.pageSize - d.page.DataOffset)
	if data > room {
		c.damage(c.page+d.page.CommitOffset, fmt.Sprintf("a page says it has %d bytes of data, and has room for %d", data, room))
		return true
	}
	c.pos = c.page + d.page.DataOffset
	c.end = min(c.pos+int(data), c.page+avail)
	if commit&missedEvents != 0 {
		c.missed(commit&missedStored != 0, b[min(d.page.DataOffset+int(data), avail):])
	}
	return true
}

// missed counts the events that the page says were lost before it.
func (c *cpu) missed(stored bool, after []byte) {
	n := uint64(0)
	if stored && len(after) >= c.dec.longSize {
		n = c.dec.long(after)
	}
	if n == 0 || n > math.MaxInt32 {
		// The kernel does not know, or the page is not to be believed.
		c.stats.AtLeast = true
		n = 1
	}
	c.lost += n
	c.stats.Lost += int64(n)
}

func (c *cpu) damage(at int, reason string) {
	c.stats.Damaged++
	c.err = &Damage{CPU: c.in.ID, Offset: c.base + int64(at), Reason: reason}
}

// read moves the window on, so that the current page is its first.
func (c *cpu) read() {
	keep := max(c.n-c.page, 0)
	copy(c.buf, c.buf[c.n-keep:c.n])
	c.base += int64(c.n - keep)
	c.page, c.n = 0, keep
	want := min(int64(len(c.buf)-c.n), c.in.Size-c.base-int64(c.n))
	n, err := c.in.Pages.ReadAt(c.buf[c.n:c.n+int(want)], c.base+int64(c.n))
	c.n += max(min(n, int(want)), 0)
	got := c.base + int64(c.n)
	switch {
	case got >= c.in.Size:
		c.short = io.EOF
	case err == nil:
	case errors.Is(err, io.EOF):
		c.short = &Damage{CPU: c.in.ID, Offset: got, Reason: fmt.Sprintf("the pages end here, and %d bytes are claimed", c.in.Size)}
	default:
		c.short = fmt.Errorf("read trace of CPU %d, byte %d: %w", c.in.ID, got, err)
	}
}
