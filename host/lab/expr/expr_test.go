package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/lab/result"
)

func stackOf(names ...string) (s result.Stack) {
	for _, n := range names {
		s.Frames = append(s.Frames, result.Frame{Name: n, Kind: "function"})
	}
	return s
}

func input() Input {
	fork := &result.Step{
		ID: "fork", PID: 10, Stdout: "child 11\n\n7 -3 x9\n",
		Tasks: []result.Task{{Role: "self", PID: 10, TID: 10, TGID: 10}, {Role: "child", PID: 11, TID: 11, TGID: 11, PPID: 10}},
		Data:  map[string]any{"returned": int64(11), "rows": []any{map[string]any{"same": true}}, "part": 0.5},
		Creations: []result.Creation{{
			Requester: result.Who{TID: 10, Comm: "labprobe"}, Child: result.Who{TID: 11, Comm: "labprobe", Name: "labprobe"},
			Via: "clone", Symbol: "kernel_clone", Flags: 0x500, ExitSignal: 17,
			Stack: stackOf("kernel_clone", "__do_sys_clone", "invoke_syscall", "el0_svc", "el0t_64_sync"),
		}},
		Others: []result.Creation{{Child: result.Who{TID: 99}, Flags: -1}, {Child: result.Who{TID: 98}, ExitSignal: 17}},
		Events: []result.Event{{Name: "sched_switch", TID: 10, Fields: map[string]string{"prev_pid": "10", "addr": "0xffffffffffffffff", "next_comm": "a b"}}},
	}
	return Input{
		Kernel: &result.Kernel{
			Arch: "arm64", Config: map[string]string{"KCMP": "y", "NUMA": ""}, Symbols: map[string]bool{"do_exit": true},
			Members: map[string]result.Member{"task_struct.pid": {There: true, Offset: 4}, "task_struct.state": {}},
		},
		Steps: []*result.Step{fork},
	}
}

func env(t testing.TB) *Env {
	t.Helper()
	e, err := New([]string{"fork"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEval(t *testing.T) {
	e := env(t)
	for _, tt := range []struct {
		source string
		want   bool
		err    string // part of the evaluation's error
	}{
		{`fork.task("child").pid == 11`, true, ""},
		{`fork.task("thread").pid == 11`, false, `no task of role "thread"`},
		{`fork.creation(11).flags.includes("CLONE_VM|CLONE_FILES")`, true, ""},
		{`fork.creation(11).flags.includes("CLONE_VM|CLONE_FS")`, false, ""},
		{`fork.creation(11).flags.includes("CLONE_VM")`, true, ""}, // one of those that are set
		{`fork.creation(11).flags.excludes("CLONE_THREAD")`, true, ""},
		{`fork.creation(11).flags.excludes("CLONE_VM|CLONE_THREAD")`, false, ""},
		{`(0).includes("0") && (0).excludes("CLONE_VM") && !fork.creation(99).flags.includes("0")`, true, ""},
		{`fork.creation(99).flags.excludes("CLONE_THREAD")`, false, ""}, // not traced: nothing is known
		{`fork.creation(12).flags == 0`, false, "made no task 12"},
		{`fork.made(99) && !fork.made(12)`, true, ""},
		{`flags("CLONE_VM|CLONE_FILES") == fork.creation(11).flags && flagText(0x500) == "CLONE_VM|CLONE_FILES"`, true, ""},
		{`say("a task", "태스크") == "a task"`, true, ""},
		{`fork.creation(11).exit_signal == signal("SIGCHLD")`, true, ""},
		{`fork.creation(11).stack.calls("@creation", "@clone", "@entry")`, true, ""},
		{`fork.creation(11).stack.calls("kernel_clone.constprop.0", "el0_svc")`, true, ""},
		{`fork.creation(11).stack.calls("@clone", "@creation")`, false, ""},
		{`fork.creation(11).stack.names()[1] == "__do_sys_clone"`, true, ""},
		{`fork.creation(11).stack.sameCalls(fork.creation(11).stack)`, true, ""},
		{`fork.on("sched_switch")[0].num("prev_pid") == fork.on("sched_switch")[0].tid`, true, ""},
		{`fork.on("sched_switch")[0].num("addr") == -1`, true, ""},
		{`fork.on("sched_switch")[0].num("next_comm") == 1`, false, "no number"},
		{`fork.on("sched_switch")[0].str("nothing") == ""`, false, "but addr, next_comm, prev_pid"},
		{`fork.data.returned == 11 && fork.data.rows.all(r, r.same) && fork.data.part < 1.0`, true, ""},
		{`has(fork.data) && !has(fork.data.missing)`, true, ""},
		{`fork.data.missing == 1`, false, "no such key"},
		{`fork.data.missing.map(x, x).distinct().size() == 1`, false, "the list that it looks at is not there"},
		{`fork.data.missing.sort() == [1]`, false, "no such key"},
		{`numbers(fork.stdout) == [11, 7, -3] && lines(fork.stdout) == ["child 11", "7 -3 x9"]`, true, ""},
		{`number("child 11 or 11") == 11 && line(fork.stdout, "child ") == "child 11"`, true, ""},
		{`number(fork.stdout) == 11`, false, "it prints 3 different whole numbers; want one"},
		{`number("none") == 0`, false, "it prints 0 different whole numbers; want one"},
		{`number("99999999999999999999") == 1`, false, "value out of range"},
		{`line("a 1\na 2\na 2\nb", "a ") == "a 1"`, false, `it prints 2 different lines that begin with "a "; want one`},
		{`line("a 1\n\na 1\nb", "a ") == "a 1"`, true, ""},
		{`sum(numbers(fork.stdout)) == 15 && sum([]) == 0 && sum(fork.events.map(e, e.num("prev_pid"))) == 10`, true, ""},
		{`kernel.config("KCMP") == "y" && kernel.config("NUMA") == ""`, true, ""},
		{`kernel.config("SMP") == "y"`, false, "run the lab again"},
		{`kernel.symbol("do_exit") && kernel.member("task_struct.pid") && !kernel.member("task_struct.state")`, true, ""},
		{`kernel.offset("task_struct.pid") == 4`, true, ""},
		{`kernel.offset("task_struct.state") == 4`, false, "no member"},
		{`cel.bind(c, fork.creation(11), c.child.tid == c.requester.tid + 1)`, true, ""},
		{`fork.tasks[7].pid == 1`, false, "index"},
		{`fork.creation(11).stack.calls("kernel_clone", "@clone", "b", "c", "d", "e", "f", "g")`, false, ""}, // as many as it takes
		{`fork.data.returned`, false, "it gives 11; want true or false"},                                     // known when it is evaluated
		{strings.Repeat(" ", maxSource-4) + "true", true, ""},
	} {
		x, err := e.Compile(tt.source, Bool)
		if err != nil {
			t.Errorf("Compile(%s): %v", tt.source, err)
			continue
		}
		v, err := x.Eval(input())
		if v.True != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s = %t, %v; want %t, error with %q", tt.source, v.True, err, tt.want, tt.err)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	e := env(t)
	for _, tt := range []struct {
		source string
		want   Type
		line   int
		msg    string
	}{
		{`fork.pid ==`, Bool, 1, "Syntax error"},
		{"true &&\n  spoon.pid == 1", Bool, 2, "undeclared reference to 'spoon'"},
		{`fork.pidd == 1`, Bool, 1, "undefined field 'pidd'"},
		{`fork.task("child").pid == "11"`, Bool, 1, "no matching overload"},
		{`fork.pid`, Bool, 1, "it gives int; want true or false"},
		{`fork.pid`, String, 1, "want a string"},
		{`flags("CLONE_EVERYTHING") == 1`, Bool, 1, "no clone flag"},
		{"true ||\nfork.pid.includes(\"VM\")", Bool, 2, "no clone flag"},
		{`signal("CHLD") == 1`, Bool, 1, "no signal"},
		{`fork.creation(1).stack.calls("@klone")`, Bool, 1, `family of symbols "@klone" is not known, did you mean @clone?`},
		{`fork.creation(1).stack.calls("a", "b", "c", "d", "e", "f", "g", "h", "i")`, Bool, 1, "no matching overload"},
		{`kernel.config("CONFIG_KCMP") == "y"`, Bool, 1, "leave CONFIG_ out"},
		{`kernel.config(fork.stdout) == "y"`, Bool, 1, "plain text"},
		{`kernel.member("pid")`, Bool, 1, "task_struct.__state"},
		{strings.Repeat(" ", maxSource-3) + "true", Bool, 1, "more than"},
	} {
		_, err := e.Compile(tt.source, tt.want)
		var bad *Error
		if !errors.As(err, &bad) || bad.Line != tt.line || !strings.Contains(bad.Msg, tt.msg) || strings.Contains(bad.Msg, "\n") {
			t.Errorf("Compile(%.60q) = %v (%+v); want line %d, %q", tt.source, err, bad, tt.line, tt.msg)
		}
	}
}

func TestAsks(t *testing.T) {
	x, err := env(t).Compile(`kernel.config("KCMP") == "y" || kernel.symbol("do_exit") && kernel.member("a.b") && kernel.offset("c.d") > 1`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	if a := x.Asks; len(a.Config) != 1 || len(a.Symbols) != 1 || len(a.Members) != 2 {
		t.Errorf("Asks = %+v", a)
	}
}

// TestNeeds has what a run looks at before it evaluates anything: the variables
// and events of an expression, and whether it needs the exit signal.
func TestNeeds(t *testing.T) {
	for _, tt := range []struct {
		source        string
		names, events []string
		signal        bool
	}{
		{`fork.on("b").size() > 0 && fork.on("a").size() > 0 && kernel.symbol("x")`, []string{"fork", "kernel"}, []string{"a", "b"}, false},
		{`fork.on(fork.stdout).size() > 0`, []string{"fork"}, nil, false},
		{`fork.creation(11).exit_signal == 17`, []string{"fork"}, nil, true},
		{`fork.creation(11).flags == 17`, []string{"fork"}, nil, false},
		{`fork.data.exit_signal == 17`, []string{"fork"}, nil, false}, // what a probe reported under that name
	} {
		x, err := env(t).Compile(tt.source, Bool)
		if err != nil {
			t.Errorf("Compile(%s): %v", tt.source, err)
			continue
		}
		if !slices.Equal(x.Names, tt.names) || !slices.Equal(x.Events, tt.events) || x.Signal != tt.signal {
			t.Errorf("%s needs %q, %q, signal %t; want %q, %q, %t", tt.source, x.Names, x.Events, x.Signal, tt.names, tt.events, tt.signal)
		}
	}
}

// TestEarly has what can be evaluated before the trace was read.
func TestEarly(t *testing.T) {
	for source, want := range map[string]bool{
		`fork.exit == 0 && fork.data.creations == 1 && fork.task("child").pid > 1`: true,
		`fork.stdout.contains("x") && kernel.arch == "arm64"`:                      true,
		`fork.creations.size() > 0`:                                                false,
		`fork.exit == 0 || fork.on("sched_switch").size() > 0`:                     false,
		`fork.made(11)`:                          false,
		`[fork].all(s, s.exit == 0)`:             false, // it may be asked for anything
		`cel.bind(s, fork, s.events.size() > 0)`: false,
		`fork.tasks.exists(t, t.pid == 11) && fork.tasks.all(t, t.tid == t.pid)`: true,
		`fork.tasks.all(t, fork.creation(t.tid).flags == 17)`:                    false,
		`fork.pid > kernel.skipped_frames`:                                       false,
		`fork.look("x").tasks.size() > 0`:                                        true,
	} {
		x, err := env(t).Compile(source, Bool)
		if err != nil {
			t.Errorf("Compile(%s): %v", source, err)
		} else if x.Early != want {
			t.Errorf("%s: early %t; want %t", source, x.Early, want)
		}
	}
}

func TestText(t *testing.T) {
	for source, want := range map[string]string{
		`fork.tasks[1].role`:          "child",
		`fork.stdout`:                 "child 11 7 -3 x9",
		`[fork.tasks[1].role]`:        `["child"]`,
		`fork.pid`:                    "10",
		`[255, 256, 257, 512]`:        "[255, 256 (0x100), 257, 512 (0x200)]",
		`[1, 2, 3, 4, 5, 6]`:          "[1, 2, 3, 4, 5, 6]",
		`[1, 2, 3, 4, 5, 6, 7, 8]`:    "[1, 2, 3, 4, 5, 6, … 2 more]",
		`fork.events[0].fields`:       `{"addr": "0xffffffffffffffff", "next_comm": "a b", "prev_pid": "10"}`,
		`fork.others.map(c, c.flags)`: "[-1, 0]",
		`fork.others`:                 "[(-0 makes -99: flags not traced), (-0 makes -98: SIGCHLD)]",
		`fork.creations[0]`:           "(labprobe-10 makes labprobe-11 by clone: CLONE_VM|CLONE_FILES|SIGCHLD)",
		`fork.creations[0].requester`: "labprobe-10",
		`fork.others[0].stack`:        "no stack",
	} {
		x, err := env(t).Compile(source, Any)
		if err != nil {
			t.Errorf("Compile(%s): %v", source, err)
			continue
		}
		if v, err := x.Eval(input()); err != nil || v.Text != want {
			t.Errorf("%s = %q, %v; want %q", source, v.Text, err, want)
		}
	}
}

func TestSeen(t *testing.T) {
	e := env(t)
	creations := "fork.creations = [(labprobe-10 makes labprobe-11 by clone: CLONE_VM|CLONE_FILES|SIGCHLD)]"
	var sums, shown []string // one more than is shown
	for i := range maxSeen + 1 {
		sums = append(sums, fmt.Sprintf("fork.pid + %d == 0", i))
		shown = append(shown, fmt.Sprintf("fork.pid + %d = %d", i, 10+i))
	}
	for _, tt := range []struct {
		source string
		want   []string
	}{
		{`fork.task("child").pid == 12 && fork.exit == 0`, []string{`fork.task("child").pid = 11`}},
		{`!fork.made(11)`, []string{"fork = step fork (exit 0, 1 creations, 1 events)"}},
		{`fork.creations.exists(c, c.child.name == "x")`, []string{creations}},
		{`size(fork.creations.filter(c, c.child.name == "x")) == 1`,
			[]string{`size(fork.creations.filter(c, c.child.name == "x")) = 0`, creations}},
		{`fork.creations.map(c, c.child.tid).size() == 0`, []string{"fork.creations.map(c, c.child.tid).size() = 1", creations}},
		{`fork.creation(11).stack.calls("do_exit")`,
			[]string{"fork.creation(11).stack = kernel_clone < __do_sys_clone < invoke_syscall < el0_svc < el0t_64_sync"}},
		{`kernel.config("NUMA") == "y"`, []string{`kernel.config("NUMA") = ""`}},
		{`kernel.member("task_struct.state")`, []string{`kernel.member("task_struct.state") = false`}},
		{`fork.creation(11).flags == 0`, []string{"fork.creation(11).flags = 1280 (0x500)"}},
		{`fork.pid in [1, 2]`, []string{"fork.pid = 10"}},
		{`fork.pid in [1, fork.exit]`, []string{"fork.pid = 10", "[1, fork.exit] = [1, 0]"}},
		{`cel.bind(s, fork.task("child"), s.pid == 1)`, []string{`fork.task("child") = child(pid 11, tid 11, tgid 11, ppid 10)`, "s.pid = 11"}},
		{`fork.exit == 1 || fork.exit == 2`, []string{"fork.exit = 0"}},
		{strings.Join(sums[:maxSeen], "||"), shown[:maxSeen]},
		{strings.Join(sums, "||"), shown[:maxSeen]},
	} {
		x, err := e.Compile(tt.source, Bool)
		if err != nil {
			t.Errorf("Compile(%s): %v", tt.source, err)
			continue
		}
		v, err := x.Eval(input())
		if err != nil || v.True {
			t.Errorf("%s = %t, %v; want false", tt.source, v.True, err)
		}
		var seen []string
		for _, s := range x.Seen(input()) {
			seen = append(seen, s.String())
		}
		if !slices.Equal(seen, tt.want) {
			t.Errorf("seen of %s: %q; want %q", tt.source, seen, tt.want)
		}
	}
}

// TestTooMuchWork nests loops until the bound ends them.
func TestTooMuchWork(t *testing.T) {
	in := input()
	for range 300 {
		in.Steps[0].Events = append(in.Steps[0].Events, in.Steps[0].Events[0])
	}
	x, err := env(t).Compile(`fork.events.all(a, fork.events.all(b, fork.events.all(c, a.tid == c.tid && b.tid == a.tid)))`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := x.Eval(in); !errors.Is(err, ErrWork) || errors.Is(err, errTime) {
		t.Errorf("27 million comparisons = %t, %v; want ErrWork", v.True, err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`fork.task("child").pid == 1`, `kernel.config("KCMP") == "y"`, `fork.creations.exists(c, c.flags.includes("CLONE_VM"))`,
		`cel.bind(x, fork.data.rows, x[0].a)`, `"%d".format([fork.pid])`, "fork.events.map(e, e.fields)", "[1,2][9] / 0",
	} {
		f.Add(s)
	}
	e := env(f)
	in := input()
	f.Fuzz(func(t *testing.T, source string) {
		x, err := e.Compile(source, Any)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("Compile(%q) = %q: more than one clean line", source, err)
			}
			return
		}
		if v, err := x.Eval(in); err == nil && len(v.Text) > maxShown+8 {
			t.Errorf("%q shows %d bytes", source, len(v.Text))
		} else if !errors.Is(err, ErrWork) {
			x.Seen(in)
		}
	})
}

func TestSaw(t *testing.T) {
	made := func(child string, tid, flags int64) result.Creation {
		return result.Creation{Via: "clone", Requester: result.Who{TID: 10, Comm: "exercise"}, Child: result.Who{TID: tid, Name: child}, Flags: flags, ExitSignal: 17}
	}
	s := &result.Step{
		Creations: []result.Creation{made("exercise", 11, 0x400), made("exercise", 12, 0x400), made("child", 13, 0)},
		Events:    []result.Event{{Name: "sched_process_exit"}, {Name: "sched_process_exit"}},
		NotTraced: []string{"leave"},
	}
	want := []string{
		"exercise-10 makes exercise-11 by clone: CLONE_FILES|SIGCHLD (and 1 more like it)",
		"exercise-10 makes child-13 by clone: SIGCHLD",
		"sched_process_exit: 2 times", "sched_switch: 0 times", "leave: not traced on this kernel",
	}
	if d := cmp.Diff(want, Saw(s, []string{"sched_process_exit", "sched_switch", "leave"})); d != "" {
		t.Errorf("Saw: -want +got\n%s", d)
	}
	if d := cmp.Diff([]string{"it made no task"}, Saw(&result.Step{}, nil)); d != "" {
		t.Errorf("Saw of nothing: -want +got\n%s", d)
	}
	var many []result.Creation
	for i := range int64(50) {
		many = append(many, made(fmt.Sprint("c", i), i, 0))
	}
	got := Saw(&result.Step{Creations: many}, nil)
	if len(got) != maxSaw || got[maxSaw-1] != "and 31 more" {
		t.Errorf("Saw of 50: %d lines, the last %q; want %d, \"and 31 more\"", len(got), got[len(got)-1], maxSaw)
	}
}

// TestSay: one expression has words in two languages.
func TestSay(t *testing.T) {
	e := env(t)
	x, err := e.Compile(`say("%d tasks", "태스크 %d개").format([3]) + (1 < 2 ? say(", none lost", ", 빠짐없음") : "")`, String)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Says || len(x.Names) > 0 {
		t.Errorf("it says %t, and has the names %q; want true, and none", x.Says, x.Names)
	}
	for _, tt := range []struct {
		korean bool
		want   string
	}{{false, "3 tasks, none lost"}, {true, "태스크 3개, 빠짐없음"}} {
		if v, err := x.Eval(Input{Korean: tt.korean}); err != nil || v.Text != tt.want {
			t.Errorf("in Korean %t: %q, %v; want %q", tt.korean, v.Text, err, tt.want)
		}
	}
	for _, source := range []string{`say("one")`, `say("one", "")`, `say("one", string(1))`} {
		if _, err := e.Compile(source, Any); err == nil {
			t.Errorf("%s compiles; want two texts", source)
		}
	}
}
