package vm

import (
	"strings"
	"testing"

	"labctl/host/crash"
)

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want cpuTime
		err  string
	}{
		{"cpu  10 1 5 80 4 2 3 1 9 9\ncpu0 1 1 1 1\n", cpuTime{busy: 22, idle: 84}, ""},
		{"cpu 1 2 3 4", cpuTime{busy: 6, idle: 4}, ""},
		{"", cpuTime{}, "no line cpu"},
		{"intr 1 2 3 4\n", cpuTime{}, "no line cpu"},
		{"cpu 1 2 x\x1b 4\n", cpuTime{}, "\"x\ufffd\" is not a number"},
	} {
		got, err := parseStat(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("parseStat(%q) = %v, want an error with %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("parseStat(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("cpu  10 1 5 80 4 2 3 1 9 9\n")
	f.Add("cpu 1 2 3 -1")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseStat(s); err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("parseStat(%q): the error %q is not one clean line", s, err)
		}
	})
}

func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		now  cpuTime
		want bool
	}{
		{cpuTime{100, 1100}, true},
		{cpuTime{119, 1081}, true},
		{cpuTime{130, 1070}, false},
		{cpuTime{200, 1000}, false},
		{cpuTime{100, 1000}, true}, // the clock has not ticked
	} {
		if got := tt.now.idleSince(cpuTime{100, 1000}); got != tt.want {
			t.Errorf("%+v after {100 1000}: idle is %t, want %t", tt.now, got, tt.want)
		}
	}
}

// TestUserDied: a program's tasks count, and neither the kernel's nor PID 1's.
func TestUserDied(t *testing.T) {
	lines := func(task, last string) []string {
		return []string{
			"[   11.1] Internal error: Oops: 0000000096000004 [#1] SMP",
			"[    4.200000] " + task,
			"[    4.200000] pc : f+0x8/0x10 [m]",
			"[    4.200000] Call trace:",
			"[    4.200000]  f+0x8/0x10 [m]",
			"[    4.200000]  " + last,
		}
	}
	const program = "CPU: 0 PID: 149 Comm: x y Not tainted 6.12"
	for _, tt := range []struct {
		name string
		r    crash.Report
		want bool
	}{
		{"a program's", crash.Report{Kind: crash.Oops, Lines: lines(program, "el0t_64_sync+0x190/0x198")}, true},
		{"a kernel thread", crash.Report{Kind: crash.Oops, Lines: lines("CPU: 0 PID: 7 Comm: kworker/0:1 Not tainted 6.12", "ret_from_fork+0x10/0x20")}, false},
		{"init", crash.Report{Kind: crash.Oops, Lines: lines("CPU: 0 PID: 1 Comm: init Not tainted 6.12", "el0t_64_sync+0x190/0x198")}, false},
		{"the agent", crash.Report{Kind: crash.Oops, Lines: lines("CPU: 0 PID: 90 Comm: labinit Not tainted 6.12", "el0t_64_sync+0x190/0x198")}, false},
		{"no task", crash.Report{Kind: crash.Oops, Lines: lines("", "el0t_64_sync+0x190/0x198")}, false},
		{"a warning", crash.Report{Kind: crash.Warning, Lines: lines(program, "el0t_64_sync+0x190/0x198")}, false},
		{"a panic", crash.Report{Kind: crash.Panic, Lines: lines(program, "el0t_64_sync+0x190/0x198")}, false},
	} {
		if got := userDied(&tt.r); got != tt.want {
			t.Errorf("%s: userDied = %t, want %t (task %+v, stack %v)", tt.name, got, tt.want, tt.r.Task(), tt.r.Stack().Frames)
		}
	}
}

// TestConsoleBefore: what a kernel reported before it was saved is not forgotten, but
// for hangs, which are its host's.
func TestConsoleBefore(t *testing.T) {
	c, err := newConsole(Config{ConsoleBefore: []byte("[    1.000000] WARNING: CPU: 0 PID: 1 at lib/x.c:1 f+0x1/0x2\n[    1.000000] ---[ end trace 1 ]---\n" +
		"[   30.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:7]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if r := c.reports(); len(r) != 1 || r[0].Kind != crash.Warning {
		t.Errorf("reports are %v, want the warning alone", r)
	}
}
