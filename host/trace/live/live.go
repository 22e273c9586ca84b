// Package live shows a trace while it is recorded, in the order of time.
//
// Pages come in rounds: when one is over, all that any CPU had recorded at its beginning
// has come, and of what was recorded meanwhile some. So the events of one round are in
// order with all others once the next round is there, and are held back until then, which
// bounds what is held by what the guest's buffers hold.
package live

import (
	"cmp"
	"io"
	"slices"

	"labctl/host/stack"
	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/jsonl"
	"labctl/host/trace/listing"
)

// maxHeld bounds the events that are held back, whatever a guest says it has recorded.
const maxHeld = 1 << 18

// Stream is one trace. Its methods are for one goroutine.
type Stream struct {
	open func(d *decode.Decoder) printer
	// failed is told the first error of writing, after which nothing is written.
	failed func(error)

	capture *capture.Capture
	dec     *decode.Decoder
	out     printer
	err     error
	held    []*decode.Event
	last    uint64 // time up to which everything has come with the next round
}

// printer prints events, in either form.
type printer interface {
	Event(*decode.Event) error
	Renamed() // names of tasks have changed
	Flush() error
}

// Text prints events as the kernel's trace file has them, with stacks in a style. failed is
// told that w takes no more.
func Text(w io.Writer, style stack.Style, failed func(error)) *Stream {
	return &Stream{failed: failed, open: func(d *decode.Decoder) printer { return text{listing.New(w, d, style)} }}
}

type text struct{ *listing.Writer }

func (text) Flush() error { return nil } // nothing is held back

// JSON prints one object a line, as jsonl has them.
func JSON(w io.Writer, failed func(error)) *Stream {
	return &Stream{failed: failed, open: func(d *decode.Decoder) printer { return jsonl.New(w, d) }}
}

// Begin takes the descriptions of what will come: a capture without pages.
func (s *Stream) Begin(c *capture.Capture) {
	c.CPUs = nil
	d, err := decode.Open(c)
	if err != nil {
		s.fail(err)
		return
	}
	s.capture, s.dec, s.out = c, d, s.open(d)
}

// Round takes the pages of a round, and lines of saved_cmdlines that are new.
func (s *Stream) Round(pages []capture.CPU, cmdlines []byte) {
	if s.err != nil || s.dec == nil {
		return
	}
	if len(cmdlines) > 0 {
		s.dec.Learn(cmdlines)
		s.out.Renamed()
	}
	newest, before := s.last, len(s.held)
	begun := map[int]bool{} // CPUs
	s.capture.CPUs = pages
	for e, err := range s.dec.Events() {
		if err != nil {
			continue // it is told of when all is read
		}
		newest = max(newest, e.Time)
		if first := !begun[e.CPU]; first && s.joined(e, s.held[:before]) {
			continue
		}
		begun[e.CPU] = true
		if s.held = append(s.held, e.Clone()); len(s.held) > maxHeld {
			s.print(newest) // rather in another order than not at all
			before = 0
		}
	}
	s.print(s.last)
	s.last = newest
}

// joined gives a stack that begins a CPU's pages to the event before it, which was read
// before the kernel had written the stack.
func (s *Stream) joined(e *decode.Event, before []*decode.Event) bool {
	if e.Format.System != "ftrace" || e.Format.Name != "kernel_stack" && e.Format.Name != "user_stack" {
		return false
	}
	i := len(before) - 1
	for i >= 0 && before[i].CPU != e.CPU {
		i--
	}
	switch {
	case i < 0 || before[i].PID != e.PID:
		return false
	case e.Stack != nil && before[i].Stack == nil:
		before[i].Stack = slices.Clone(e.Stack)
	case e.UserStack != nil && before[i].UserStack == nil:
		before[i].UserStack = slices.Clone(e.UserStack)
	default:
		return false
	}
	return true
}

// End shows the rest.
func (s *Stream) End(pages []capture.CPU) {
	s.Round(pages, nil)
	s.print(s.last)
}

// print prints what is held, up to a time.
func (s *Stream) print(until uint64) {
	if s.err != nil || len(s.held) == 0 {
		return
	}
	slices.SortStableFunc(s.held, func(a, b *decode.Event) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.CPU, b.CPU))
	})
	n := 0
	for ; n < len(s.held) && s.held[n].Time <= until; n++ {
		if err := s.out.Event(s.held[n]); err != nil {
			s.fail(err)
			return
		}
	}
	s.held = slices.Delete(s.held, 0, n)
	if err := s.out.Flush(); err != nil {
		s.fail(err)
	}
}

func (s *Stream) fail(err error) {
	s.err, s.held = err, nil
	s.failed(err)
}
