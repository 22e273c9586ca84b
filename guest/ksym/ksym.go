// Package ksym is what labctl knows of the kernel's functions and trace events by
// their names: what a function is in the making of tasks, which names it has had,
// and which names a system call's functions have. Host and guest both read it, so
// that a script in the guest and a plan on the host rename alike.
//
// Names are tried on a kernel in order; kernel versions are never compared, since
// stable kernels take renames over.
package ksym

import "strings"

// Families of symbols that mean the same on every kernel. The families of the
// system calls that make a task have the names of the calls: "clone", "fork".
const (
	FamilyCreation = "creation" // makes a task for anyone: kernel_clone
	FamilyCopy     = "copy"     // builds the new task: copy_process
	FamilyKthread  = "kthread"  // kernel code that asks for a kernel task
	FamilyKthreadd = "kthreadd" // the loop of the task kthreadd
	FamilyRequest  = "request"  // leaves a request with kthreadd
	FamilyWorker   = "worker"   // makes a thread of a user process that never leaves the kernel
	FamilyIdle     = "idle"     // makes the idle task of a CPU
	FamilyEntry    = "entry"    // first code of the kernel after an entry
)

// calls are the system calls that make a task, which are families, too.
var calls = []string{"clone", "clone3", "fork", "vfork"}

// CreationFamilies are the families of the functions by which tasks are made, from
// the function that all go through outwards.
var CreationFamilies = []string{
	FamilyCreation, FamilyCopy, FamilyKthread, FamilyRequest, FamilyKthreadd,
	FamilyWorker, FamilyIdle, "fork", "vfork", "clone", "clone3",
}

// Symbol is what is known of a kernel symbol by its name.
type Symbol struct {
	Family string
	// For entries. Exception: whatever is outside was left by an exception or
	// a system call. OutermostOnly: the name is an entry in assembly only where
	// nothing is outside it; kernels use it for a C function too. C: it is one.
	Exception     bool
	OutermostOnly bool
	C             bool
	// Ends: the function of a system call in assembly, the entry from user mode where
	// nothing is outside it. Its Family is the call's.
	Ends bool
}

// function is one function of the kernel with all names it has had, newest first.
type function struct {
	names  []string
	family string // empty for one that is here for its names
	why    string // it was renamed: the kernel's commit or file
}

// functions has the functions that were renamed and those that make tasks. Within
// a family the order is that in which to try them.
var functions = []function{
	// Every fork, vfork, clone, clone3 and kernel thread goes through it.
	{[]string{"kernel_clone", "_do_fork", "do_fork"}, FamilyCreation, "renamed, cad6967ac108"},
	{[]string{"copy_process"}, FamilyCopy, ""},
	{[]string{"kernel_thread"}, FamilyKthread, ""},
	{[]string{"user_mode_thread"}, FamilyKthread, ""},
	{[]string{"kthreadd"}, FamilyKthreadd, ""},
	// The first is inlined into the second on some kernels.
	{[]string{"__kthread_create_on_node"}, FamilyRequest, ""},
	{[]string{"kthread_create_on_node"}, FamilyRequest, ""},
	{[]string{"create_io_thread"}, FamilyWorker, ""},
	{[]string{"vhost_task_create"}, FamilyWorker, ""},
	{[]string{"fork_idle"}, FamilyIdle, ""},

	{[]string{"close_fd", "__close_fd"}, "", "renamed, 8760c909f54a"},
	{[]string{"__kmalloc_cache_noprof", "kmalloc_trace_noprof", "kmalloc_trace", "kmem_cache_alloc_trace"}, "", "renamed, 26a40990ba05 and a0a44d9175b3"},
	{[]string{"__kmalloc_noprof", "__kmalloc"}, "", "renamed, mm/slub.c"},
	{[]string{"sched_tick", "scheduler_tick"}, "", "renamed, 86dd6c04ef9f"},
	{[]string{"send_signal_locked", "send_signal"}, "", "renamed, 157cc18122b4"},
	{[]string{"__send_signal_locked", "__send_signal"}, "", "renamed, 157cc18122b4"},
}

// stub is what a kernel puts before a system call's name to name one of its
// functions.
type stub struct {
	prefix string
	// arch is the GOARCH whose kernels have the prefix for the functions in the
	// table of system calls, empty if it is not one architecture's.
	arch string
	// traced stubs are candidates to trace in place of each other. The others are
	// known in stacks only.
	traced bool
}

// stubs are in the order to try: the outermost that can be traced first. amd64 has
// __x64_sys_ since d5a00528b58c, but only __do_sys_ for a call without arguments,
// where the two are one function (arch/x86/include/asm/syscall_wrapper.h,
// SYSCALL_DEFINE0); arm64 has __arm64_sys_ since 4378a7d4be30; arm and kernels
// before them sys_ or SyS_.
var stubs = []stub{
	{prefix: "__x64_sys_", arch: "amd64", traced: true},
	{prefix: "__arm64_sys_", arch: "arm64", traced: true},
	{prefix: "__do_sys_", traced: true},
	{prefix: "sys_", traced: true},
	{prefix: "SyS_", traced: true},
	{prefix: "__se_sys_", traced: true},
	{prefix: "SYSC_"},
	{prefix: "__ia32_sys_"}, {prefix: "__ia32_compat_sys_"}, {prefix: "stub_"}, {prefix: "stub32_"}, // x86
	{prefix: "__arm64_compat_sys_"},
}

// TablePrefixes are the prefixes, in the order to try, of the functions in the
// table of system calls on an architecture (a GOARCH), "__x64_sys_" before "sys_".
func TablePrefixes(arch string) []string {
	var prefixes []string
	for _, s := range stubs {
		if s.arch == arch && s.arch != "" {
			prefixes = append(prefixes, s.prefix)
		}
	}
	return append(prefixes, "sys_")
}

// entries are symbols of assembly at which the kernel is entered. Whatever is
// outside one was left by an exception or a system call.
var entries = []string{
	// x86, arch/x86/entry
	"entry_SYSCALL_64_after_hwframe", "entry_SYSCALL_64_safe_stack", "entry_SYSCALL_64", "entry_SYSCALL_64_fastpath", "system_call_fastpath",
	"entry_SYSCALL_compat_after_hwframe", "entry_SYSCALL_compat", "entry_SYSENTER_compat_after_hwframe", "entry_SYSENTER_compat", "entry_INT80_compat", "asm_int80_emulation",
	"asm_common_interrupt",
	// The same before 5.8, arch/x86/entry/entry_64.S
	"apic_timer_interrupt", "reschedule_interrupt", "call_function_interrupt", "call_function_single_interrupt", "irq_work_interrupt", "ret_from_intr",
	// arm64, arch/arm64/kernel/entry.S
	"el0t_64_sync", "el0t_64_irq", "el0t_64_fiq", "el0t_64_error", "el0t_32_sync", "el0t_32_irq",
	"el1h_64_sync", "el1h_64_irq", "el1h_64_fiq", "el1h_64_error",
	"el0_sync", "el0_irq", "el0_sync_compat", "el0_irq_compat", "el0_svc_naked", "el1_sync", "el1_irq", "work_pending",
	// arm, arch/arm/kernel/entry-common.S and entry-armv.S
	"ret_fast_syscall", "ret_slow_syscall", "ret_from_exception", "slow_work_pending", "__sys_trace", "__sys_trace_return", "__sys_trace_return_nosave", "vector_swi",
	"__dabt_usr", "__pabt_usr", "__irq_usr", "__und_usr", "__dabt_svc", "__pabt_svc", "__irq_svc", "__und_svc",
}

// starts are where a new task, an idle task or the boot begins: nothing is outside
// them, and no exception led there.
var starts = []string{
	"ret_from_fork_asm",
	"secondary_startup_64", "secondary_startup_64_no_verify", "common_startup_64", "__secondary_switched", "__primary_switched", "secondary_startup",
}

var symbols = symbolTable()

func symbolTable() map[string]Symbol {
	t := map[string]Symbol{}
	for _, f := range functions {
		for _, name := range f.names {
			if f.family != "" {
				t[name] = Symbol{Family: f.family}
			}
		}
	}
	for _, call := range calls {
		for _, s := range stubs {
			t[s.prefix+call] = Symbol{Family: call}
		}
	}
	// x86 up to 4.2 has these in assembly, with the registers of user mode in place of
	// a frame pointer (arch/x86/kernel/entry_64.S, FORK_LIKE).
	for _, call := range calls {
		t["stub_"+call] = Symbol{Family: call, Ends: true, Exception: true, OutermostOnly: true}
	}
	for _, name := range entries {
		t[name] = Symbol{Family: FamilyEntry, Exception: true}
	}
	for _, name := range starts {
		t[name] = Symbol{Family: FamilyEntry}
	}
	// el0_svc is assembly up to 5.5 and C, called below el0t_64_sync, after it.
	t["el0_svc"] = Symbol{Family: FamilyEntry, Exception: true, OutermostOnly: true}
	// x86 has ret_from_fork in C below ret_from_fork_asm since 6.5.
	t["ret_from_fork"] = Symbol{Family: FamilyEntry, OutermostOnly: true}
	// The idle tasks of 32-bit arm: their first function in C is jumped to with the
	// MMU just turned on, and what it would return to is a physical address.
	t["start_kernel"] = Symbol{Family: FamilyEntry, OutermostOnly: true, C: true}
	t["secondary_start_kernel"] = Symbol{Family: FamilyEntry, OutermostOnly: true, C: true}
	return t
}

// Functions lists the names of a family's functions in the order to try them, each
// function's newest name first: "kernel_clone", "_do_fork", "do_fork". System calls
// and entries, which have patterns, are not listed.
func Functions(family string) []string {
	var names []string
	for _, f := range functions {
		if f.family == family {
			names = append(names, f.names...)
		}
	}
	return names
}

// Family looks a symbol up by its name, with or without a compiler's suffix.
func Family(name string) (Symbol, bool) {
	base := Strip(name)
	if sym, ok := symbols[base]; ok {
		return sym, true
	}
	// x86 makes an entry of each exception and interrupt (asm/idtentry.h).
	if strings.HasPrefix(base, "asm_exc_") || strings.HasPrefix(base, "asm_sysvec_") {
		return Symbol{Family: FamilyEntry, Exception: true}, true
	}
	return Symbol{}, false
}

// suffixes that compilers add to a function they cut, clone or specialise; a
// number may follow.
var suffixes = []string{".constprop", ".part", ".isra", ".cold", ".llvm", ".lto_priv"}

// Strip takes a compiler's suffixes off a symbol: "copy_process.isra.0.part.0"
// is copy_process.
func Strip(name string) string {
	cut := len(name)
	for _, s := range suffixes {
		for from := 0; ; {
			i := strings.Index(name[from:], s)
			if i < 0 {
				break
			}
			i += from
			end := i + len(s)
			if i > 0 && i < cut && (end == len(name) || name[end] == '.') {
				cut = i
			}
			from = end
		}
	}
	return name[:cut]
}
