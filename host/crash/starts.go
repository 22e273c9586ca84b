package crash

import (
	"strings"
	"sync"

	"labctl/host/text"
)

// start describes the first line of a report.
type start struct {
	text   string // at the start of the message, after the timestamp
	has    string // anywhere in the message, if text is empty
	kind   Kind
	match  *text.Pattern // for the whole message, if text is not specific enough
	cut    bool          // the title is what follows text; otherwise the message
	single bool          // the report is this line only
	source string        // kernel source file that prints it
}

// starts is in order: the first match wins. It includes texts of older versions.
// Lockdep framed its titles in "[ " and " ]" before 4.13; see opens.
var starts = []start{
	{text: "Kernel panic - not syncing: ", kind: Panic, cut: true, source: "kernel/panic.c"},

	{text: "watchdog: BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c"},
	{text: "NMI watchdog: BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c, 4.3 to 4.18"},
	{text: "BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c, before 4.3"},
	{text: "watchdog: Watchdog detected hard LOCKUP ", kind: HardLockup, source: "kernel/watchdog.c"},
	{text: "watchdog: CPU", kind: HardLockup, match: text.Lazy(`^watchdog: CPU\d+: Watchdog detected hard LOCKUP `), source: "kernel/watchdog.c, 6.16"},
	{text: "NMI watchdog: Watchdog detected hard LOCKUP ", kind: HardLockup, source: "kernel/watchdog_hld.c, before 6.5"},
	{text: "rcu: INFO: rcu_", kind: Stall, match: stalls, source: "kernel/rcu/tree_stall.h"},
	{text: "INFO: rcu_", kind: Stall, match: stalls, source: "kernel/rcu/tree.c, before 4.20; kernel/rcu/tasks.h"},
	{text: "BUG: workqueue lockup - ", kind: Stall, source: "kernel/workqueue.c"},
	{text: "INFO: task ", kind: HungTask, match: text.Lazy(`^INFO: task .*:\d+ .*blocked .*for more than \d+ seconds`), source: "kernel/hung_task.c"},
	{text: "INFO: task ", kind: HungTask, match: text.Lazy(`^INFO: task .*:\d+ can't die for more than \d+ seconds`), source: "kernel/hung_task.c of linux-next"},

	// Checks that find a bug and let the task continue.
	{text: "BUG: KASAN: ", kind: KASAN, source: "mm/kasan/report.c"},
	{text: "BUG: KMSAN: ", kind: KMSAN, source: "mm/kmsan/report.c"},
	{text: "BUG: KFENCE: ", kind: KFENCE, source: "mm/kfence/report.c"},
	{text: "BUG: KCSAN: ", kind: KCSAN, source: "kernel/kcsan/report.c"},
	{text: "UBSAN: ", kind: UBSAN, match: text.Lazy(`^UBSAN: [\w -]+ in \S`), source: "lib/ubsan.c"},
	{text: "kmemleak: ", kind: Leak, match: text.Lazy(`^kmemleak: \d+ new suspected memory leaks`), source: "mm/kmemleak.c"},
	{text: "kmemleak: unreferenced object 0x", kind: Leak, source: "mm/kmemleak.c, with kmemleak.verbose"},
	{text: "unreferenced object 0x", kind: Leak, source: "mm/kmemleak.c, its file in debugfs"},
	{text: "BUG: memory leak", kind: Leak, source: "programs that read mm/kmemleak.c's file"},
	{text: "BUG: sleeping function called from ", kind: Atomic, source: "kernel/sched/core.c"},
	{text: "BUG: scheduling while atomic: ", kind: Atomic, source: "kernel/sched/core.c"},
	{text: "WARNING: ", kind: Lockdep, match: locking, source: "kernel/locking/lockdep.c"},
	{text: "INFO: ", kind: Lockdep, match: locking, source: "kernel/locking/lockdep.c, before 4.13"},
	{text: "BUG: ", kind: Lockdep, match: locking, source: "kernel/locking/*.c, kernel/workqueue.c, lib/smp_processor_id.c"},

	{text: "BUG: unable to handle ", kind: Oops, source: "arch/x86/mm/fault.c"},
	{text: "BUG: Unable to handle ", kind: Oops, source: "arch/powerpc/mm/fault.c"},
	{text: "BUG: kernel NULL pointer dereference", kind: Oops, source: "arch/x86/mm/fault.c"},
	{text: "BUG: Kernel NULL pointer dereference", kind: Oops, source: "arch/powerpc/mm/fault.c"},
	{text: "BUG: ", kind: Oops, match: text.Lazy(`^BUG: .*stack guard page was hit at`), source: "arch/x86/kernel/traps.c"},
	{text: "BUG: Bad rss-counter state ", kind: Bug, single: true, source: "kernel/fork.c"},
	{text: "BUG: non-zero pgtables_bytes on freeing mm", kind: Bug, single: true, source: "kernel/fork.c"},
	{text: "BUG: ", kind: Bug, source: "mm/page_alloc.c, fs/dcache.c, kernel/fork.c and more"},
	{text: "BUG ", kind: Bug, match: text.Lazy(`^BUG \S.{0,63} \((?:Not tainted|Tainted: [^)]*)\): [A-Z]`), source: "mm/slub.c"},
	{text: "VFS: Busy inodes after unmount of ", kind: Bug, single: true, source: "fs/super.c"},
	{text: "VFS: Close: file count is ", kind: Bug, single: true, source: "fs/open.c"},
	{text: waiting, kind: Bug, single: true, source: "net/core/dev.c"},

	{text: "kernel BUG at ", kind: Oops, source: "lib/bug.c"},
	{text: "Unable to handle kernel ", kind: Oops, source: "arch/arm64/mm/fault.c, arch/arm/mm/fault.c"},
	{text: "Unhandled fault: ", kind: Oops, source: "arch/arm/mm/fault.c, arch/arm64/mm/fault.c"},
	{text: "Unhandled prefetch abort: ", kind: Oops, source: "arch/arm/mm/fault.c"},
	{text: "Alignment trap: not handling instruction ", kind: Oops, source: "arch/arm/mm/alignment.c"},
	{text: "Bad mode in ", kind: Oops, match: text.Lazy(`^Bad mode in .+ handler detected`), source: "arch/arm64/kernel/traps.c, before 5.14; arch/arm/kernel/traps.c"},
	{text: "Unhandled ", kind: Oops, match: text.Lazy(`^Unhandled (?:32|64)-bit \S+ \S+ exception on CPU\d+, `), source: "arch/arm64/kernel/entry-common.c"},
	{text: "SError Interrupt on CPU", kind: Oops, source: "arch/arm64/kernel/traps.c"},
	{text: "Insufficient stack space to handle exception!", kind: Oops, source: "arch/arm64/kernel/traps.c, arch/arm/kernel/traps.c"},
	{text: "Internal error: ", kind: Oops, source: "arch/arm64/kernel/traps.c, arch/arm/kernel/traps.c"},
	{text: "general protection fault", kind: Oops, source: "arch/x86/kernel/traps.c"},
	{text: "PANIC: double fault", kind: Oops, source: "arch/x86/kernel/doublefault.c, arch/x86/kernel/traps.c"},
	{text: "traps: PANIC: double fault", kind: Oops, source: "arch/x86/kernel/traps.c"},
	{text: "kernel stack overflow (", kind: Oops, source: "arch/x86/kernel/traps.c, before 5.16"},
	// "Oops: ", "divide error: ", "invalid opcode: ", "stack segment: ", "int3: ".
	{has: " [#", kind: Oops, match: text.Lazy(`^[A-Za-z][\w ,./()-]{2,80}: [0-9a-f]{4,16} \[#\d+\]`), source: "arch/x86/kernel/dumpstack.c"},
	{text: "Oops: ", kind: Oops, source: "arch/x86/kernel/dumpstack.c, arch/powerpc/kernel/traps.c"},

	{text: "WARNING: ", kind: Lockdep, match: text.Lazy(`^WARNING: (?:CPU: \d+ PID: \d+ at )?kernel/locking/\w+\.[ch]:\d+ `), source: "kernel/panic.c, of kernel/locking"},
	{text: "WARNING: CPU: ", kind: Warning, source: "kernel/panic.c"},
	{text: "WARNING: ", kind: Warning, match: text.Lazy(`^WARNING: \S+:\d+ at |^WARNING: .*, CPU#\d+: `), source: "kernel/panic.c, 6.18"},
	{text: "WARNING: kernel stack ", kind: Warning, source: "arch/x86/kernel/unwind_frame.c"},

	{has: " invoked oom-killer: gfp_mask=", kind: OOM, match: text.Lazy(`^.{1,64} invoked oom-killer: gfp_mask=`), source: "mm/oom_kill.c"},
	{text: "Out of memory", kind: OOM, match: killed, source: "mm/oom_kill.c"},
	{text: "Memory cgroup out of memory: ", kind: OOM, match: killed, source: "mm/oom_kill.c"},

	{text: "reboot: System halted", kind: Halt, source: "kernel/reboot.c"},
	{text: "reboot: Power off not available", kind: Halt, source: "kernel/reboot.c"},
}

var (
	stalls = text.Lazy(`^(?:rcu: )?INFO: rcu_\w+ (?:self-detected stall|detected (?:expedited )?stalls)`)
	// A task name may contain anything, so the pattern includes what follows it.
	killed = text.Lazy(`^(?:Memory cgroup out of memory|Out of memory(?: \(oom_kill_allocating_task\))?): Kill(?:ed)? process (\d+) \((.{0,64})\),? (?:UID|total-vm|score)\b`)
	// The titles of lockdep, of the debugging of spinlocks and mutexes, and of the
	// checks for code that is preemptible or holds a lock where it must not.
	locking = text.Lazy(`^(?:WARNING|INFO|BUG): (?:` + strings.Join([]string{
		`possible (?:circular locking dependency|recursive locking|irq lock inversion dependency|reason: unannotated irqs-o)`,
		`possible (?:irq|softirq|hardirq)\S* (?:lock )?\S* ?dependency`,
		`\S+-(?:safe|READ-safe) -> \S+-(?:unsafe|READ-unsafe) lock order detected`,
		`inconsistent lock state`,
		`suspicious RCU usage`,
		`bad (?:unlock balance|contention) detected`,
		`held lock freed`,
		`Invalid wait context`,
		`Nested lock was not taken`,
		`lock held when returning to user space`,
		`lock held at task exit time`,
		`exit with locks held`,
		`.{1,80} still has locks held`,
		`.{1,80} still has \d+ locks? held`,
		`trying to register non-static key`,
		`key \S+ not in \.data`,
		`key \S+ has not been registered`,
		`MAX_[A-Z_]+ too low`,
		`workqueue leaked `,
		`(?:spinlock|rwlock|rtmutex) \S`,
		`using \S+ in preemptible `,
	}, "|") + ")")
)

// byFirst lists, for each first byte of a message, the rows of starts that it may
// match, in order. A console has a thousand ordinary lines for each report, and most
// are refused by this.
var byFirst = sync.OnceValue(func() *[256][]*start {
	var t [256][]*start
	for i := range starts {
		if st := &starts[i]; st.text != "" {
			t[st.text[0]] = append(t[st.text[0]], st)
		}
	}
	return &t
})

// anywhere are the rows that match inside a message.
var anywhere = sync.OnceValue(func() (rows []*start) {
	for i := range starts {
		if st := &starts[i]; st.text == "" {
			rows = append(rows, st)
		}
	}
	return rows
})

// titleLen is how much of a line is matched: real ones are shorter.
const titleLen = 400

// opens returns the row of the first line of a report, and the report's title.
func opens(msg string) (*start, string) {
	if msg == "" {
		return nil, ""
	}
	if inner, ok := strings.CutPrefix(msg, "[ "); ok {
		inner = strings.TrimSuffix(strings.TrimRight(inner, " "), " ]")
		if st, title := opens(inner); st != nil && st.kind == Lockdep {
			return st, title
		}
		return nil, ""
	}
	head := msg[:min(len(msg), titleLen)]
	for _, st := range byFirst()[msg[0]] {
		switch {
		case !strings.HasPrefix(msg, st.text), st.match != nil && !st.match.MatchString(head):
			continue
		case st.cut:
			return st, msg[len(st.text):]
		}
		return st, msg
	}
	for _, st := range anywhere() {
		if strings.Contains(head, st.has) && st.match.MatchString(head) {
			return st, msg
		}
	}
	return nil, ""
}
