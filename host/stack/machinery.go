package stack

import (
	"strings"

	"labctl/guest/ksym"
)

// machinery is what stands above the traced place in a stack that the kernel's
// tracing took, by the beginnings of the symbols' names. Which of them show
// differs by kernel, architecture and compiler; a stack begins with any of them
// in any order, and they stand nowhere else.
var machinery = []string{
	// Trace points: include/trace/trace_events.h, include/linux/tracepoint.h.
	"trace_event_raw_event_", "do_trace_event_raw_event_", "__traceiter_", "__do_trace_", "__trace_trigger_soft_disabled",
	"trace_event_buffer_", "trace_buffer_unlock_commit", "__trace_stack", "ftrace_trace_stack", "trace_event_trigger", "stacktrace_trigger",
	"event_triggers_call", "event_triggers_post_call", "trace_event_reserve",
	// System calls: kernel/trace/trace_syscalls.c.
	"ftrace_syscall_enter", "ftrace_syscall_exit", "perf_syscall_",
	// The function tracer: kernel/trace/trace_functions.c, kernel/trace/ftrace.c, arch/*/kernel/*ftrace*.
	"function_stack_trace_call", "function_stack_no_repeats_trace_call", "function_trace_call", "function_no_repeats_trace_call",
	"ftrace_ops_", "__ftrace_ops_list_func", "arch_ftrace_ops_list_func", "ftrace_call", "ftrace_caller", "ftrace_regs_call", "ftrace_regs_caller",
	"ftrace_common", "ftrace_graph_call", "ftrace_trampoline", "ftrace_stub", "ftrace_epilogue", "ftrace_test_recursion",
	// Probes: kernel/trace/trace_kprobe.c, kernel/kprobes.c, arch/*/kernel/kprobes/.
	"kprobe_trace_func", "__kprobe_trace_func", "kprobe_dispatcher", "kretprobe_dispatcher", "kretprobe_trace_func", "__kretprobe_trace_func", "aggr_pre_handler",
	"kprobe_ftrace_handler", "kprobe_breakpoint_", "kprobe_handler", "kprobe_int3_handler", "optimized_callback", "opt_pre_handler", "optprobe_template_",
	"fprobe_", "__fprobe_", "fentry_", "fexit_", "__fexit_", "rethook_", "arch_rethook_", "ftrace_return_to_handler", "__ftrace_return_to_handler", "return_to_handler",
	// The breakpoint that a probe is.
	"int3", "do_int3", "exc_int3", "asm_exc_int3", "brk_handler", "call_break_hook", "do_debug_exception", "call_el1_break_hook", "do_el1_brk64", "el1_brk64", "el1_dbg", "el1_breakpt",
}

// TrimMachinery takes off what the kernel's tracing put above the traced place.
// at is the symbol where the trace fired, when that is known (a function tracer's
// function, a probe's symbol): nothing inside it is left then, whatever its name.
// A stack of nothing else is left as it is.
func (s *Stack) TrimMachinery(at string) {
	if at = ksym.Strip(at); at != "" && s.Trim(func(f Frame) bool { return f.Base() == at }) {
		return
	}
	// An address without a symbol next to machinery is code that ftrace
	// generated.
	n := 0
	for i, f := range s.Frames {
		if isMachinery(f.Base()) || f.Name == "" && n > 0 {
			n = i + 1
		} else if f.Name != "" {
			break
		}
	}
	if n < len(s.Frames) {
		s.Trimmed = append(s.Trimmed, s.Frames[:n:n]...)
		s.Frames = s.Frames[n:]
	}
}

// TrimTraced takes off what the function tracer put above function, whose call by caller
// it traced, as its event says. Where the kernel left out one frame too many (32-bit arm
// up to 6.1) the stack begins with the caller, and gets the function from the event.
func (s *Stack) TrimTraced(function, caller Frame) {
	for i, f := range s.Frames {
		switch f.Base() {
		case "":
		case function.Base():
			s.TrimMachinery(function.Name)
			return
		case caller.Base():
			function.Note = "from the event"
			s.Trimmed = append(s.Trimmed, s.Frames[:i:i]...)
			s.Frames = append([]Frame{function}, s.Frames[i:]...)
			return
		}
	}
	s.TrimMachinery("")
}

// Returned takes off what a probe on function's return put above caller, to which it
// returned, and puts function there, which is no longer on the stack. Where the kernel left
// out caller, whose frame the probe's own code stands in for (arm64), it comes from the event.
func (s *Stack) Returned(function, caller Frame) {
	s.TrimMachinery("")
	function.Note = "has returned"
	top := []Frame{function}
	if len(s.Frames) == 0 || s.Frames[0].Base() != caller.Base() {
		caller.Note = "from the event"
		top = append(top, caller)
	}
	s.Frames = append(top, s.Frames...)
}

func isMachinery(name string) bool {
	for _, m := range machinery {
		if name == m || strings.HasSuffix(m, "_") && strings.HasPrefix(name, m) {
			return true
		}
	}
	return false
}
