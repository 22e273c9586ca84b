// Package callstack gives the kernel stack of an event as it is to be shown.
package callstack

import (
	"labctl/host/stack"
	"labctl/host/trace/decode"
)

// Of is the kernel stack that was taken with e, innermost first, without what
// the tracing itself put there. It has no frames when none was taken.
func Of(d *decode.Decoder, e *decode.Event) stack.Stack {
	if len(e.Stack) == 0 {
		return stack.Stack{}
	}
	s := stack.Stack{Frames: d.Frames(e.Stack), Origin: e.Name()}
	var function, caller stack.Frame
	if ip, err := e.Uint("ip"); err == nil && e.Format.System == "ftrace" && e.Format.Name == "function" {
		by, _ := e.Uint("parent_ip")
		calls := d.Frames([]uint64{ip, by})
		function, caller = calls[0], calls[1]
	}
	if fn, err := e.Uint("__probe_func"); err == nil && e.Format.Field("__probe_ret_ip") != nil {
		to, _ := e.Uint("__probe_ret_ip")
		calls := d.Frames([]uint64{fn, to})
		s.Returned(calls[0], calls[1])
	} else if function.Name != "" {
		s.TrimTraced(function, caller)
	} else {
		s.TrimMachinery("")
	}
	s.Classify()
	s.DropUser()
	return s
}
