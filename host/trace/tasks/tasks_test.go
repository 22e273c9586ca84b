package tasks

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/golden"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/trace/internal/kerneltext"
)

// build makes the timeline of a trace file's text.
func build(t testing.TB, text string, stacks func(string) bool) (*Timeline, []creation.Creation) {
	t.Helper()
	tr, err := kerneltext.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if tr.BadLines > 0 {
		t.Fatalf("trace text: %v", tr.Bad)
	}
	b := Builder{Stacks: stacks}
	for i := range tr.Events {
		b.Event(&tr.Events[i])
	}
	line, creations, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return line, creations
}

func tree(t testing.TB, l *Timeline, program int) string {
	t.Helper()
	var b strings.Builder
	if err := l.Tree(&b, program); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func traces(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"testdata/*.trace", "../internal/kerneltext/testdata/*.trace"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 2 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(filepath.Base(f), ".trace")
			if strings.HasPrefix(pattern, "testdata") {
				name += "-exits"
			}
			out[name] = string(text)
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	for name, text := range traces(t) {
		l, _ := build(t, text, func(e string) bool { return e == "sched_process_exit" })
		var b strings.Builder
		b.WriteString(tree(t, l, 0))
		for i := range l.Paths {
			p := &l.Paths[i]
			fmt.Fprintf(&b, "\n#%d %s, %d times\n%s", i+1, p.Of, p.Count, p.Stack.TRACE32())
		}
		golden.Check(t, filepath.Join("testdata", name+".txt"), b.String())
	}
}

// TestLivesAreWhole holds real traces to what must be so of any timeline.
func TestLivesAreWhole(t *testing.T) {
	for name, text := range traces(t) {
		l, creations := build(t, text, nil)
		born, used := 0, map[int]int64{}
		for i, task := range l.Tasks {
			if (task.Born == nil) != (task.Parent == nil) {
				t.Errorf("%s: task %d has a parent or a birth alone", name, task.TID)
			}
			if task.Parent != nil {
				born++
				if *task.Parent == i || *task.Parent >= len(l.Tasks) {
					t.Errorf("%s: task %d has parent %d", name, task.TID, *task.Parent)
				} else if p := l.Tasks[*task.Parent]; p.Born != nil && *p.Born > *task.Born || p.Died != nil && *p.Died < *task.Born {
					t.Errorf("%s: task %d was born outside the life of its parent %d", name, task.TID, p.TID)
				}
				if task.Path == 0 {
					t.Errorf("%s: task %d has no path", name, task.TID)
				}
			}
			if task.Died != nil && task.Born != nil && *task.Died < *task.Born {
				t.Errorf("%s: task %d died before it was born", name, task.TID)
			}
			if strings.HasSuffix(name, "-exits") && (task.Died != nil) != (task.Exit != nil) {
				t.Errorf("%s: task %d died %v, exit %v", name, task.TID, task.Died != nil, task.Exit)
			}
			used[task.Path]++
			if task.AskedPath > 0 {
				used[task.AskedPath]++
			}
		}
		if born != len(creations) || born == 0 {
			t.Errorf("%s: %d tasks were born, %d creations", name, born, len(creations))
		}
		for i, p := range l.Paths {
			if p.Count != used[i+1] {
				t.Errorf("%s: path #%d counts %d, %d tasks have it", name, i+1, p.Count, used[i+1])
			}
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back Timeline
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(*l, back); d != "" {
			t.Errorf("%s: through JSON, -want +got\n%s", name, d)
		}
	}
}

// TestWhatTheGuestDid holds the recorded traces to the programs that ran.
func TestWhatTheGuestDid(t *testing.T) {
	for name, text := range traces(t) {
		if !strings.HasSuffix(name, "-exits") {
			continue
		}
		l, _ := build(t, text, nil)
		ends := map[string]int{}
		for _, task := range l.Tasks {
			if task.Exit != nil {
				ends[task.Comm+" "+task.Exit.String()]++
			}
			if task.Comm == "khugepaged" && (task.Via != "kthread" || task.AskedBy == nil || task.AskedPath == 0 || end(&task) != "alive") {
				t.Errorf("%s: khugepaged is %+v", name, task)
			}
		}
		for _, want := range []string{"labprobe exit 0", "sh exit 3", "sleep SIGKILL"} {
			if ends[want] == 0 {
				t.Errorf("%s: ends %v; want %s", name, ends, want)
			}
		}
	}
}

// text of one line of a trace, for small made-up cases.
func at(task string, cpu int, sec float64, rest string) string {
	return fmt.Sprintf("%s [%03d] d.... %.6f: %s\n", task, cpu, sec, rest)
}

const head = "# tracer: nop\n#\n"

func fork(sec float64, maker string, pid int, child string, childPID int) string {
	return at(fmt.Sprintf("%s-%d", maker, pid), 0, sec, fmt.Sprintf("sched_process_fork: comm=%s pid=%d child_comm=%s child_pid=%d", maker, pid, child, childPID))
}

func died(sec float64, comm string, pid, status int) string {
	return at(fmt.Sprintf("%s-%d", comm, pid), 1, sec, fmt.Sprintf("exit: (do_exit+0x0/0xa94) code=%d", status)) +
		at(fmt.Sprintf("%s-%d", comm, pid), 1, sec+0.000001, fmt.Sprintf("sched_process_exit: comm=%s pid=%d prio=120", comm, pid))
}

// TestReuse: a number that comes again is another task, and its exit code its own.
func TestReuse(t *testing.T) {
	l, _ := build(t, head+
		fork(1, "a", 10, "a", 20)+died(1.1, "a", 20, 0x300)+
		fork(2, "a", 10, "a", 20)+died(2.1, "a", 20, 139)+
		fork(3, "a", 10, "a", 20)+
		fork(4, "b", 11, "b", 12), nil)
	want := `START     LIFE    TASK     END            BY  PATH  FLAGS
-         -       a-10
1.000000  100 ms  ├─ a-20  exit 3         -   -     -
                  │     note: the entry into the creation function is not in the trace
2.000000  100 ms  ├─ a-20  SIGSEGV, core  -   -     -
                  │     note: the entry into the creation function is not in the trace
3.000000  -       └─ a-20  alive          -   -     -
                        note: the entry into the creation function is not in the trace
-         -       b-11
4.000000  -       └─ b-12  alive          -   -     -
                        note: the entry into the creation function is not in the trace
`
	if d := cmp.Diff(want, tree(t, l, 0)); d != "" {
		t.Errorf("tree: -want +got\n%s", d)
	}
}

// TestOrder: tasks that were there before come first, by number, called by what
// they were last called; the others follow by birth.
func TestOrder(t *testing.T) {
	l, _ := build(t, head+
		fork(1, "b", 50, "b", 20)+
		fork(2, "a", 10, "a", 60)+
		fork(3, "renamed", 50, "x", 5)+
		fork(4, "old", 20, "y", 21)+
		at("c-70", 0, 5, "sched_process_exit: comm=c prio=120")+ // of whom it does not say
		at("d-71", 0, 6, "sched_process_exit: pid=21 prio=120"), nil) // in another's context, without a name
	var got []string
	for _, task := range l.Tasks {
		got = append(got, fmt.Sprintf("%s-%d %s", task.Comm, task.TID, end(&task)))
	}
	want := []string{"a-10 ", "renamed-50 ", "c-70 ended", "b-20 alive", "a-60 alive", "x-5 alive", "y-21 ended"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tasks: -want +got\n%s", d)
	}
}

// TestShortLife: a task that died in the microsecond of its birth is one task.
func TestShortLife(t *testing.T) {
	l, _ := build(t, head+fork(1, "a", 10, "a", 20)+at("a-20", 0, 1, "sched_process_exit: comm=a pid=20 prio=120"), nil)
	if len(l.Tasks) != 2 || l.Tasks[1].Born == nil || l.Tasks[1].Died == nil {
		t.Errorf("tasks %+v; want a-10 and a-20, which was born and died", l.Tasks)
	}
}

func TestWants(t *testing.T) {
	b := Builder{}
	asked := Builder{Stacks: func(e string) bool { return e == "sched_switch" }}
	for _, tt := range []struct {
		b     *Builder
		event string
		stack bool
		want  bool
	}{
		{&b, "sched_process_fork", false, true}, {&b, "task_rename", false, true},
		{&b, "exit", false, true}, {&b, "sched_process_exit", false, true},
		{&b, "sched_switch", true, false}, {&asked, "sched_switch", true, true}, {&asked, "sched_switch", false, false}, {&asked, "sched_wakeup", true, false},
	} {
		if got := tt.b.Wants(tt.event, tt.stack); got != tt.want {
			t.Errorf("Wants(%s, %t) = %t", tt.event, tt.stack, got)
		}
	}
}

// TestStacks: those of creations are told once, whatever was asked for, and what
// is too many is counted on both sides.
func TestStacks(t *testing.T) {
	b := Builder{Stacks: func(string) bool { return true }}
	for i := range maxPaths + 3 {
		s := &stack.Stack{Frames: []stack.Frame{{Name: "kernel_clone"}, {Name: fmt.Sprint("f", i)}}}
		b.Event(&event.Event{Name: "sched_process_fork", PID: 1, Stack: s, Fields: []event.Field{{Key: "pid", Value: "1"}, {Key: "child_pid", Value: "2"}}})
	}
	for i := range 2 {
		b.Event(&event.Event{Name: "x", Stack: &stack.Stack{Frames: []stack.Frame{{Name: fmt.Sprint("f", i)}}}})
	}
	b.Event(&event.Event{Name: "x"})
	b.paths.unkept = 4
	l, _, err := b.Build()
	if err != nil || len(l.Paths) != maxPaths+2 || l.UnkeptPaths != 7 {
		t.Errorf("%d paths, %d not kept, %v; want %d, 7", len(l.Paths), l.UnkeptPaths, err, maxPaths+2)
	}
}

func TestPlace(t *testing.T) {
	s := &stack.Stack{Frames: []stack.Frame{{Name: "kprobe_dispatcher"}, {Name: "f.part.0", Size: 8}, {Name: "h", Size: 8, Offset: 4}}}
	args := []event.Field{{Key: "a", Value: "1"}, {Key: "lr", Value: "g+0x4/0x8"}, {Key: "b", Value: "2"}}
	for _, tt := range []struct {
		name   string
		event  event.Event
		of     string
		frames string // as TRACE32 has them
	}{
		{"a trace point", event.Event{Name: "x", Stack: s, Fields: args[:1]}, "x", "f.part.0(...) h(...)"},
		{"a probe", event.Event{Name: "p", At: "f+0x0/0x8", Stack: s, Fields: args}, "p", "f.part.0(a = 1, b = 2, ...) g(...)  // from the link register h(...)"},
		{"a probe where frame pointers are walked", event.Event{Name: "p", At: "f+0x0/0x8", Stack: s, Fields: []event.Field{{Key: "ra", Value: "g+0x4/0x8"}}}, "p", "f.part.0(...) g(...)  // from the return address h(...)"},
		{"the same, of a kernel that leaves out the function", event.Event{Name: "p", At: "k+0x0/0x8", Stack: &stack.Stack{Frames: []stack.Frame{{Name: "h"}}}, Fields: []event.Field{{Key: "ra", Value: "g+0x4/0x8"}}}, "p", "k(...) g(...)  // from the return address h(...)"},
		{"a probe whose stack begins elsewhere", event.Event{Name: "p", At: "k+0x0/0x8", Stack: s, Fields: args[:1]}, "p", "f.part.0(...) h(...)"},
		{"a probe without frames", event.Event{Name: "p", At: "f+0x0/0x8", Stack: &stack.Stack{}, Fields: args[:1]}, "p", ""},
		{"a function", event.Event{Name: "function", Stack: s, Fields: []event.Field{{Key: "function", Value: "h+0x4/0x8"}}}, "h", "h(...)"},
		{"a function without a symbol", event.Event{Name: "function", Stack: s, Fields: []event.Field{{Key: "function", Value: "0x1234"}}}, "0x1234", "f.part.0(...) h(...)"},
		{"a function that the tracer left out", event.Event{Name: "function", Stack: s, Fields: []event.Field{{Key: "function", Value: "inner"}, {Key: "caller", Value: "h"}}}, "inner", "inner(...)  // from the event h(...)"},
		{"the same, called again by a caller of its caller", event.Event{Name: "function", Stack: &stack.Stack{Frames: []stack.Frame{{Name: "ftrace_call"}, {Name: "g"}, {Name: "f"}}}, Fields: []event.Field{{Key: "function", Value: "f"}, {Key: "caller", Value: "g"}}}, "f", "f(...)  // from the event g(...) f(...)"},
		{"a function that is not told", event.Event{Name: "function", Stack: s}, "", "f.part.0(...) h(...)"},
		{"no stack", event.Event{Name: "p", At: "f+0x0/0x8"}, "p", ""},
	} {
		of, got := Place(&tt.event)
		var frames []string
		for line := range strings.Lines(got.TRACE32()) {
			if _, frame, ok := strings.Cut(strings.TrimSpace(line), "|"); ok && !strings.HasPrefix(frame, "end of frame") {
				frames = append(frames, frame)
			}
		}
		if of != tt.of || strings.Join(frames, " ") != tt.frames {
			t.Errorf("%s: of %q, frames %q; want %q, %q", tt.name, of, frames, tt.of, tt.frames)
		}
	}
}

// TestDifferent: one of nine siblings that differs in one respect parts the
// others, and has a line of its own.
func TestDifferent(t *testing.T) {
	for name, spoil := range map[string]func(*Timeline, *Task){
		"name":    func(_ *Timeline, x *Task) { x.Comm = "b" },
		"way":     func(_ *Timeline, x *Task) { x.Via = "vfork" },
		"flags":   func(_ *Timeline, x *Task) { x.Flags = "CLONE_VM" },
		"path":    func(_ *Timeline, x *Task) { x.Path = 2 },
		"asker":   func(_ *Timeline, x *Task) { x.AskedPath = 2 },
		"end":     func(_ *Timeline, x *Task) { x.Exit = &Exit{Code: 1} },
		"notes":   func(_ *Timeline, x *Task) { x.Notes = []string{"n"} },
		"program": func(_ *Timeline, x *Task) { x.TID = 99 },
		"child": func(l *Timeline, _ *Task) {
			five, born := 5, int64(0)
			l.Tasks = append(l.Tasks, Task{TID: 50, Parent: &five, Born: &born})
		},
		"children of all": func(l *Timeline, _ *Task) {
			for i := range 9 {
				parent, born := i+1, int64(0)
				l.Tasks = append(l.Tasks, Task{TID: 50 + i, Parent: &parent, Born: &born})
			}
		},
	} {
		l := &Timeline{Tasks: []Task{{TID: 1, Comm: "init"}}}
		for i := range 9 {
			zero, born := 0, int64(0)
			l.Tasks = append(l.Tasks, Task{TID: 10 + i, Comm: "a", Parent: &zero, Born: &born, Via: "fork", Flags: "SIGCHLD", Path: 1})
		}
		spoil(l, &l.Tasks[5])
		want := 5 // the head, init, and the siblings in three
		switch name {
		case "notes", "child":
			want++
		case "children of all":
			want = 20
		}
		if got := tree(t, l, 99); strings.Count(got, "\n") != want {
			t.Errorf("%s: want %d lines of\n%s", name, want, got)
		}
	}
}

func TestAsked(t *testing.T) {
	zero, born := 0, int64(0)
	l := &Timeline{Tasks: []Task{{Comm: "swapper"}}}
	for _, path := range []int{0, 3} {
		l.Tasks = append(l.Tasks, Task{TID: 7, Comm: "k", Parent: &zero, Born: &born, AskedBy: &creation.Task{TID: 5, Comm: "a"}, AskedPath: path})
	}
	want := `START     LIFE  TASK       END    BY  PATH  FLAGS
-         -     swapper-0
0.000000  -     ├─ k-7     alive  -   -     -, asked for by a-5
0.000000  -     └─ k-7     alive  -   -     -, asked for by a-5 (#3)
`
	if d := cmp.Diff(want, tree(t, l, 0)); d != "" {
		t.Errorf("tree: -want +got\n%s", d)
	}
}

func TestSpan(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0 µs", 999_999: "999 µs", 1_000_000: "1.0 ms", 9_940_000: "9.9 ms", 10_000_000: "10 ms",
		999_999_999: "999 ms", 1_000_000_000: "1.00 s", 61_000_000_000: "61.00 s",
	} {
		if got := Span(ns); got != want {
			t.Errorf("Span(%d) = %s, want %s", ns, got, want)
		}
	}
}

// TestAlike: many alike share a line, and the program's tree comes first.
func TestAlike(t *testing.T) {
	l := &Timeline{}
	add := func(tid, parent int, comm string, born, died int64) {
		task := Task{TID: tid, Comm: comm}
		if parent >= 0 {
			task.Parent, task.Born, task.Via, task.Flags, task.Path = &parent, &born, "fork", "SIGCHLD", 1
		}
		if died > 0 {
			task.Died, task.Exit = &died, &Exit{}
		}
		l.Tasks = append(l.Tasks, task)
	}
	add(1, -1, "init", 0, 0)
	add(7, -1, "prog\x1b[2J", 0, 0)
	for i := range 1000 {
		add(100+i, 1, "kid", int64(1e9+i*1000), int64(1e9+i*1000+2e6+i*1e4))
	}
	add(2000, 1, "kid", 2e9, 0)
	add(2001, 1, "odd", 2e9, 3e9)
	l.Tasks[3].Notes = []string{"entry\nmissing"}
	want := `START     LIFE          TASK                           END     BY    PATH  FLAGS
-         -             prog\uFFFD[2J-7 *
1.000000  2.0 ms        ├─ kid-100                     exit 0  fork  #1    SIGCHLD
1.000001  2.0 ms        ├─ kid-101                     exit 0  fork  #1    SIGCHLD
                        │     note: entry missing
1.000002  2.0 ms–11 ms  ├─ kid-102 … 1099 (998 alike)  exit 0  fork  #1    SIGCHLD
2.000000  -             ├─ kid-2000                    alive   fork  #1    SIGCHLD
2.000000  1.00 s        └─ odd-2001                    exit 0  fork  #1    SIGCHLD
-         -             init-1
`
	want = strings.ReplaceAll(want, `\uFFFD`, "\uFFFD")
	if d := cmp.Diff(want, tree(t, l, 7)); d != "" {
		t.Errorf("tree: -want +got\n%s", d)
	}
}

// TestTreeEnds: a record with a ring of parents, or an endless line of them, is
// printed all the same.
func TestTreeEnds(t *testing.T) {
	l := &Timeline{}
	for i := range 1000 {
		p, born := max(0, i-1), int64(i)
		l.Tasks = append(l.Tasks, Task{TID: i + 1, Comm: "x", Parent: &p, Born: &born})
	}
	got := tree(t, l, 1000)
	if n := strings.Count(got, "\n"); n < maxDepth || n > maxDepth+5 {
		t.Errorf("%d lines; want about %d", n, maxDepth)
	}
	one, two := 1, 0
	ring := &Timeline{Tasks: []Task{{TID: 1, Parent: &one}, {TID: 2, Parent: &two}}}
	if got := tree(t, ring, 2); strings.Count(got, "\n") != 1 {
		t.Errorf("a ring prints %q; want no line of it", got)
	}
}

// TestProgramFirst: the tree that the program is in comes first, however deep
// below, but for the bound.
func TestProgramFirst(t *testing.T) {
	l := &Timeline{Tasks: []Task{{TID: 5000}, {TID: 0}}}
	for i := range maxDepth + 1 {
		parent, born := i+1, int64(0)
		l.Tasks = append(l.Tasks, Task{TID: i + 1, Parent: &parent, Born: &born})
	}
	for program, want := range map[int]string{0: "-5000", 1: "-0", 2: "-0", maxDepth: "-0", maxDepth + 1: "-5000"} {
		line := strings.Split(tree(t, l, program), "\n")[1]
		if got := strings.Fields(line)[2]; got != want {
			t.Errorf("with program %d the first is %s, want %s", program, got, want)
		}
	}
}

func TestParseExit(t *testing.T) {
	for status, want := range map[int]string{0: "exit 0", 0x300: "exit 3", 0xff00: "exit 255", 9: "SIGKILL", 11 | 0x80: "SIGSEGV, core", 64: "64", -1: "127, core"} {
		if got := ParseExit(status).String(); got != want {
			t.Errorf("ParseExit(%#x) = %s, want %s", status, got, want)
		}
	}
}

// TestPaths: arguments that differ between stacks of one path are left out.
func TestPaths(t *testing.T) {
	s := func(value string) stack.Stack {
		return stack.Stack{Frames: []stack.Frame{{Name: "f.part.0", Args: []stack.Arg{{Name: "a", Value: "1"}, {Name: "b", Value: value}}}, {Name: "g"}}}
	}
	var p paths
	if a, b, c := p.add("f", s("2")), p.add("f", s("3")), p.add("h", s("2")); a != 1 || b != 1 || c != 2 {
		t.Errorf("numbers %d, %d, %d; want 1, 1, 2", a, b, c)
	}
	if got := p.list[0]; got.Count != 2 || len(got.Stack.Frames[0].Args) != 1 || got.Stack.Frames[0].Args[0].Name != "a" {
		t.Errorf("path %+v; want a count of 2 and argument a alone", got)
	}
	var q paths
	for _, f := range []stack.Frame{{PC: 1}, {PC: 2}, {PC: 1}, {PC: 1, Kind: stack.User}, {PC: 2, Kind: stack.User}, {Name: "f", PC: 1}, {Name: "f", PC: 2}} {
		q.add("x", stack.Stack{Frames: []stack.Frame{f}})
	}
	var counts []int64
	for _, x := range q.list {
		counts = append(counts, x.Count)
	}
	// Of the kernel's addresses without a symbol each is a place of its own.
	if want := []int64{2, 1, 2, 2}; !slices.Equal(counts, want) {
		t.Errorf("paths of one frame counted %d, want %d", counts, want)
	}
	if n := p.add("x", stack.Stack{}); n != 0 {
		t.Errorf("a stack without frames has number %d", n)
	}
	for i := range maxPaths {
		p.add(fmt.Sprint(i), s("2"))
	}
	if len(p.list) != maxPaths || p.unkept != 2 {
		t.Errorf("%d paths, %d not kept; want %d, 2", len(p.list), p.unkept, maxPaths)
	}
}

// TestInterrupts: what an interrupt does is one path, whatever it came upon.
func TestInterrupts(t *testing.T) {
	at := func(names ...string) (s stack.Stack) {
		for _, n := range names {
			s.Frames = append(s.Frames, stack.Frame{Name: n})
		}
		s.Classify()
		return s
	}
	var p paths
	for _, outer := range []string{"do_idle", "vfs_read", "vfs_read"} {
		if n := p.add("wake", at("try_to_wake_up", "el1h_64_irq", outer, "__primary_switched")); n != 1 {
			t.Errorf("the wake-up over %s is path #%d, want 1", outer, n)
		}
	}
	if f := p.list[0].Stack.Frames; p.list[0].Count != 3 || len(f) != 2 || f[1].Note == "" || p.list[0].Stack.Truncated {
		t.Errorf("path %+v; want 3 times, cut with a note after the interrupt's entry", p.list[0])
	}
	// One place alone is kept whole, and so is a fault, which its place has made.
	p.add("tick", at("tick", "asm_sysvec_apic_timer_interrupt", "a"))
	p.add("tick", at("tick", "asm_sysvec_apic_timer_interrupt", "a"))
	p.add("fault", at("fault", "el1h_64_sync", "a", "el0t_64_sync"))
	p.add("fault", at("fault", "el1h_64_sync", "b", "el0t_64_sync"))
	var got []int
	for _, path := range p.list[1:] {
		got = append(got, len(path.Stack.Frames))
	}
	if want := []int{3, 4, 4}; !slices.Equal(got, want) {
		t.Errorf("paths of %d frames, want %d", got, want)
	}
}

// TestBound: events about tasks are kept up to a bound, and the rest counted.
func TestBound(t *testing.T) {
	var b Builder
	for i := range maxKept + 7 {
		b.Event(&event.Event{Name: "sched_process_exit", PID: 5, Time: int64(i), Fields: []event.Field{{Key: "pid", Value: "5"}}})
	}
	l, _, err := b.Build()
	if err != nil || l.Unkept != 7 || l.Events["sched_process_exit"] != maxKept+7 {
		t.Errorf("unkept %d, counted %d, %v; want 7", l.Unkept, l.Events["sched_process_exit"], err)
	}
}
