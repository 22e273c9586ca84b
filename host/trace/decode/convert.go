package decode

import (
	"strconv"

	"labctl/host/arch"
	"labctl/host/stack"
	"labctl/host/trace/event"
	"labctl/host/trace/format"
)

// Event is the event in words, as the trace file would show it, its own to keep.
func (d *Decoder) Event(e *Event) event.Event {
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
			out.Fields = e.nameAddresses(out.Fields)
		}
	}
	if len(out.Fields) == 0 && !isProbe(e.Format) {
		// Nothing is printed as key=value, as of system calls: the record's own fields.
		for i := range e.Format.Fields {
			f := &e.Format.Fields[i]
			out.Fields = append(out.Fields, event.Field{Key: f.Name, Value: e.plain(f)})
		}
	}
	if _, name, ok := e.Syscall(); ok {
		out.Fields = append(out.Fields, event.Field{Key: "syscall", Value: name})
	}
	if name, ok := e.Error(); ok {
		out.Fields = append(out.Fields, event.Field{Key: "error", Value: name})
	}
	out.Text = d.Text(e)
	if e.Stack != nil {
		out.Stack = &stack.Stack{Frames: d.Frames(e.Stack), Origin: e.Name()}
	}
	return out
}

// nameAddresses gives the addresses that labctl's probes fetch their symbols where they
// were fetched as numbers: kernels before 4.20 have no fetch type for symbols.
func (e *Event) nameAddresses(fields []event.Field) []event.Field {
	for i := range fields {
		f := &fields[i]
		addr, err := strconv.ParseUint(f.Value, 0, 64)
		switch {
		case err != nil:
		case arch.IsCaller(f.Key):
			f.Value = e.dec.function(addr, true)
		case f.Key == "threadfn" && e.Format.Field("threadfn_sym") == nil:
			fields = append(fields, event.Field{Key: "threadfn_sym", Value: e.dec.function(addr, true)})
		}
	}
	return fields
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
