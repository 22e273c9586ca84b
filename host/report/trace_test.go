package report

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"labctl/guest/wire"
	"labctl/host/golden"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/hist"
	"labctl/host/trace/plan"
	"labctl/host/trace/tasks"
)

// traced is a small record with all that a trace's report can say.
func traced() *record.Run {
	frame := func(name string) stack.Frame {
		return stack.Frame{Name: name, PC: 0xffff800080001018, Offset: 0x18, Size: 0x400, Kind: stack.Function}
	}
	clone := stack.Stack{Frames: []stack.Frame{frame("kernel_clone"), frame("__do_sys_clone")}, Trimmed: []stack.Frame{frame("__traceiter_x")}, Truncated: true}
	zero, born, died := 0, int64(1e9), int64(1.5e9)
	return &record.Run{
		Kernel: record.Kernel{Release: "6.12"}, Target: record.Target{Name: "arm64"}, QEMU: record.QEMU{Version: "7.2", Accel: "tcg"},
		Trace: &record.Trace{
			Preset: "book/4.4.1", Argv: []string{"prog", "x"}, Exit: &wire.ExecResult{PID: 11, Signaled: true, Signal: 9},
			Lines: []plan.Line{
				{Kind: "event", Name: "sched/sched_switch", Armed: []string{"sched/sched_switch"}, Count: 1},
				{Kind: "function", Name: "_do_fork", Armed: []string{"kernel_clone"}, Count: 1, Why: "renamed"},
				{Kind: "function", Name: "vfs_*", Armed: []string{"vfs_read", "vfs_write"}, Count: 200, Idle: 150, Never: numbered("vfs_never", 25)},
				{Kind: "event", Name: "signal", Armed: []string{"signal/signal_deliver", "signal/signal_generate"}, Count: 2, Idle: 2, Never: []string{"signal/signal_deliver", "signal/signal_generate"}},
				{Kind: "event", Name: "irq/a", Armed: []string{"irq/a"}, Count: 1, Idle: 1, Never: []string{"irq/a"}},
				{Kind: "event", Name: "irq/b", Armed: []string{"irq/b"}, Count: 1, Idle: 1, Never: []string{"irq/b"}},
				{Kind: "probe", Name: "exit", Armed: []string{"do_exit"}, Count: 1, Idle: 1, Never: []string{"do_exit"}},
				{Kind: "function", Name: "nosuch", Why: "no such function"},
				{Kind: "filter", Name: "secondary_start_kernel", Why: "not needed"},
			},
			CPUs:      []record.TraceCPU{{CPU: 0, Events: 5}, {CPU: 1, Events: 7, Lost: 3}},
			Truncated: "at its bound", Left: 4096, Damage: []string{"CPU 1, byte 12: no record"}, Damaged: 3,
			Timeline: &tasks.Timeline{
				Events: map[string]int64{"sched_switch": 10, "a": 1, "b": 1}, Unkept: 4, UnkeptPaths: 5,
				Tasks: []tasks.Task{
					{TID: 1, Comm: "init"},
					{TID: 11, Comm: "prog", Parent: &zero, Born: &born, Died: &died, Via: "clone", Flags: "SIGCHLD", Exit: &tasks.Exit{Signal: 9}, Path: 1, Notes: []string{"a note"}},
				},
				Paths: []tasks.Path{
					{Of: "kernel_clone", Count: 1, Stack: clone},
					{Of: "sched_switch", Count: 2, Stack: stack.Stack{Frames: []stack.Frame{frame("schedule")}}},
					{Of: "sched_switch", Count: 8, Stack: stack.Stack{Frames: []stack.Frame{frame("preempt_schedule")}}},
				},
			},
			Hists: []hist.Histogram{
				{
					Event: "sched/sched_switch", Trigger: "hist:keys=next_comm,prev_prio:vals=hitcount,x.hex:sort=hitcount:size=2048", Keys: []string{"next_comm", "prev_prio"}, Values: []string{"hitcount", "x.hex"},
					Rows: []hist.Row{{Keys: []hist.Key{{Text: "sh"}, {Text: "120"}}, Values: []uint64{90, 255}}, {Keys: []hist.Key{{Text: "swapper/0"}, {Text: "9"}}, Values: []uint64{1, 0}}},
					Hits: 91, Entries: 2, Dropped: 7, Unkept: 3, Disputed: "it is cut",
				},
				{
					Event: "sched/sched_waking", Trigger: "hist:keys=comm,common_stacktrace:vals=hitcount:sort=hitcount:size=2048", Keys: []string{"comm", "common_stacktrace"}, Values: []string{"hitcount"},
					Rows: []hist.Row{{Keys: []hist.Key{{Text: "sh"}, {Stack: &stack.Stack{Frames: []stack.Frame{frame("wake_up_q")}}}}, Values: []uint64{1}}},
					Hits: 1, Entries: 1,
				},
			},
			Wakeups: &record.Wakeups{
				Kernel: 5, Reckoned: 6, Agree: 4, Differ: 1, Differing: []string{"task 7, which ran at 5: 3 ns by the kernel, and none by the events"},
				Count: 3, Before: 1, Running: 2, Others: 3, Unkept: 4, Median: 900, P90: 3e6, P99: 5e9, Max: 5e9,
				Ranges: []record.WakeupRange{{From: 0, To: 1000, Count: 2}, {From: 1000, To: 2000}, {From: 1024e3, To: 2048e3, Count: 1}, {From: 4194304e3, To: 8388608e3, Count: 1}},
				Worst: []record.WakeupLatency{
					{Latency: 5e9, Time: 12345678901, CPU: 1, Task: creation.Task{TID: 11, Comm: "prog"}, Prio: 120, By: &creation.Task{TID: 1, Comm: "init"}, WokenOn: 2, Interrupt: true},
					{Latency: 3e6, Time: 1e9, CPU: 0, Task: creation.Task{TID: 12, Comm: "x"}, Prio: 98, By: &creation.Task{TID: 1, Comm: "init"}},
					{Latency: 900, Time: 1e9, CPU: 0, Task: creation.Task{TID: 12, Comm: "x"}, Prio: 98},
				},
			},
			Sleepers: &record.Sleepers{Samples: 2, Moved: 1, Places: []record.Place{
				{Count: 3, State: "S", Stack: stack.Stack{Frames: []stack.Frame{frame("do_wait")}}, Tasks: []creation.Task{{TID: 1, Comm: "init"}}},
				{Count: 1, State: "I", Kernel: true, Stack: stack.Stack{Frames: []stack.Frame{frame("worker_thread")}}, Tasks: []creation.Task{{TID: 9, Comm: "kworker/0:0"}}},
			}},
		},
	}
}

func numbered(name string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s_%d", name, i))
	}
	return names
}

func renderTrace(t *testing.T, r *record.Run, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Trace(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTrace(t *testing.T) {
	for name, o := range map[string]Options{"trace32": {Style: TRACE32}, "gdb-raw": {Style: "gdb", Raw: true}, "folded": {Style: "folded"}} {
		golden.Check(t, filepath.Join("testdata", "trace", name+".txt"), renderTrace(t, traced(), o))
	}
}

// TestTraceOfNothing: a run that came to no trace says so, and no more.
func TestTraceOfNothing(t *testing.T) {
	r := traced()
	r.Trace = &record.Trace{Timeline: &tasks.Timeline{}}
	if got := renderTrace(t, r, Options{}); !strings.Contains(got, "nothing of the trace came out of the guest\n") {
		t.Errorf("no word of it in\n%s", got)
	}
	r.Trace.Exit = &wire.ExecResult{Exited: true}
	if got := renderTrace(t, r, Options{}); !strings.Contains(got, "no task was made and none ended\n") {
		t.Errorf("no word of it in\n%s", got)
	}
}

// TestWakeupNotes: what two sources say of each other.
func TestWakeupNotes(t *testing.T) {
	for want, w := range map[string]record.Wakeups{
		// What the events show, and of which the kernel says nothing, is a contradiction.
		"not to be relied on: the kernel measured 0":                 {Reckoned: 3, Differ: 3},
		"two witnesses: the kernel measured 7 by ":                   {Kernel: 7, Reckoned: 7, Agree: 7},
		"reckoned from sched_waking and sched_switch alone":          {Reckoned: 7},
		"not to be relied on: the kernel measured 7, ":               {Kernel: 7, Reckoned: 7, Agree: 6, Differ: 1},
		"the kernel measured 7; 6 of them are what sched_waking and": {Kernel: 7, Reckoned: 6, Agree: 6, Differ: 1, Lost: true},
	} {
		if notes := wakeupNotes(&w); !strings.HasPrefix(notes[0], want) {
			t.Errorf("%+v: %q; want %q", w, notes, want)
		}
	}
}

// TestManyStacks: the most frequent are printed, and the rest counted.
func TestManyStacks(t *testing.T) {
	r := traced()
	line := r.Trace.Timeline
	for i := range 30 {
		line.Paths = append(line.Paths, tasks.Path{Of: "kmalloc", Count: int64(100 + i), Stack: line.Paths[0].Stack})
	}
	got := renderTrace(t, r, Options{Style: "drgn"})
	if n := strings.Count(got, " kmalloc, "); n != maxShown || !strings.Contains(got, "\n12 more stacks of events are in stacks.txt\n") || !strings.Contains(got, " kmalloc, 129 times\n") {
		t.Errorf("%d stacks of kmalloc are printed, want %d and the rest counted:\n%s", n, maxShown, got)
	}
}

// TestTraceOfScript: what the script came to stands beside the program.
func TestTraceOfScript(t *testing.T) {
	r := traced()
	r.Trace.Preset = ""
	r.Trace.Script = &record.Script{Name: "x.sh", Exit: &wire.ExecResult{PID: 10, Exited: true, Code: 3}, Unread: "more than 10 names"}
	got := renderTrace(t, r, Options{})
	for _, want := range []string{
		"\ntraced: by the script x.sh, sched/sched_switch, irq/a, irq/b\n",
		"\nnot all that the script asked for is known: more than 10 names\nthe script x.sh ended with exit status 3\nprog (11) ended with signal 9\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	r.Trace = &record.Trace{Script: r.Trace.Script, Argv: []string{"x.sh"}, Exit: r.Trace.Script.Exit, Timeline: &tasks.Timeline{}}
	got = renderTrace(t, r, Options{})
	if !strings.Contains(got, "what the script traced tells of no task that was made or ended\n") || strings.Count(got, "ended with") != 1 {
		t.Errorf("a script alone, without events of tasks:\n%s", got)
	}
}

// TestTraceHostile puts escapes and line ends into every word of a trace.
func TestTraceHostile(t *testing.T) {
	const bad = "\x1b]0;x\a\r\n== forged\u202e\u009b\xff\x00"
	r := traced()
	x := r.Trace
	x.Preset, x.Argv, x.Truncated, x.Damage = bad, []string{bad}, bad, []string{bad}
	x.Script = &record.Script{Name: bad, Exit: &wire.ExecResult{Exited: true}, Unread: bad}
	for i := range x.Lines {
		l := &x.Lines[i]
		l.Kind, l.Name, l.Why = l.Kind+bad, bad, bad
		for j := range l.Armed {
			l.Armed[j] = bad
		}
		for j := range l.Never {
			l.Never[j] = bad
		}
	}
	for i := range x.Timeline.Tasks {
		k := &x.Timeline.Tasks[i]
		k.Comm, k.Via, k.Flags, k.Notes, k.AskedBy = bad, bad, bad, []string{bad}, &creation.Task{Comm: bad}
	}
	for i := range x.Timeline.Paths {
		x.Timeline.Paths[i].Of = bad
		spoil(&x.Timeline.Paths[i].Stack, bad)
	}
	x.Timeline.Events = map[string]int64{bad: 1}
	x.Wakeups.Differing[0], x.Wakeups.Worst[0].Task.Comm, x.Wakeups.Worst[0].By.Comm = bad, bad, bad
	for i := range x.Hists {
		h := &x.Hists[i]
		h.Event, h.Trigger, h.Disputed, h.Keys[0], h.Values[0] = bad, bad, bad, bad, bad
		h.Rows[0].Keys[0].Text = bad
	}
	x.Hists[0].Rows = append(x.Hists[0].Rows, hist.Row{})
	spoil(x.Hists[1].Rows[0].Keys[1].Stack, bad)
	for i := range x.Sleepers.Places {
		p := &x.Sleepers.Places[i]
		p.State, p.Tasks = bad, []creation.Task{{Comm: bad}}
		spoil(&p.Stack, bad)
	}
	for _, style := range Styles {
		got := renderTrace(t, r, Options{Style: style, Raw: true})
		if at := strings.IndexAny(got, "\x1b\a\r\x00\u202e\u009b"); at >= 0 || !utf8.ValidString(got) {
			t.Errorf("%s: control character reaches the output: %.60q", style, got[max(0, at-30):])
		}
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "== forged") {
				t.Errorf("%s: a name makes a line of its own: %q", style, line)
			}
		}
	}
}
