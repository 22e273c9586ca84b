package stack

import "strings"

// Families of symbols that mean the same on every kernel. The system calls'
// families have the name of the call: "clone", "clone3", "fork", "vfork".
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

// Symbol is what is known of a kernel symbol by its name.
type Symbol struct {
	Family string
	// For entries. Exception: whatever is outside was left by an exception or
	// a system call. OutermostOnly: the name is an entry in assembly only where
	// nothing is outside it; kernels use it for a C function too.
	Exception     bool
	OutermostOnly bool
}

// CreationFunctions are the kernel functions through which every fork, vfork,
// clone, clone3 and kernel thread goes, newest name first. A kernel has one.
var CreationFunctions = []string{"kernel_clone", "_do_fork", "do_fork"}

// RequestFunctions are where a request for a kernel thread is left with
// kthreadd; the first is inlined into the second on some kernels.
var RequestFunctions = []string{"__kthread_create_on_node", "kthread_create_on_node"}

// creationCalls are the system calls that make a task. A kernel has each under
// one or more of stubPrefixes, depending on its architecture and age.
var (
	creationCalls = []string{"clone", "clone3", "fork", "vfork"}
	stubPrefixes  = []string{
		"__do_sys_", "__se_sys_", "SYSC_", "SyS_", "sys_",
		"__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "stub_", "stub32_",
		"__arm64_sys_", "__arm64_compat_sys_",
	}
)

var symbols = symbolTable()

func symbolTable() map[string]Symbol {
	t := map[string]Symbol{
		"copy_process": {Family: FamilyCopy},

		"kernel_thread":    {Family: FamilyKthread},
		"user_mode_thread": {Family: FamilyKthread},
		"kthreadd":         {Family: FamilyKthreadd},

		"create_io_thread":  {Family: FamilyWorker},
		"vhost_task_create": {Family: FamilyWorker},
		"fork_idle":         {Family: FamilyIdle},
	}
	for _, name := range CreationFunctions {
		t[name] = Symbol{Family: FamilyCreation}
	}
	for _, name := range RequestFunctions {
		t[name] = Symbol{Family: FamilyRequest}
	}
	for _, call := range creationCalls {
		for _, prefix := range stubPrefixes {
			t[prefix+call] = Symbol{Family: call}
		}
	}
	for _, name := range []string{
		// x86, arch/x86/entry
		"entry_SYSCALL_64_after_hwframe", "entry_SYSCALL_64_safe_stack", "entry_SYSCALL_64", "entry_SYSCALL_64_fastpath", "system_call_fastpath",
		"entry_SYSCALL_compat_after_hwframe", "entry_SYSCALL_compat", "entry_SYSENTER_compat_after_hwframe", "entry_SYSENTER_compat", "entry_INT80_compat", "asm_int80_emulation",
		"asm_common_interrupt",
		// arm64, arch/arm64/kernel/entry.S
		"el0t_64_sync", "el0t_64_irq", "el0t_64_fiq", "el0t_64_error", "el0t_32_sync", "el0t_32_irq",
		"el1h_64_sync", "el1h_64_irq", "el1h_64_fiq", "el1h_64_error",
		"el0_sync", "el0_irq", "el0_sync_compat", "el0_irq_compat", "el0_svc_naked", "el1_sync", "el1_irq", "work_pending",
		// arm, arch/arm/kernel/entry-common.S and entry-armv.S
		"ret_fast_syscall", "ret_slow_syscall", "slow_work_pending", "__sys_trace", "__sys_trace_return", "vector_swi",
		"__dabt_usr", "__pabt_usr", "__irq_usr", "__und_usr", "__dabt_svc", "__pabt_svc", "__irq_svc", "__und_svc",
	} {
		t[name] = Symbol{Family: FamilyEntry, Exception: true}
	}
	// el0_svc is assembly up to 5.5 and C, called below el0t_64_sync, after it.
	t["el0_svc"] = Symbol{Family: FamilyEntry, Exception: true, OutermostOnly: true}
	// Where a new task starts: nothing is outside it, no exception led there.
	// x86 has ret_from_fork in C below ret_from_fork_asm since 6.5.
	t["ret_from_fork"] = Symbol{Family: FamilyEntry, OutermostOnly: true}
	t["ret_from_fork_asm"] = Symbol{Family: FamilyEntry}
	// Where an idle task or the boot starts.
	for _, name := range []string{
		"secondary_startup_64", "secondary_startup_64_no_verify", "common_startup_64", "__secondary_switched", "__primary_switched", "secondary_startup",
	} {
		t[name] = Symbol{Family: FamilyEntry}
	}
	return t
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
