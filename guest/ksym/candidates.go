package ksym

import (
	"slices"
	"strings"
)

// Candidate is a name to try on a kernel in place of the one that was asked for.
type Candidate struct {
	Name string // may be a glob, as in set_ftrace_filter: "copy_process.*"
	Why  string // why it stands for the other, with the kernel's commit or file; empty for the name asked for
}

// FunctionCandidates lists what name may be called in a kernel, best first, the
// name itself ahead of all. The first that the kernel lets be traced is the one:
// no version is compared, since stable kernels take renames over (close_fd is in
// Debian's 5.10, and came in 5.11).
//
// A name of the kernel's own shape is expected: no glob and no "module:".
func FunctionCandidates(name string) []Candidate {
	list := candidates{{Name: name}}
	base := Strip(name)
	if call, ok := SystemCall(base); ok {
		list.addCall(call)
		if now := replacedCalls[call]; now != "" {
			list.addCall(now)
		}
		return list
	}
	const suffixes = "the compiler's suffix"
	list.add(suffixes, base, base+".*")
	// What took over a function's work comes before the same function by another
	// name, which may be there and not run.
	for _, n := range nearFunctions {
		if n.old == base {
			list.add(n.why, n.now...)
		}
	}
	for _, f := range functions {
		if slices.Contains(f.names, base) {
			list.add(f.why, f.names...)
		}
	}
	return list
}

// EventCandidates is FunctionCandidates for an event, as "kmem/kmalloc".
func EventCandidates(event string) []Candidate {
	list := candidates{{Name: event}}
	for _, f := range eventRenames {
		if slices.Contains(f.names, event) {
			list.add(f.why, f.names...)
		}
	}
	for _, n := range nearEvents {
		if n.old == event {
			list.add(n.why, n.now...)
		}
	}
	return list
}

// StandIns are functions that can be traced on any kernel and do not run while a
// guest is up (kernel/reboot.c). A filter none of whose functions exist gets one:
// an empty filter means every function, and so a guest that stands still.
var StandIns = []string{"kernel_halt", "emergency_restart", "kernel_power_off"}

// Absent says why a kernel has no function of this name, or "" when that is not
// known from the name.
func Absent(function string) string {
	for _, f := range foreign {
		if strings.HasPrefix(function, f.prefix) {
			return f.why
		}
	}
	return ""
}

// Idle says why a function that a kernel has does little there, or "" when that is
// not known from its name; has tells what else the kernel has.
func Idle(function string, has func(name string) bool) string {
	for _, f := range idleFunctions {
		if f.name == function && has(f.beside) {
			return f.why
		}
	}
	return ""
}

// near is a function or event that is gone, or cannot be traced, and what does
// its work where it is not. It does not go the other way.
type near struct {
	old string
	now []string
	why string
}

var nearFunctions = []near{
	{"__close_fd", []string{"file_close_fd"}, "what close(2) calls, a88c955fcfb4"},
	{"file_close_fd", []string{"close_fd", "__close_fd"}, "what close(2) calls, 8760c909f54a"},
	{"ttwu_do_wakeup", []string{"ttwu_do_activate"}, "merged into its caller, 160fb0d83f20"},
	{"__vfs_read", []string{"vfs_read"}, "merged into its caller, 775802c0571f"},
	{"__vfs_write", []string{"vfs_write"}, "merged into its caller, fs/read_write.c"},
	{"search_binary_handler", []string{"bprm_execve"}, "part of its caller, bc2bf338d54b and fs/exec.c"},
	{"exec_binprm", []string{"bprm_execve"}, "part of its caller, fs/exec.c"},
	{"insert_work", []string{"__queue_work"}, "part of its caller, kernel/workqueue.c"},
	{"tick_sched_timer", []string{"tick_nohz_handler"}, "merged into it, kernel/time/tick-sched.c"},
	{"handle_domain_irq", []string{"__handle_domain_irq", "generic_handle_domain_irq"}, "replaced, kernel/irq/irqdesc.c"},
	{"__handle_domain_irq", []string{"generic_handle_domain_irq"}, "replaced, kernel/irq/irqdesc.c"},
	{"do_page_fault", []string{"handle_mm_fault"}, "not traceable, what it calls is; arch/x86/mm/fault.c"},
	// Scripts name it because it does not run: so that the filter is not empty.
	{"secondary_start_kernel", append([]string{"start_secondary"}, StandIns...), "not traceable; this one does not run either"},
}

var idleFunctions = []struct{ name, beside, why string }{
	{"close_fd", "file_close_fd", "close(2) does not call it here, but file_close_fd"},
}

// eventRenames are events with all names they have had, newest first.
var eventRenames = []struct {
	names []string
	why   string
}{
	{[]string{"timer/hrtimer_setup", "timer/hrtimer_init"}, "renamed, include/trace/events/timer.h"},
}

var nearEvents = []near{
	{"kmem/kmalloc_node", []string{"kmem/kmalloc"}, "merged, 11e9734bcb6a"},
	{"kmem/kmem_cache_alloc_node", []string{"kmem/kmem_cache_alloc"}, "merged, 11e9734bcb6a"},
}

const callWhy = "a system call, prefixed by architecture"

// replacedCalls are calls that newer architectures have in another form only
// (include/uapi/asm-generic/unistd.h).
var replacedCalls = map[string]string{
	"sigreturn": "rt_sigreturn",
	"sigaction": "rt_sigaction",
	"open":      "openat",
	"fork":      "clone",
	"vfork":     "clone",
}

// SystemCall takes a function's name for that of a system call.
func SystemCall(function string) (call string, ok bool) {
	for _, s := range stubs {
		if call, ok := strings.CutPrefix(function, s.prefix); ok && s.traced && call != "" {
			return call, true
		}
	}
	return "", false
}

var foreign = []struct{ prefix, why string }{
	{"bcm2835_", "hardware of a Raspberry Pi"},
	{"bcm2708_", "hardware of a Raspberry Pi"},
	{"dwc_otg_", "USB hardware of a Raspberry Pi, with the Raspberry Pi's own kernel"},
	{"brcmf_", "wireless hardware of a Raspberry Pi"},
	{"rpi_", "not part of Linux: a function that a lesson adds to its own kernel"},
	{"raspbian_", "not part of Linux: a function that a lesson adds to its own kernel"},
	{"trace_function_dummy_call", "not part of Linux: a function that a lesson adds to its own kernel"},
	{"ext4_", "the file system ext4 is not in this kernel, or its module is not loaded"},
	{"_raw_spin_", "spin locks are inlined in this kernel, kernel/Kconfig.locks"},
	{"_raw_read_", "read locks are inlined in this kernel, kernel/Kconfig.locks"},
	{"_raw_write_", "write locks are inlined in this kernel, kernel/Kconfig.locks"},
}

type candidates []Candidate

func (c *candidates) addCall(call string) {
	for _, s := range stubs {
		if s.traced {
			c.add(callWhy, s.prefix+call)
		}
	}
}

// add leaves out what is there already.
func (c *candidates) add(why string, names ...string) {
	for _, name := range names {
		if !slices.ContainsFunc(*c, func(had Candidate) bool { return had.Name == name }) {
			*c = append(*c, Candidate{name, why})
		}
	}
}
