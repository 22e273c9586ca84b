package crash

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"labctl/host/stack"
)

var update = flag.Bool("update", false, "rewrite the headers of testdata/*.log")

// split separates a log's header: a line "# want: KIND: TITLE" per report, each
// followed by lines "#   " with what else is extracted from it.
func split(log string) (header, body string) {
	for strings.HasPrefix(log, "# want: ") || strings.HasPrefix(log, "#   ") {
		line, rest, _ := strings.Cut(log, "\n")
		header, log = header+line+"\n", rest
	}
	return header, log
}

// header returns a line per report and, if all is set, what else is extracted from it.
func header(s *Scanner, all bool) string {
	var b strings.Builder
	for _, r := range s.Reports() {
		fmt.Fprintf(&b, "# want: %s: %s\n", r.Kind, r.Title)
		if all {
			b.WriteString(details(r))
		}
	}
	if b.Len() == 0 {
		b.WriteString("# want: nothing\n")
	}
	return b.String()
}

func details(r *Report) string {
	var b strings.Builder
	if r.Count > 1 {
		fmt.Fprintf(&b, "#   %d times, last: %s\n", r.Count, r.Last)
	}
	if r.Cause != "" {
		fmt.Fprintf(&b, "#   cause: %s\n", r.Cause)
	}
	if v := r.Victim; v != nil {
		fmt.Fprintf(&b, "#   victim: %s pid %d\n", v.Comm, v.PID)
	}
	if k := r.Task(); k != nil {
		fmt.Fprintf(&b, "#   task: %q pid %d cpu %d\n", k.Comm, k.PID, k.CPU)
	}
	if st := r.Stack(); len(st.Frames) > 0 {
		b.WriteString("#   " + strings.ReplaceAll(strings.TrimSpace(st.TRACE32()), "\n", "\n#   ") + "\n")
	}
	return b.String()
}

// scan writes log to a new Scanner in pieces of at most max bytes.
func scan(log string, max int) *Scanner {
	s := new(Scanner)
	for len(log) > 0 {
		n := min(len(log), 1+rand.IntN(max))
		s.Write([]byte(log[:n]))
		log = log[n:]
	}
	return s
}

// TestLogs scans the tails of real consoles; testdata/README says how each was
// produced.
func TestLogs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, body := split(string(b))
			s := scan(body, len(body))
			if *update {
				want = header(s, true)
				if err := os.WriteFile(file, []byte(want+body), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, header(s, true)); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
			for _, r := range s.Reports() {
				for _, l := range r.Lines {
					if !strings.Contains(body, strings.TrimRight(l, "\r")) {
						t.Errorf("line %q is not in the log", l)
					}
				}
			}
			for range 30 {
				again := scan(body, 1+rand.IntN(200))
				if diff := cmp.Diff(s.Reports(), again.Reports()); diff != "" {
					t.Fatalf("written in other pieces (-whole +pieces):\n%s", diff)
				}
			}
		})
	}
}

// kinds lists all kinds, the less severe first.
var kinds = []Kind{Warning, OOM, Lockdep, Atomic, UBSAN, KCSAN, KMSAN, KASAN, KFENCE, Leak, Bug, HungTask, Stall, SoftLockup, HardLockup, Oops, Halt, Panic}

func TestSeverity(t *testing.T) {
	for i, k := range kinds {
		if i > 0 && k.Severity() < kinds[i-1].Severity() {
			t.Errorf("a %s is less severe than a %s", k, kinds[i-1])
		}
	}
	for k, want := range map[Kind]Severity{Warning: SeverityWarn, OOM: SeverityWarn, KASAN: SeverityBug, Lockdep: SeverityBug, Stall: SeverityBug, Oops: SeverityOops, Panic: SeverityPanic} {
		if got := k.Severity(); got != want {
			t.Errorf("severity of %s is %d, want %d", k, got, want)
		}
	}
}

// TestDocs: docs/reports.md explains every kind.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reports.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if !bytes.Contains(doc, []byte("| "+string(k)+" |")) {
			t.Errorf("docs/reports.md has no row of %q", k)
		}
	}
}

// TestStarts has the first lines of reports, as the kernel's sources print them, and
// lines that are not.
func TestStarts(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Kind // empty: not a report
	}{
		{"BUG: KASAN: slab-use-after-free in f+0x1/0x2 [m]", KASAN},
		{"BUG: KMSAN: uninit-value in f+0x1/0x2", KMSAN},
		{"BUG: KFENCE: out-of-bounds read in f+0x1/0x2", KFENCE},
		{"BUG: KCSAN: data-race in f / g", KCSAN},
		{"UBSAN: array-index-out-of-bounds in lib/x.c:1:2", UBSAN},
		{"UBSAN: Undefined behaviour in lib/x.c:1:2", UBSAN},
		{"kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", Leak},
		{"kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)", ""},
		{"unreferenced object 0xffff888003a1c000 (size 1024):", Leak},
		{"BUG: sleeping function called from invalid context at kernel/x.c:1", Atomic},
		{"BUG: scheduling while atomic: a/1/0x00000002", Atomic},
		{"WARNING: possible circular locking dependency detected", Lockdep},
		{"[ INFO: possible circular locking dependency detected ]", Lockdep},
		{"WARNING: possible recursive locking detected", Lockdep},
		{"WARNING: possible irq lock inversion dependency detected", Lockdep},
		{"WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected", Lockdep},
		{"WARNING: inconsistent lock state", Lockdep},
		{"[ INFO: inconsistent lock state ]", Lockdep},
		{"WARNING: suspicious RCU usage", Lockdep},
		{"[ INFO: suspicious RCU usage. ]", Lockdep},
		{"WARNING: bad unlock balance detected!", Lockdep},
		{"[ BUG: bad unlock balance detected! ]", Lockdep},
		{"WARNING: held lock freed!", Lockdep},
		{"[ BUG: Invalid wait context ]", Lockdep},
		{"WARNING: Nested lock was not taken", Lockdep},
		{"WARNING: lock held when returning to user space!", Lockdep},
		{"WARNING: insmod/71 still has locks held!", Lockdep},
		{"INFO: trying to register non-static key.", Lockdep},
		{"INFO: lockdep is turned off.", ""},
		{"BUG: MAX_LOCKDEP_CHAINS too low!", Lockdep},
		{"BUG: spinlock bad magic on CPU#0, a/1", Lockdep},
		{"BUG: using smp_processor_id() in preemptible [00000000] code: a/1", Lockdep},
		{"BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]", Lockdep},
		{"WARNING: CPU: 0 PID: 1 at kernel/locking/lockdep.c:1 f+0x1/0x2", Lockdep},
		{"WARNING: CPU: 0 PID: 1 at kernel/locking.c:1 f+0x1/0x2", Warning},
		{"WARNING: kernel/x.c:1 at f+0x1/0x2, CPU#0: a/1", Warning},
		{"WARNING: this driver is not finished", ""},
		{"BUG: Bad page state in process a  pfn:1", Bug},
		{"BUG: Bad rss-counter state mm:ff type:MM_FILEPAGES val:1", Bug},
		{"BUG: Dentry ff{i=1,n=a}  still in use (1) [unmount of tmpfs tmpfs]", Bug},
		{"BUG kmalloc-8 (Not tainted): Object already free", Bug},
		{"BUG kmalloc-8 (Tainted: G    B         ): kasan: bad access detected", ""}, // a line of a report of KASAN before 4.11
		{"VFS: Busy inodes after unmount of sda (ext4)", Bug},
		{"VFS: Close: file count is 0 (f_op=f+0x0/0x1)", Bug},
		{"unregister_netdevice: waiting for lo to become free. Usage count = 2", Bug},
		{"INFO: task a:1 blocked for more than 120 seconds.", HungTask},
		{"INFO: task a:1 <writer> blocked on an rw-semaphore likely owned by task b:2 for more than 120 seconds.", HungTask},
		{"INFO: task a b:1 can't die for more than 143 seconds.", HungTask},
		{"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 21 jiffies s: 1 root: 0x1/.", Stall},
		{"INFO: rcu_tasks detected stalls on tasks:", Stall},
		{"BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!", Stall},
		{"BUG: unable to handle page fault for address: 0000000000000010", Oops},
		{"BUG: kernel NULL pointer dereference, address: 0000000000000010", Oops},
		{"BUG: TASK stack guard page was hit at 01 (stack is 02..03)", Oops},
		{"PANIC: double fault, error_code: 0x0", Oops},
		{"traps: PANIC: double fault, error_code: 0x0", Oops},
		{"divide_error: 0000 [#1] PREEMPT SMP KASAN", Oops},
		{"divide error: 0000 [#1] SMP", Oops},
		{"segment-related general protection fault: beec [#2] PREEMPT SMP KASAN PTI", Oops},
		{"int3: 0000 [#1] SMP", Oops},
		{"stack segment: 0000 [#1] SMP", Oops},
		{"Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP NOPTI", Oops},
		{"Internal error: Oops - undefined instruction: 0 [#1] SMP ARM", Oops},
		{"kernel stack overflow (double-fault): 0000 [#1] PREEMPT SMP KASAN", Oops},
		{"Unhandled fault: page domain fault (0x81b) at 0x00000010", Oops},
		{"Unhandled prefetch abort: page domain fault (0x01b) at 0x00000010", Oops},
		{"Alignment trap: not handling instruction e1922f9f at [<bf0142cc>]", Oops},
		{"Bad mode in Error handler detected on CPU0, code 0xbf000000 -- SError", Oops},
		{"Unhandled 64-bit el1h sync exception on CPU0, ESR 0x0000000002000000 -- Unknown/Uncategorized", Oops},
		{"SError Interrupt on CPU0, code 0x00000000be000000 -- SError", Oops},
		{"Insufficient stack space to handle exception!", Oops},
		{"traps: a[1] general protection fault ip:1 sp:2 error:0 in a[1000+1]", ""}, // of a program
		{"a[1]: segfault at 10 ip 1 sp 2 error 4", ""},
		{"printk: the queue [#1] is full: 0", ""},
		{"item: 3 [#4]", ""},
	} {
		st, _ := opens(tt.line)
		var got Kind
		if st != nil {
			got = st.kind
		}
		if got != tt.want {
			t.Errorf("%q opens a report of the kind %q, want %q", tt.line, got, tt.want)
		}
		s := scan("[    1.000000][    T7] "+tt.line+"\r\n", 100)
		if (len(s.Reports()) > 0) != (tt.want != "") {
			t.Errorf("%q: %d reports", tt.line, len(s.Reports()))
		}
	}
}

func TestScanner(t *testing.T) {
	const oops = "[    1.000000] Internal error: Oops: 0000000096000044 [#1] SMP\n[    1.000001] pc : x+0x1/0x2\n"
	const end = "[    1.000002] ---[ end trace 0000000000000000 ]---\n"
	stuck := func(at, pid int) string {
		return fmt.Sprintf("[ %4d.000000] watchdog: BUG: soft lockup - CPU#0 stuck for %ds! [a:%d]\n[ %4d.000001] stack %d\n", at, at, pid, at, at)
	}
	blocked := func(at int) string {
		return fmt.Sprintf("[ %4d.000000] INFO: task b:2 blocked for more than %d seconds.\n", at, at)
	}
	const stalled = "[    1.000000] rcu: INFO: rcu_sched self-detected stall on CPU\n"
	const asked = "[    1.000000] Sending NMI from CPU 0 to CPUs 1:\n"
	const apart = "# want: stall: rcu: INFO: rcu_sched self-detected stall on CPU\n# want: panic: x\n"
	const joined = "# want: panic: rcu: INFO: rcu_sched self-detected stall on CPU (x)\n"
	line := func(at int, s string) string { return fmt.Sprintf("[ %4d.000000] %s\n", at, s) }
	const panicked = "[    1.000003] Kernel panic - not syncing: Fatal exception\n"
	for _, tt := range []struct {
		name string
		in   string
		want string
	}{
		{"nothing", "[    0.000000] Linux version 6.12\n", "# want: nothing\n"},
		{"a caller's tag", "[    1.000000][   T12] Kernel panic - not syncing: x\n", "# want: panic: x\n"},
		{"no stamp", "Kernel panic - not syncing: x\n", "# want: panic: x\n"},
		{"behind a program's unfinished line", "~> [    1.000000] Kernel panic - not syncing: x\n", "# want: panic: x\n"},
		{"CR LF", "[    1.000000] Kernel panic - not syncing: x\r\n", "# want: panic: x\n"},
		{"in the middle of a message", "[    1.000000] EXT4: no BUG: here, no Kernel panic - not syncing: x\n", "# want: nothing\n"},
		{"no end of line yet", "[    1.000000] Kernel panic - not syncing: x", "# want: nothing\n"},
		{"escapes", "Kernel panic - not syncing: \x1b[2Jx\u202e\n", "# want: panic: \ufffd[2Jx\ufffd\n"},
		{"oops", oops + end, "# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"oops that panics", oops + end + panicked, "# want: panic: Internal error: Oops: 0000000096000044 [#1] SMP (Fatal exception)\n"},
		{"oops without an end that panics", oops + panicked, "# want: panic: Internal error: Oops: 0000000096000044 [#1] SMP (Fatal exception)\n"},
		{"what hangs, then panics", "[    9.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a b:7]\n[    9.000001] Kernel panic - not syncing: softlockup: hung tasks\n",
			"# want: panic: watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a b:7] (softlockup: hung tasks)\n"},
		{"what hung long before a panic", "[    9.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:7]\n[   90.000000] Kernel panic - not syncing: x\n",
			"# want: soft lockup: watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:7]\n# want: panic: x\n"},
		{"a warning, then a panic of its own", "[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n" + end + "[    1.000003] Kernel panic - not syncing: x\n",
			"# want: warning: WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n# want: panic: x\n"},
		{"a warning that panics", "[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n[    1.000003] Kernel panic - not syncing: kernel: panic_on_warn set ...\n",
			"# want: panic: WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2 (kernel: panic_on_warn set ...)\n"},
		{"a warning inside an oops", oops + "[    1.000001] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n" + end,
			"# want: warning: WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"an oops inside a warning", "[    0.900000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n" + oops + end,
			"# want: warning: WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"two victims", "[    1.000000] Out of memory: Killed process 7 (a) b) total-vm:1kB\n[    1.000001] Memory cgroup out of memory: Killed process 8 (c) total-vm:1kB\n",
			"# want: oom: Out of memory: Killed process 7 (a) b) total-vm:1kB\n# want: oom: Memory cgroup out of memory: Killed process 8 (c) total-vm:1kB\n"},
		{"who asked, then who was killed", "[    1.000000] sh invoked oom-killer: gfp_mask=0x1\n[    1.000001] Out of memory: Killed process 7 (a) total-vm:1kB\n", "# want: oom: Out of memory: Killed process 7 (a) total-vm:1kB\n"},
		{"a program's own word of it", "[    1.000000] Out of memory\n", "# want: nothing\n"},
		{"halted", "[    1.000000] reboot: System halted\n[    1.000001] x\n", "# want: halt: reboot: System halted\n"},
		{"no way to power off", "[    1.000000] reboot: Power off not available: System halted instead\n", "# want: halt: reboot: Power off not available: System halted instead\n"},
		{"kernels before 4.20", "[    1.000000] INFO: rcu_sched self-detected stall on CPU\n[    3.000000] NMI watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]\n",
			"# want: stall: INFO: rcu_sched self-detected stall on CPU\n# want: soft lockup: NMI watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]\n"},
		{"two that hang, in turn", stuck(3, 1) + blocked(4) + stuck(9, 1) + blocked(10) + stuck(12, 1) + stuck(20, 8),
			"# want: hung task: INFO: task b:2 blocked for more than 4 seconds.\n# want: soft lockup: watchdog: BUG: soft lockup - CPU#0 stuck for 3s! [a:1]\n# want: soft lockup: watchdog: BUG: soft lockup - CPU#0 stuck for 20s! [a:8]\n"},
		{"what hangs panics at last", stuck(3, 1) + blocked(4) + stuck(9, 1) + "[    9.000001] Kernel panic - not syncing: softlockup: hung tasks\n",
			"# want: hung task: INFO: task b:2 blocked for more than 4 seconds.\n# want: panic: watchdog: BUG: soft lockup - CPU#0 stuck for 9s! [a:1] (softlockup: hung tasks)\n"},
		{"oops in a panic", panicked + oops + end, "# want: panic: Fatal exception\n"},
		{"two panics", panicked + panicked, "# want: panic: Fatal exception\n"},
		{"a panic just in time", stalled + line(12, "Kernel panic - not syncing: x"), joined},
		{"a panic too late", stalled + line(13, "Kernel panic - not syncing: x"), apart},
		{"a panic just in time after the last line", stalled + line(2, "stack") + line(13, "Kernel panic - not syncing: x"), joined},
		{"a line after the end", stalled + line(3, "x") + line(13, "Kernel panic - not syncing: x"), apart},
		{"a CPU that was asked", stalled + asked + line(9, "stack") + line(20, "Kernel panic - not syncing: x"), joined},
		{"a CPU that does not answer", stalled + asked + line(13, "x") + line(20, "Kernel panic - not syncing: x"), apart},
		{"a stamp after lines without", "rcu: INFO: rcu_sched self-detected stall on CPU\n" + line(5, "stack") + line(20, "Kernel panic - not syncing: x"), apart},
		{"a panic without a stamp", stalled + line(3, "x") + "Kernel panic - not syncing: x\n", joined},
		{"a panic with the first stamp", "Oops: a\n---[ end trace 0 ]---\n" + line(50, "Kernel panic - not syncing: x"), "# want: panic: Oops: a (x)\n"},
		{"a report of KASAN that panics", "BUG: KASAN: a\nx\n" + ruler + "\nKernel panic - not syncing: KASAN: panic_on_warn set ...\n", "# want: panic: BUG: KASAN: a (KASAN: panic_on_warn set ...)\n"},
		{"a panic after a report of KASAN", "BUG: KASAN: a\nx\n" + ruler + "\nKernel panic - not syncing: x\n", "# want: KASAN: BUG: KASAN: a\n# want: panic: x\n"},
		{"what KASAN found, then the oops", "BUG: KASAN: a\nx\n" + oops + end, "# want: KASAN: BUG: KASAN: a\n# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"a leak and its object", "BUG: memory leak\nunreferenced object 0x1 (size 8):\n", "# want: kmemleak: BUG: memory leak\n"},
		{"two objects that leaked", "unreferenced object 0x1 (size 8):\nunreferenced object 0x2 (size 8):\n", "# want: kmemleak: unreferenced object 0x1 (size 8):\n# want: kmemleak: unreferenced object 0x2 (size 8):\n"},
		{"warnings of two CPUs at once", "WARNING: CPU: 0 PID: 1 at a.c:1\nWARNING: CPU: 1 PID: 2 at b.c:1\n" + end, "# want: warning: WARNING: CPU: 0 PID: 1 at a.c:1\n# want: warning: WARNING: CPU: 1 PID: 2 at b.c:1\n"},
		{"one line in the middle of a hang", stuck(3, 1) + line(3, "VFS: Busy inodes after unmount of a (b)") + stuck(9, 1),
			"# want: bug: VFS: Busy inodes after unmount of a (b)\n# want: soft lockup: watchdog: BUG: soft lockup - CPU#0 stuck for 3s! [a:1]\n"},
		{"the same again", strings.Repeat("[    1.000000] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n[    1.000000] x\n"+end, 2) + "[    1.000000] WARNING: CPU: 1 PID: 7 at a.c:1 f+0x1/0x2\n" + end + "[    1.000000] WARNING: CPU: 1 PID: 7 at a.c:2 f+0x1/0x2\n" + end,
			"# want: warning: WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n# want: warning: WARNING: CPU: 1 PID: 7 at a.c:2 f+0x1/0x2\n"},
		{"two tasks that die", oops + end + oops + end, "# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"a device that stays in use", line(1, waiting+"lo to become free. Usage count = 2") + line(11, waiting+"lo to become free. Usage count = 1") + line(12, waiting+"eth0 to become free. Usage count = 1"),
			"# want: bug: " + waiting + "lo to become free. Usage count = 2\n# want: bug: " + waiting + "eth0 to become free. Usage count = 1\n"},
		{"a victim during an oops", oops + "[    1.000001] Out of memory: Killed process 7 (a) total-vm:1kB\n" + end, "# want: oom: Out of memory: Killed process 7 (a) total-vm:1kB\n# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n"},
		{"behind a message without an end", "[    1.000000] vmalloc: failed[    1.000001] BUG: unable to handle page fault\n", "# want: oops: BUG: unable to handle page fault\n"},
		{"before a message without an end", "[    1.000000] Oops: 0 [    1.000001] x\n", "# want: oops: Oops: 0 [    1.000001] x\n"},
		{"as many lines between as there may be", oops + end + strings.Repeat("x\n", near-1) + panicked,
			"# want: panic: Internal error: Oops: 0000000096000044 [#1] SMP (Fatal exception)\n"},
		{"one more", oops + end + strings.Repeat("x\n", near) + panicked,
			"# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n# want: panic: Fatal exception\n"},
		{"oops, and long after it a panic", oops + end + strings.Repeat("work goes on\n", 100) + panicked,
			"# want: oops: Internal error: Oops: 0000000096000044 [#1] SMP\n# want: panic: Fatal exception\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := scan(tt.in, 7)
			if diff := cmp.Diff(tt.want, header(s, false)); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
			if got, want := s.Panic() != nil, strings.Contains(tt.want, "panic: "); got != want {
				t.Errorf("Panic() != nil is %t, want %t", got, want)
			}
			if s.Ended() {
				t.Error("Ended() = true before the panic's last line")
			}
		})
	}
}

// TestLines: within a report whose lines have timestamps, a line without one is from a
// program; after a panic all lines are the kernel's.
func TestLines(t *testing.T) {
	for in, want := range map[string]string{
		"[    1.000000] BUG: a\nhello\n[    1.000000] b\n": "[    1.000000] BUG: a\n[    1.000000] b",
		"BUG: a\nb\n[    1.000000] c\n":                    "BUG: a\nb\n[    1.000000] c",
		"[    1.000000][   T1] WARNING: CPU: 0 PID: 1 at a.c:1\n[    1.000000][   T2] Oops: a\n[    1.000000][   T1] b\n[    1.000000][   C0] c\n[    1.000000][   T2] d\n": "[    1.000000][   T2] Oops: a\n[    1.000000][   C0] c\n[    1.000000][   T2] d",
		"[    1.000000] Kernel panic - not syncing: a\nb\n[    9.000000] c\n":                                                                                               "[    1.000000] Kernel panic - not syncing: a\nb\n[    9.000000] c",
	} {
		if r := scan(in, 7).current(); r == nil || strings.Join(r.Lines, "\n") != want {
			t.Errorf("%q: report %+v, want the lines %q", in, r, want)
		}
	}
}

// TestInterleaved: where lines have their callers' tags, a report that another CPU's
// comes in the middle of is whole.
func TestInterleaved(t *testing.T) {
	s := scan("[    1.000000][   T1] WARNING: CPU: 0 PID: 1 at a.c:1\n[    1.000000][   T2] BUG: KASAN: a\n[    1.000000][   T1] Call Trace:\n[    1.000000][   T2] Call Trace:\n"+
		"[    1.000000][   T1]  f+0x1/0x2\n[    1.000000][   T2]  g+0x1/0x2\n[    1.000000][   T1] "+"---[ end trace 0 ]---"+"\n[    1.000000][   T2]  h+0x1/0x2\n", 50)
	var got []string
	for _, r := range s.Reports() {
		for _, f := range r.Stack().Frames {
			got = append(got, string(r.Kind)+" "+f.Name)
		}
	}
	if want := []string{"warning f", "KASAN g", "KASAN h"}; !slices.Equal(got, want) {
		t.Errorf("frames %q, want %q", got, want)
	}
}

// armForms are the ways in which 32-bit arm prints a stack: with frame pointers, without
// them, and since 6.1.
var armForms = [3]string{
	"BUG: a\nBacktrace: \n[<c010da60>] (dump_backtrace) from [<c010dd00>] (show_stack+0x20/0x24)\n r7:00000000 r6:c1106a98 r5:60000013 r4:c1106a98\n[<c010dce0>] (show_stack) from [<bf014004>] (f+0x10/0x20 [m])\n r10:c2 r9:00000080\n[<bf014000>] (f [m]) from [<bf01b254>] (g+0x254/0xe80 [m])\n" +
		"Exception stack(0xc2ef5fa8 to 0xc2ef5ff0)\n5fa0:                   00000000 00000000 01d6e000 00026a6c 01d64104 00000000\n[<bf01b000>] (g [m]) from [<c0100060>] (ret_fast_syscall+0x0/0x54)\n",
	"BUG: a\n[<c010da60>] (unwind_backtrace) from [<c010dd00>] (show_stack+0x20/0x24)\n[<c010dce0>] (show_stack) from [<bf014004>] (f+0x10/0x20 [m])\n[<bf014000>] (f [m]) from [<bf01b254>] (g+0x254/0xe80 [m])\n[<bf01b000>] (g [m]) from [<c0100060>] (ret_fast_syscall+0x0/0x54)\n",
	"BUG: a\nCall trace: \n unwind_backtrace from show_stack+0x18/0x1c\n show_stack from f+0x10/0x20 [m]\n f [m] from g+0x254/0xe80 [m]\n g [m] from ret_fast_syscall+0x0/0x1c\nException stack(0xe0c09fa8 to 0xe0c09ff0)\n9fa0:                   00000000 00000000 04600000 00031724 044de0c0 00000000\nend\n",
}

func TestArm(t *testing.T) {
	for i, form := range armForms {
		st := scan(form, 50).current().Stack()
		var names []string
		for _, f := range st.Frames {
			names = append(names, f.String())
		}
		last := "ret_fast_syscall+0x0/0x54"
		if i == 2 {
			last = "ret_fast_syscall+0x0/0x1c"
		}
		if got, want := strings.Join(names, " "), "f+0x10/0x20 [m] g+0x254/0xe80 [m] "+last; got != want || len(st.Trimmed) != 2 {
			t.Errorf("form %d: frames %q and %d trimmed, want %q and 2", i, got, len(st.Trimmed), want)
		}
	}
}

// TestFaults: of the logs that faults.c produced, the first report's kind and first
// frame are those of the fault.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		logs  string // a pattern
		kind  Kind
		first string // a function, or what its name begins with
	}{
		{"arm-*-oops", Oops, "culprit_oops"},
		{"arm-*-bug", Oops, "culprit_bug"},
		{"arm-*-unaligned", Oops, "culprit_unaligned"},
		{"arm-5.10-warn", Warning, "culprit_warn"},
		{"arm-6*-warn", Warning, "faults_init"}, // culprit_warn's call of the last function is a jump
		{"arm-*-soft", SoftLockup, "culprit_spin"},
		{"arm-*-stall", Stall, "culprit_spin"},
		{"arm-5.10-hung", HungTask, "wait_for_completion"},
		{"arm-6.12-hung", HungTask, "__wait_for_common"},
		{"arm-*-jump", Oops, ""},
		{"*-list", Oops, "__list_del_entry_valid"},
		{"*-deep", Panic, ""},
		{"amd64-*-sampled", KFENCE, "culprit_uaf"},
		{"*-bounds", UBSAN, "culprit_bounds"},
		{"arm64-5.10-stall", Stall, "__switch_to"},
		{"*-6.12-page", Bug, "free_unref_page"},
		{"amd64-?.*-sleep", Atomic, "msleep"},
		{"amd64-debug-uaf", KASAN, "culprit_uaf"},
		{"amd64-debug-twice", KASAN, "faults_init"},
		{"amd64-debug-shift", UBSAN, "culprit_shift"},
		{"amd64-debug-order", Lockdep, "culprit_order"},
		{"amd64-debug-irq", Lockdep, "culprit_irq"},
		{"amd64-debug-unlock", Lockdep, "faults_init"},
		{"amd64-debug-freed", Lockdep, "culprit_freed"},
		{"amd64-debug-rcu", Lockdep, "culprit_rcu"},
		{"amd64-debug-key", Lockdep, "culprit_key"},
		{"amd64-debug-cpu", Lockdep, "culprit_cpu"},
		{"amd64-debug-sleep", Atomic, "msleep"},
		{"amd64-debug-alloc", Atomic, "__kmalloc_cache_noprof"},
		{"amd64-debug-page", Bug, "free_unref_page"},
		{"amd64-debug-stall", Stall, "culprit_spin"},
		{"amd64-debug-leak", Leak, "culprit_leak"},
	} {
		files, err := filepath.Glob("testdata/" + tt.logs + ".log")
		if err != nil || len(files) == 0 {
			t.Errorf("no logs %s: %v", tt.logs, err)
		}
		for _, file := range files {
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, body := split(string(log))
			all := scan(body, 4096).Reports()
			if len(all) == 0 {
				t.Errorf("%s: no report", file)
				continue
			}
			st := all[0].Stack()
			if len(st.Frames) < 2 || all[0].Kind != tt.kind || !strings.HasPrefix(st.Frames[0].Name, tt.first) {
				t.Errorf("%s: a %s at %+.1v, want a %s in %s", file, all[0].Kind, st.Frames[:min(2, len(st.Frames))], tt.kind, tt.first)
			}
			if k := all[0].Task(); k == nil || k.PID == 0 {
				t.Errorf("%s: task %+v", file, k)
			}
		}
	}
}

func TestStack(t *testing.T) {
	const arm64 = "pc : f+0x10/0x80\nlr : %s\nCall trace:\n%s"
	const hung = "Call trace:\n watchdog_timer_fn+0x1/0x2\n el1_irq+0x1/0x2\n spin+0x1/0x2\n kthread+0x1/0x2\n"
	const spin = "watchdog_timer_fn el1_irq | spin kthread"
	for _, tt := range []struct {
		name, opens, lines string
		want               string // functions of Trimmed | of Frames
	}{
		{"from the program counter on", "BUG: a", fmt.Sprintf(arm64, "g+0x4/0x8", " h+0x10/0x80\n f+0x50/0x80\n f+0x10/0x80\n g+0x4/0x8\n"), "h f | f g"},
		{"a program counter that is not in it", "BUG: a", fmt.Sprintf(arm64, "g+0x4/0x8", " k+0x1/0x80\n"), " | f g k"},
		{"a caller without a name", "BUG: a", fmt.Sprintf(arm64, "0xffff800010123456", " k+0x1/0x80\n"), " | f k"},
		{"a caller that is itself", "BUG: a", fmt.Sprintf(arm64, "f+0x4/0x80", " k+0x1/0x80\n"), " | f k"},
		{"soft lockup", "watchdog: BUG: soft lockup - CPU#0 stuck for 3s! [a:1]", hung, spin},
		{"hard lockup", "watchdog: Watchdog detected hard LOCKUP on cpu 0", hung, spin},
		{"stall", "rcu: INFO: rcu_sched self-detected stall on CPU", hung, spin},
		{"an oops in an interrupt", "BUG: a", hung, " | watchdog_timer_fn el1_irq spin kthread"},
		{"an exception that is last", "rcu: INFO: rcu_sched self-detected stall on CPU", "Call trace:\n spin+0x1/0x2\n el1_irq+0x1/0x2\n", " | spin el1_irq"},
		{"before 4.10", "BUG: a", "Call Trace:\n <IRQ>  [<ffffffff849381e4>] dump_stack+0xe1/0x157\n [<ffffffff81391101>] ? h+0x41/0x80\n [<ffffffff849384ac>] f+0x63/0xa5\n", "dump_stack h | f"},
		{"a stall before 4.10", "INFO: rcu_sched self-detected stall on CPU", "Call Trace:\n <IRQ>  [<ffffffff849381e4>] dump_stack+0xe1/0x157\n [<ffffffff81391101>] apic_timer_interrupt+0x41/0x80\n <EOI>  [<ffffffff81391101>] ? h+0x41/0x80\n [<ffffffff849384ac>] f+0x63/0xa5\n [<ffffffff849384ac>] g+0x63/0xa5\n", "dump_stack apic_timer_interrupt h | f g"},
		{"a program counter before 4.10", "BUG: a", "RIP: 0010:[<ffffffff82d4e304>]  [<ffffffff82d4e304>] f+0x24/0x30\nCall Trace:\n [<ffffffff849384ac>] g+0x63/0xa5\n", " | f g"},
		{"arm: a link register that is left over", "BUG: a", "PC is at f+0x10/0x80\nLR is at x+0x1/0x2\npc : [<bf014004>]    lr : [<c01>]    psr: 60000013\n[<bf014000>] (f) from [<bf01b254>] (g+0x4/0x8)\n", " | f g"},
		{"arm: a jump to nowhere", "BUG: a", "PC is at 0x10\nLR is at f+0x4/0x80\n[<bf014000>] (g) from [<bf01b254>] (h+0x4/0x8)\n", " |  f g h"},
		{"a warning in an interrupt", "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2", "RIP: 0010:f+0x1/0x2\nCall Trace:\n <IRQ>\n g+0x1/0x2\n asm_sysvec_apic_timer_interrupt+0x1/0x2\n </IRQ>\n <TASK>\nRIP: 0010:idle+0x1/0x2\nRSP: 0018:1\n cpu_startup_entry+0x1/0x2\n", " | f g asm_sysvec_apic_timer_interrupt idle cpu_startup_entry"},
		{"KASAN", "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2", "Call Trace:\n dump_stack_lvl+0x1/0x2\n print_report+0x1/0x2\n ? f+0x1/0x2\n kasan_report+0x1/0x2\n f+0x1/0x2\n g+0x1/0x2\n\nAllocated by task 1:\n k+0x1/0x2\n", "dump_stack_lvl print_report f kasan_report | f g"},
		{"KASAN, of a function that is inlined", "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2", "Call Trace:\n kasan_report+0x1/0x2\n g+0x1/0x2\n", "kasan_report | f g"},
		{"KASAN without a stack", "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2", "", " | f"},
		{"KCSAN", "BUG: KCSAN: data-race in f / g", "\nwrite to 0x1 of 4 bytes by task 1 on cpu 0:\n __tsan_write4+0x1/0x2\n f+0x1/0x2\n h+0x1/0x2\n\nread to 0x1 of 4 bytes by interrupt on cpu 1:\n g+0x1/0x2\n", "__tsan_write4 | f h"},
		{"KFENCE", "BUG: KFENCE: invalid free in f+0x1/0x2", "\nInvalid free of 0x1 (in kfence-#33):\n f+0x1/0x2\n g+0x1/0x2\n\nkfence-#33: 0x1-0x2, size=32, cache=kmalloc-32\n\nallocated by task 1 on cpu 0 at 1.000000s:\n k+0x1/0x2\n", " | f g"},
		{"KMSAN", "BUG: KMSAN: uninit-value in f+0x1/0x2", " f+0x1/0x2\n g+0x1/0x2\n\nUninit was created at:\n k+0x1/0x2\n", " | f g"},
		{"a leak", "unreferenced object 0x1 (size 8):", "  comm \"a\", pid 7, jiffies 4294767514 (age 15.374s)\n  hex dump (first 8 bytes):\n    24 81 04 00 00 00 00 00  $.......\n  backtrace (crc 0):\n    [<0000000017059910>] __kmalloc+0x1/0x2\n    f+0x1/0x2\n", "__kmalloc | f"},
		{"what is asleep", "INFO: task a:1 blocked for more than 120 seconds.", "Call Trace:\n __schedule+0x1/0x2\n schedule+0x1/0x2\n f+0x1/0x2\n", "__schedule schedule | f"},
		{"a lock that is taken", "WARNING: possible recursive locking detected", "a/1 is trying to acquire lock:\nff (l){+.+.}-{3:3}, at: f+0x1/0x2\n\nCall Trace:\n dump_stack+0x1/0x2\n mutex_x+0x1/0x2\n f+0x1/0x2\n g+0x1/0x2\n", "dump_stack mutex_x | f g"},
		{"a lock that is still held", "WARNING: a/1 still has locks held!", "1 lock held by a/1:\n #0: ff (l){+.+.}-{3:3}, at: f+0x1/0x2\n\nCall Trace:\n dump_stack+0x1/0x2\n g+0x1/0x2\n", "dump_stack | f g"},
		{"locks that RCU lists", "WARNING: suspicious RCU usage", "1 lock held by a/1:\n #0: ff (l){+.+.}-{3:3}, at: h+0x1/0x2\n\nCall Trace:\n lockdep_rcu_suspicious+0x1/0x2\n f+0x1/0x2\n h+0x1/0x2\n", "lockdep_rcu_suspicious | f h"},
		{"lines of others in between", "BUG: a", "Call Trace:\nnetlink: x\n f+0x1/0x2\nnetlink: y\nnetlink: z\n g+0x1/0x2\n\n h+0x1/0x2\n", " | f g"},
		{"more lines of others", "BUG: a", "Call Trace:\n f+0x1/0x2\n" + strings.Repeat("x\n", between+1) + " g+0x1/0x2\n", " | f"},
		{"the stack of RCU's thread", "rcu: INFO: rcu_sched self-detected stall on CPU", "rcu: \t1-...!: (21 ticks this GP) idle=1\nrcu: rcu_sched kthread starved for 21 jiffies!\nrcu: RCU grace-period kthread stack dump:\ntask:rcu_sched state:R stack:0 pid:10 ppid:2 flags:0x1\nCall Trace:\n __schedule+0x1/0x2\n rcu_gp_kthread+0x1/0x2\nNMI backtrace for cpu 1\nCPU: 1 PID: 7 Comm: a Not tainted 6.1\nCall Trace:\n dump_stack+0x1/0x2\n asm_sysvec_apic_timer_interrupt+0x1/0x2\nRIP: 0010:f+0x1/0x2\n g+0x1/0x2\n", "dump_stack asm_sysvec_apic_timer_interrupt | f g"},
		{"where RCU's thread ran", "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", "rcu: \t1-...!: (0 ticks this GP) idle=1\n" + lastRan + "\nNMI backtrace for cpu 0\nRIP: 0010:h+0x1/0x2\nCall Trace:\n k+0x1/0x2\nSending NMI from CPU 0 to CPUs 1:\nNMI backtrace for cpu 1\nRIP: 0010:f+0x1/0x2\nCall Trace:\n g+0x1/0x2\n", " | f g"},
		{"what scripts/decode_stacktrace.sh adds", "BUG: a", "Call Trace:\n f lib/f.c:3 [inline]\n g+0x1/0x2 lib/f.c:9\n", " | f g"},
		{"a heading without frames", "BUG: a", "Call trace:\nend\nCall trace:\n k+0x1/0x80\n", " | k"},
	} {
		s := scan(tt.opens+"\n"+tt.lines, 7)
		names := func(fs []stack.Frame) string {
			var all []string
			for _, f := range fs {
				all = append(all, f.Name)
			}
			return strings.Join(all, " ")
		}
		st := s.current().Stack()
		if got := names(st.Trimmed) + " | " + names(st.Frames); got != tt.want {
			t.Errorf("%s: stack %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestRepeated: repeated reports of a hang are one, with the lines of the first.
func TestRepeated(t *testing.T) {
	s := new(Scanner)
	for i := 1; i <= 1000; i++ {
		fmt.Fprintf(s, "[ %4d.000000] rcu: INFO: rcu_sched self-detected stall on CPU\n[ %4d.000001] stack %d\n", i, i, i)
		fmt.Fprintf(s, "[ %4d.500000] watchdog: BUG: soft lockup - CPU#0 stuck for %ds! [a:1]\n", i, i)
	}
	bounded(t, s)
	all := s.Reports()
	if len(all) != 2 || all[0].Count != 1000 || all[1].Count != 1000 || all[1].Last != "watchdog: BUG: soft lockup - CPU#0 stuck for 1000s! [a:1]" {
		t.Fatalf("%d reports, %+v; want two, of 1000 times each", len(all), all)
	}
	if got, want := strings.Join(all[0].Lines, "\n"), "[    1.000000] rcu: INFO: rcu_sched self-detected stall on CPU\n[    1.000001] stack 1"; got != want {
		t.Errorf("lines %q, want those of the first time, %q", got, want)
	}
	fmt.Fprintf(s, "[ 1001.000000] Kernel panic - not syncing: softlockup: hung tasks\n")
	if r := s.Panic(); r == nil || !strings.HasPrefix(r.Lines[0], "[ 1000.500000] watchdog") || r.Title != "watchdog: BUG: soft lockup - CPU#0 stuck for 1000s! [a:1] (softlockup: hung tasks)" {
		t.Errorf("Panic() = %+v, want it of the last time", r)
	}
}

// TestRoom: at the limit of reports, the newest victim and more severe reports are
// still kept.
func TestRoom(t *testing.T) {
	s := new(Scanner)
	for i := range maxReports + 10 {
		fmt.Fprintf(s, "[ %4d.000000] Out of memory: Killed process %d (x) total-vm:1kB\n", i, i+1)
	}
	bounded(t, s)
	if v := s.current().Victim; len(s.Reports()) != maxReports || v == nil || v.PID != maxReports+10 {
		t.Errorf("%d reports, the last of victim %+v; want the newest of %d", len(s.Reports()), v, maxReports+10)
	}
	fmt.Fprintf(s, "[ 9000.000000] Oops: x\n")
	fmt.Fprintf(s, "[ 9100.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n")
	if r := s.current(); r.Kind != Oops {
		t.Errorf("the last of a full scanner is a %s, want the oops", r.Kind)
	}
	bounded(t, s)
}

func TestEnded(t *testing.T) {
	for _, last := range []string{"---[ end Kernel panic - not syncing: x ]---\n", "[    2.000000] Reboot failed -- System halted\r\n"} {
		// Longer than the limit.
		s := scan(last+"Kernel panic - not syncing: x\n"+strings.Repeat("frame\n", 2*maxLines), 4096)
		if s.Ended() {
			t.Errorf("%q before the panic ends it", last)
		}
		if s.Write([]byte(last)); !s.Ended() {
			t.Errorf("Ended() = false after %q", last)
		}
	}
}

// bounded checks a Scanner against its limits.
func bounded(t *testing.T, s *Scanner) {
	t.Helper()
	if n := len(s.Reports()); n > maxReports {
		t.Errorf("%d reports, want at most %d", n, maxReports)
	}
	for i, r := range s.Reports() {
		if n := len(r.Lines); n == 0 || n > maxLines {
			t.Errorf("report %d has %d lines, want 1 to %d", i, n, maxLines)
		}
		for _, l := range append(r.Lines, r.Title) {
			if len(l) > maxLine || !utf8.ValidString(l) || strings.ContainsAny(l, "\x1b\n\r\x00") {
				t.Errorf("report %d: bad line of %d bytes: %.80q", i, len(l), l)
			}
		}
		if r.Count < 1 || r.Count > 1 && !r.Kind.repeats() || (r.Count > 1) != (r.Last != "") {
			t.Errorf("report %d: a %s, %d times, %q and last %q", i, r.Kind, r.Count, r.Title, r.Last)
		}
		if r.Kind == Panic && i != len(s.Reports())-1 {
			t.Errorf("report %d of %d is a panic: want it last", i, len(s.Reports()))
		}
	}
}

func TestBounds(t *testing.T) {
	one := "Oops: " + strings.Repeat("\xff", 3*maxLine) + "\n" + strings.Repeat(strings.Repeat("한", maxLine/2)+"\n", maxLines+10) + "---[ end trace 0 ]---\n"
	s := new(Scanner)
	for range maxReports + 4 {
		s.Write([]byte(one))
	}
	for range 10 {
		if s.Write(bytes.Repeat([]byte("x"), maxLine-1)); len(s.line) > maxLine {
			t.Errorf("%d bytes of one line are kept, want at most %d", len(s.line), maxLine)
		}
	}
	bounded(t, s)
	if got := len(s.Reports()); got != maxReports {
		t.Errorf("%d reports, want %d", got, maxReports)
	}
	s.Write([]byte("\n" + strings.Repeat("x\n", near+1) + "Kernel panic - not syncing: at last\n"))
	bounded(t, s)
	if r := s.Panic(); r == nil || r.Title != "at last" {
		t.Errorf("Panic() = %+v after %d oopses, want it all the same", r, maxReports)
	}
}

func FuzzScanner(f *testing.F) {
	files, err := filepath.Glob("testdata/*.log")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(40))
	}
	f.Add([]byte("BUG: x\n---[ end trace\nOops: \xff\r\nx[    0.000000] Kernel panic - not syncing: \xc3"), uint8(3))
	for _, st := range starts {
		f.Add([]byte("[    1.000000] "+st.text+st.has+"\n"), uint8(9))
	}
	for _, lines := range []string{armForms[0], armForms[1], armForms[2], "BUG: KCSAN: data-race in a+0x1/0x2 / b\n\nread to 0xff of 4 bytes by task 1 on cpu 0:\n a+0x1/0x2\n b+0x1/0x2\n" + ruler + "\n",
		"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\nrcu: \t1-...!: (0 ticks this GP)\n" + lastRan + "\nNMI backtrace for cpu 0\nCall Trace:\n <IRQ>  [<ffffffff81b2e7d9>] ? a+0x1/0x2\nNMI backtrace for cpu 1\nCall Trace:\n b+0x1/0x2 x.c:3 [inline]\n",
		"WARNING: possible recursive locking detected\na/1 is trying to acquire lock:\nff (a){+.+.}, at: [<bf014004>] f+0x1/0x2 [m]\nCall Trace:\n g+0x1/0x2\n"} {
		f.Add([]byte(lines), uint8(20))
	}
	f.Fuzz(func(t *testing.T, log []byte, size uint8) {
		whole := new(Scanner)
		whole.Write(log)
		bounded(t, whole)
		pieces := scan(string(log), 1+int(size))
		if diff := cmp.Diff(whole.Reports(), pieces.Reports()); diff != "" {
			t.Errorf("written in other pieces (-whole +pieces):\n%s", diff)
		}
		for _, b := range bytes.Split(log, []byte("\n")) {
			if plain(b) && !mayOpen(b) {
				if st, _ := opens(parse(string(b)).msg); st != nil {
					t.Errorf("line %q opens a report of the kind %s, but is not read", b, st.kind)
				}
			}
		}
		for _, r := range whole.Reports() {
			// arm prints two functions a line.
			st := r.Stack()
			if len(st.Frames)+len(st.Trimmed) > 2*maxLines+3 {
				t.Errorf("%d frames out of %d lines", len(st.Frames)+len(st.Trimmed), len(r.Lines))
			}
			for _, f := range append(st.Frames, st.Trimmed...) {
				if f.Note == interruptedHere || f.Name != stack.Sanitise(f.Name) {
					t.Errorf("frame %+v", f)
				}
			}
			if !slices.Contains(kinds, r.Kind) {
				t.Errorf("kind %q", r.Kind)
			}
			if k := r.Task(); k != nil && (k.PID < 0 || k.CPU < -1) {
				t.Errorf("task %+v", k)
			}
			if r.Victim != nil && r.Kind != OOM && r.Kind != Panic {
				t.Errorf("a victim of a %s", r.Kind)
			}
		}
		if whole.Ended() && whole.Panic() == nil {
			t.Error("Ended without a panic")
		}
	})
}

// TestLastWords: the console is that of a kernel for arm without CONFIG_COMPAT_32BIT_TIME.
func TestLastWords(t *testing.T) {
	const died = "[    1.650469] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"before there is /dev/kmsg", "[    0.880795] Run /labctl/labinit as init process\r\nlabinit: read boot time: function not implemented\r\n" + died,
			`init died; on the console: "labinit: read boot time: function not implemented"`},
		{"by /dev/kmsg", "[    0.900000][    T1] labinit: open \x1b[2J/dev/x\r\n" + died, "init died; on the console: \"labinit: open \ufffd[2J/dev/x\""},
		{"a program's", "# labinit: not so\n" + died, "init died"},
		{"nothing", died, "init died"},
		{"another panic", "labinit: x\n[    1.000000] Kernel panic - not syncing: sysrq triggered crash\n", "sysrq"},
	} {
		var s Scanner
		s.Write([]byte(tt.in))
		all := s.Reports()
		if len(all) != 1 || all[0].Cause != tt.want {
			t.Errorf("%s: %d reports, %q; want one, %q", tt.name, len(all), all[0].Cause, tt.want)
		}
	}
}
