package decode

import (
	"fmt"

	"labctl/host/stack"
	"labctl/host/trace/event"
	"labctl/host/trace/format"
)

// maxTrace bounds the events that Trace holds at once.
const maxTrace = 1 << 20

// Trace reads all events into the form that the text of the trace file would
// have been read into (ftrace.Parse): what came of both is the same but for the
// times, which the text has in microseconds.
//
// Damage is in Trace.Bad. The error is a trace too large to be held.
func (d *Decoder) Trace() (*event.Trace, error) {
	t := &event.Trace{CPUs: d.capture.CPUCount}
	const maxBad = 100
	n := 0
	for e, err := range d.Events() {
		n++
		if err != nil {
			t.BadLines++
			if len(t.Bad) < maxBad {
				t.Bad = append(t.Bad, event.LineError{Line: n, Reason: err.Error()})
			}
			continue
		}
		if e.Format.ID == d.kernelStack.id || e.Format.ID == d.userStack.id {
			continue // its event is gone
		}
		if len(t.Events) == maxTrace {
			return nil, fmt.Errorf("read trace: more than %d events; trace less, or for a shorter time", maxTrace)
		}
		t.Events = append(t.Events, d.Ftrace(e))
		t.Events[len(t.Events)-1].Line = n
	}
	for _, s := range d.stats {
		t.Lost += s.Missing()
		t.Entries += s.Events
	}
	t.Written = t.Entries + t.Lost
	return t, nil
}

// Ftrace is the event as a line of the trace file would be read, its own to keep.
func (d *Decoder) Ftrace(e *Event) event.Event {
	out := event.Event{
		Task: d.Comm(e.PID), PID: e.PID, CPU: e.CPU, Flags: e.Columns(), Time: int64(e.Time), Name: e.Name(),
	}
	p := d.printer(e.Format)
	switch {
	case e.Name() == "function" && p.special != nil:
		out.Fields = []event.Field{{Key: "function", Value: e.symbolOf("ip")}, {Key: "caller", Value: e.symbolOf("parent_ip")}}
	case p.prog != nil:
		p.prog.Fields(e.Data, func(key, value string) {
			out.Fields = append(out.Fields, event.Field{Key: key, Value: value})
		})
		if isProbe(e.Format) {
			out.At = p.prog.Head(e.Data)
		}
	}
	if len(out.Fields) == 0 && !isProbe(e.Format) {
		// Nothing is printed as key=value, as of system calls: the record's own fields.
		for i := range e.Format.Fields {
			f := &e.Format.Fields[i]
			out.Fields = append(out.Fields, event.Field{Key: f.Name, Value: e.plain(f)})
		}
	}
	out.Text = d.Text(e)
	if e.Stack != nil {
		out.Stack = &stack.Stack{Frames: d.Frames(e.Stack), Origin: e.Name()}
	}
	return out
}

func isProbe(f *format.Event) bool {
	return f.Field("__probe_ip") != nil || f.Field("__probe_ret_ip") != nil
}

// Columns are the flags as the trace file shows them: irqs-off, need-resched,
// hardirq/softirq, preempt-depth, migrate-disable (kernel/trace/trace_output.c,
// trace_print_lat_fmt).
func (e *Event) Columns() string {
	f := e.Flags
	irqs, context := byte('.'), byte('.')
	switch {
	case f&IRQsOff != 0 && f&BHOff != 0:
		irqs = 'D'
	case f&IRQsOff != 0:
		irqs = 'd'
	case f&BHOff != 0:
		irqs = 'b'
	}
	switch {
	case f&NMI != 0 && f&HardIRQ != 0:
		context = 'Z'
	case f&NMI != 0:
		context = 'z'
	case f&HardIRQ != 0 && f&SoftIRQ != 0:
		context = 'H'
	case f&HardIRQ != 0:
		context = 'h'
	case f&SoftIRQ != 0:
		context = 's'
	}
	// Bits: lazy, now, preempt.
	resched := ".lnbpLNB"[f>>1&3|f>>3&4]
	const depth = ".123456789abcdef"
	return string([]byte{irqs, resched, context, depth[e.Preempt&15], depth[e.Preempt>>4]})
}
