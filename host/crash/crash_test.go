package crash

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
		"[    1.000000] BUG: a\nhello\n[    1.000000] b\n":                    "[    1.000000] BUG: a\n[    1.000000] b",
		"BUG: a\nb\n[    1.000000] c\n":                                       "BUG: a\nb\n[    1.000000] c",
		"[    1.000000] Kernel panic - not syncing: a\nb\n[    9.000000] c\n": "[    1.000000] Kernel panic - not syncing: a\nb\n[    9.000000] c",
	} {
		if r := scan(in, 7).current(); r == nil || strings.Join(r.Lines, "\n") != want {
			t.Errorf("%q: report %+v, want the lines %q", in, r, want)
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
		if r.Count < 1 || r.Count > 1 && !r.Kind.Hang() && !strings.HasPrefix(r.Title, waiting) || (r.Count > 1) != (r.Last != "") {
			t.Errorf("report %d: a %s, %d times, %q and last %q", i, r.Kind, r.Count, r.Title, r.Last)
		}
		if r.Kind == Panic && i != len(s.Reports())-1 {
			t.Errorf("report %d of %d is a panic: want it last", i, len(s.Reports()))
		}
	}
}

func TestBounds(t *testing.T) {
	one := "BUG: " + strings.Repeat("\xff", 3*maxLine) + "\n" + strings.Repeat(strings.Repeat("한", maxLine/2)+"\n", maxLines+10) + "---[ end trace 0 ]---\n"
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
	f.Fuzz(func(t *testing.T, log []byte, size uint8) {
		whole := new(Scanner)
		whole.Write(log)
		bounded(t, whole)
		pieces := scan(string(log), 1+int(size))
		if diff := cmp.Diff(whole.Reports(), pieces.Reports()); diff != "" {
			t.Errorf("written in other pieces (-whole +pieces):\n%s", diff)
		}
		for _, r := range whole.Reports() {
			if st := r.Stack(); len(st.Frames)+len(st.Trimmed) > maxLines+2 {
				t.Errorf("%d frames out of %d lines", len(st.Frames), len(r.Lines))
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
