package crash

// reporters are the functions that print reports, by kernel source file. They are on
// top of the stack that a report shows, above the function it is about. One that ends
// in "*" is a prefix.
var reporters = names(
	// lib/dump_stack.c, arch/*/kernel/*stack*.c, arch/arm/kernel/traps.c
	"dump_stack*", "__dump_stack", "show_stack*", "dump_backtrace*", "unwind_backtrace", "show_trace*", "show_regs", "sched_show_task",
	// kernel/panic.c, lib/bug.c and the traps that WARN and BUG are
	"panic", "vpanic", "nmi_panic", "check_panic_on_warn", "__warn", "__warn_printk", "warn_slowpath_*", "report_bug", "__report_bug", "fixup_bug*", "handle_bug", "exc_invalid_op", "asm_exc_invalid_op",
	"do_error_trap", "do_invalid_op", "invalid_op", "df_debug", "do_double_fault", "double_fault", "exc_double_fault", "asm_exc_double_fault", "panic_bad_stack", "handle_bad_stack", "__bad_stack", "bad_mode", "panic_unhandled", "__panic_unhandled", "die", "__die", "__die_body", "oops_end", "bug_handler", "bug_brk_handler", "brk_handler", "call_break_hook", "do_debug_exception",
	// mm/kasan, mm/kmsan, mm/kfence, kernel/kcsan, lib/ubsan.c
	"kasan_*", "__kasan_*", "__asan_*", "__hwasan_*", "print_address_description", "print_report", "check_memory_region*", "object_err", "print_trailer", "describe_address", "end_report*", "check_region_inline",
	"kmsan_*", "__kmsan_*", "__msan_*", "kfence_*", "__kfence_*", "kcsan_*", "__kcsan_*", "__tsan_*", "ubsan_*", "__ubsan_*", "handle_overflow", "__sanitizer_cov_*",
	// kernel/locking/lockdep.c
	"print_circular_bug*", "check_noncircular", "check_prev_add", "check_prevs_add", "check_deadlock", "print_deadlock_bug", "validate_chain", "__lock_acquire", "lock_acquire", "lock_acquired", "print_usage_bug", "valid_state", "mark_lock*", "mark_usage", "mark_held_locks", "__mark_lock",
	"print_irq_inversion_bug", "print_bad_irq_dependency", "check_irq_usage", "check_usage*", "check_lock_unlock", "check_redundant", "check_path", "check_wait_context", "print_lock_invalid_wait_context", "lockdep_hardirqs_on*", "__trace_hardirqs_on*", "trace_hardirqs_on*",
	"print_unlock_imbalance_bug", "__lock_release", "lock_release*", "print_lock_contention_bug", "lock_contended", "debug_check_no_locks_freed", "print_freed_lock_bug", "debug_check_no_locks_held", "print_held_locks_bug",
	"lockdep_rcu_suspicious", "register_lock_class", "assign_lock_key", "lockdep_init_map*", "lockdep_sys_exit", "__lock_set_class", "lock_set_class", "print_lock_nested_lock_not_held", "nested_lock", "__lock_pin_lock", "look_up_lock_class", "save_trace", "add_lock_to_list", "inc_chains", "lockdep_print_*", "print_kernel_ident",
	// kernel/locking/spinlock_debug.c
	"spin_dump", "spin_bug", "rwlock_bug*", "do_raw_spin_*", "do_raw_read_*", "do_raw_write_*", "_raw_spin_*", "__raw_spin_*", "_raw_read_*", "__raw_read_*", "_raw_write_*", "__raw_write_*",
	// kernel/sched/core.c, lib/smp_processor_id.c
	"___might_sleep", "__might_sleep", "__might_resched", "__might_fault", "__cant_sleep", "__cant_migrate", "__schedule_bug", "check_preemption_disabled", "debug_smp_processor_id", "__this_cpu_preempt_check",
	// mm/page_alloc.c, mm/memory.c, mm/slub.c
	"bad_page*", "check_new_page*", "check_new_pages*", "check_free_page*", "free_page_is_bad*", "print_bad_pte", "print_bad_page_map", "slab_err", "slab_bug", "slab_fix", "slab_pad_check*", "check_bytes_and_report", "check_object", "free_debug_processing", "alloc_debug_processing", "free_consistency_checks", "alloc_consistency_checks",
	// lib/nmi_backtrace.c, kernel/rcu/tree_stall.h, kernel/watchdog.c
	"nmi_cpu_backtrace*", "nmi_trigger_cpumask_backtrace", "arch_trigger_cpumask_backtrace", "rcu_dump_cpu_stacks", "trigger_single_cpu_backtrace", "print_cpu_stall*", "print_other_cpu_stall*",
)

// more are the functions that are trimmed of some kinds only: they are ordinary ones,
// which the report is not about.
var more = map[Kind]map[string]bool{
	// The functions that take and release the lock.
	Lockdep: names("mutex_lock*", "__mutex_lock*", "mutex_trylock*", "mutex_unlock", "__mutex_unlock*", "ww_mutex_*", "__ww_mutex_*", "down_read*", "down_write*", "__down_*", "up_read*", "up_write*", "rt_mutex_*", "__rt_mutex_*", "rt_spin_*", "__might_fault", "rwsem_*", "percpu_down_*", "percpu_up_*", "flush_work*", "__flush_work*", "touch_*"),
	// What a task calls to sleep.
	Atomic:   names("__schedule", "schedule", "schedule_timeout*", "schedule_preempt_disabled", "preempt_schedule*", "__cond_resched", "_cond_resched", "schedule_hrtimeout*", "do_nanosleep", "__might_sleep"),
	HungTask: names("__switch_to", "context_switch", "__schedule", "__schedule_loop", "schedule", "schedule_timeout*", "schedule_preempt_disabled", "io_schedule*"),
	OOM:      names("dump_header*"),
	// What allocated the memory.
	Leak: names("kmemleak_*", "create_object*", "__create_object*", "slab_post_alloc_hook", "slab_alloc*", "__slab_alloc*", "kmem_cache_alloc*", "__kmalloc*", "kmalloc*", "kzalloc*", "__do_kmalloc*", "__alloc_object*", "pcpu_alloc*", "__vmalloc*", "kvmalloc*", "__alloc_skb", "kstrdup*", "kmemdup*"),
	// The functions that the compiler's checks replace (mm/kasan/shadow.c).
	KASAN: names("memcpy", "memmove", "memset", "__memcpy", "__memmove", "__memset"),
}

func names(all ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range all {
		m[n] = true
	}
	return m
}

func matches(set map[string]bool, name string) bool {
	if set[name] {
		return true
	}
	for i := range name {
		if i > 3 && set[name[:i]+"*"] {
			return true
		}
	}
	return set[name+"*"]
}

// instrumentation are the functions that the compiler calls from every function, for
// the sanitizers and for kernel/kcov.c. One of them may be where the kernel faults.
var instrumentation = names("__asan_*", "__hwasan_*", "__tsan_*", "__msan_*", "__sanitizer_cov_*", "write_comp_data")

// reporters trims the functions that printed the report, so that the first frame is
// what it is about.
func (s *frames) reporters(kind Kind) {
	s.cut(func(name string) bool {
		return matches(reporters, name) || matches(more[kind], name)
	})
}

// cut trims the frames of the functions on top, but not all of the stack.
func (s *frames) cut(of func(name string) bool) {
	cut := 0
	for i, f := range s.Frames[:len(s.Frames)-1] {
		name := f.Base()
		if f.Note == Unreliable || name == "" && i > 0 {
			continue
		}
		if !of(name) {
			break
		}
		cut = i + 1
	}
	for cut > 0 && cut < len(s.Frames)-1 && s.Frames[cut].Note == Unreliable {
		cut++
	}
	s.Trimmed = append(s.Trimmed, s.Frames[:cut:cut]...)
	s.Frames = s.Frames[cut:]
}
