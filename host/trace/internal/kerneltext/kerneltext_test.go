package kerneltext

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace/event"
)

var update = flag.Bool("update", false, "rewrite golden files")

// goldens are traces of real kernels; see testdata/README.
func goldens(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.trace")
	if err != nil || len(files) < 8 {
		t.Fatalf("testdata has %d traces, %v; want at least 8", len(files), err)
	}
	return files
}

func parse(t testing.TB, text string) *Trace {
	t.Helper()
	tr, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestGolden(t *testing.T) {
	for _, file := range goldens(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr := parse(t, string(text))
		if tr.BadLines != 0 {
			t.Errorf("%s: %d bad lines, first %v; want none", file, tr.BadLines, tr.Bad[0])
		}
		// The file counts events and stacks as entries, and every event has a stack.
		if got := int64(2 * len(tr.Events)); got != tr.Entries || tr.Written != tr.Entries {
			t.Errorf("%s: %d entries read, want %d, all of %d written", file, got, tr.Entries, tr.Written)
		}
		var frames int
		for i, e := range tr.Events {
			if e.Stack == nil || len(e.Stack.Frames) == 0 {
				t.Errorf("%s:%d: %s has no stack", file, tr.Lines[i], e.Name)
				continue
			}
			frames += len(e.Stack.Frames)
		}
		if want := strings.Count(string(text), "\n => "); frames != want {
			t.Errorf("%s: %d frames in stacks, want %d", file, frames, want)
		}
		compare(t, strings.TrimSuffix(file, ".trace")+".events", dump(tr))
	}
}

// dump is one line an event, with both ends of its stack.
func dump(tr *Trace) string {
	var b strings.Builder
	fmt.Fprintf(&b, "tracer %s, %d CPUs, %d of %d entries, %d lost\n", tr.Tracer, tr.CPUs, tr.Entries, tr.Written, tr.Lost)
	for i, e := range tr.Events {
		fmt.Fprintf(&b, "%d %q %d cpu%d %s %d %s", tr.Lines[i], e.Task, e.PID, e.CPU, e.Flags, e.Time, e.Name)
		if e.At != "" {
			fmt.Fprintf(&b, " at %s in %s", e.At, e.Symbol())
		}
		for _, f := range e.Fields {
			fmt.Fprintf(&b, " %s=%q", f.Key, f.Value)
		}
		if s := e.Stack; s != nil {
			fmt.Fprintf(&b, "\n\t%d frames: %v … %v", len(s.Frames), s.Frames[0], s.Frames[len(s.Frames)-1])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got (go test -update rewrites it)\n%s", golden, d)
	}
}

const head = "            init-1       [001] d....     2.632099: "

// fields makes fields of keys and values.
func fields(words ...string) (out []event.Field) {
	for i := 0; i < len(words); i += 2 {
		out = append(out, event.Field{Key: words[i], Value: words[i+1]})
	}
	return out
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       event.Event
	}{
		{"five columns", head + "task_rename: pid=136 oldcomm=init newcomm=child oom_score_adj=0",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "task_rename",
				Fields: fields("pid", "136", "oldcomm", "init", "newcomm", "child", "oom_score_adj", "0")}},
		{"four columns, narrow pid", "          <idle>-0     [000] dNh3  1234.000001: irq_handler_entry: irq=17 name=uart-pl011",
			event.Event{Task: "<idle>", PID: 0, CPU: 0, Flags: "dNh3", Time: 1234000001000, Name: "irq_handler_entry",
				Fields: fields("irq", "17", "name", "uart-pl011")}},
		{"thread group column", "           <...>-77      (     75) [003] .....    12.000000: x:",
			event.Event{Task: "<...>", PID: 77, CPU: 3, Flags: ".....", Time: 12e9, Name: "x"}},
		{"no flag columns", "            init-1       [001]     2.632099: x: a=1",
			event.Event{Task: "init", PID: 1, CPU: 1, Time: 2632099000, Name: "x", Fields: fields("a", "1")}},
		{"a clock that counts", "            init-1       [001] d....    4711: x: a=1",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 4711, Name: "x", Fields: fields("a", "1")}},
		{"a comm with everything in it", "a-1 [000] d.: x:-42      [001] d....     2.632099: y: a=1",
			event.Event{Task: "a-1 [000] d.: x:", PID: 42, CPU: 1, Flags: "d....", Time: 2632099000, Name: "y", Fields: fields("a", "1")}},
		{"a comm that commands the terminal", "       a\x1b]0;b\xff\x07-42      [001] d....     2.632099: y: a=\x1b[2J",
			event.Event{Task: "a�]0;b��", PID: 42, CPU: 1, Flags: "d....", Time: 2632099000, Name: "y", Fields: fields("a", "�[2J")}},
		{"columns lost in a paste", "init-1 [001] d.... 2.632099: x: a=1",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "x", Fields: fields("a", "1")}},
		{"names that look like fields", head + "sched_process_fork: comm=a pid=9 b= pid=1 child_comm=x child_pid= child_pid=136",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "sched_process_fork",
				Fields: fields("comm", "a pid=9 b=", "pid", "1", "child_comm", "x child_pid=", "child_pid", "136")}},
		{"a path that looks like fields", head + "sched_process_exec: filename=/a pid=1 old_pid=2 b pid=136 old_pid=136",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "sched_process_exec",
				Fields: fields("filename", "/a pid=1 old_pid=2 b", "pid", "136", "old_pid", "136")}},
		{"rename without a pid, empty name", head + "task_rename: oldcomm= newcomm=b oom_score_adj=-1000",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "task_rename",
				Fields: fields("oldcomm", "", "newcomm", "b", "oom_score_adj", "-1000")}},
		{"a kprobe event", head + `clone: (do_one+0x4/0x10 [m]) flags=0x5100 kt_name=(fault) s="a b="c" d" lr=f+0x74/0xb0`,
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "clone", At: "do_one+0x4/0x10 [m]",
				Fields: fields("flags", "0x5100", "kt_name", "(fault)", "s", `a b="c" d`, "lr", "f+0x74/0xb0")}},
		{"the function tracer", head + "kernel_clone <-__do_sys_clone",
			event.Event{Task: "init", PID: 1, CPU: 1, Flags: "d....", Time: 2632099000, Name: "function",
				Fields: fields("function", "kernel_clone", "caller", "__do_sys_clone")}},
	} {
		tr := parse(t, c.line+"\n")
		if len(tr.Events) != 1 || tr.BadLines != 0 {
			t.Errorf("%s: %d events, %v; want one", c.name, len(tr.Events), tr.Bad)
			continue
		}
		got := tr.Events[0]
		got.Text = ""
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestStackGoesToItsEvent(t *testing.T) {
	// An interrupt's event and stack, and another CPU's, come between an event
	// and its stack; the first stack's event was overwritten.
	tr := parse(t, strings.Join([]string{
		"# entries-in-buffer/entries-written: 7/9   #P:2",
		"            init-1       [001] d....     1.000000: <stack trace>",
		" => gone+0x1/0x2",
		"            init-1       [001] d....     1.000001: a: x=1",
		"            init-9       [000] d....     1.000002: b: x=1",
		"            init-1       [001] d.h..     1.000003: irq: x=1",
		"            init-1       [001] d.h..     1.000004: <stack trace>",
		" => of_irq+0x1/0x2",
		"            init-9       [000] d....     1.000005: <stack trace>",
		" => of_b+0x1/0x2",
		"            init-1       [001] d....     1.000006: <stack trace>",
		" => of_a+0x1/0x2",
		"            init-1       [001] d....     1.000007: <user stack trace>",
		" =>  <00007f0012345678>",
		"CPU:1 [LOST 12 EVENTS]",
		"CPU:0 [LOST EVENTS]",
		"            init-1       [001] d....     1.000008: c: x=1",
	}, "\n"))
	got := map[string]string{}
	for _, e := range tr.Events {
		got[e.Name] = ""
		if e.Stack != nil {
			got[e.Name] = e.Stack.Ftrace()
		}
	}
	want := map[string]string{"a": " => of_a+0x1/0x2\n", "b": " => of_b+0x1/0x2\n", "irq": " => of_irq+0x1/0x2\n", "c": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stacks: -want +got\n%s", d)
	}
	if tr.Lost != 13 || tr.BadLines != 0 {
		t.Errorf("lost %d, bad %v; want 13 and none", tr.Lost, tr.Bad)
	}
}

func TestBadLines(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	tr := parse(t, strings.Join([]string{
		head + "ok: a=1",
		"two",
		"            init-x       [001] d....     2.632099: x:",
		"            init-1       [001] d....     2.63209999999: x:",
		head + "no name here",
		long,
		"            init-7       [001] d....     1.000008: <stack trace>",
		"CPU:0 [LOST many EVENTS]",
		head + "ok: a=2",
		head + "<stack trace>",
		" => f+zz/0x1",
	}, "\n"))
	var got []int
	for _, b := range tr.Bad {
		got = append(got, b.Line)
	}
	if d := cmp.Diff([]int{2, 3, 4, 5, 6, 7, 8, 11}, got); d != "" || tr.BadLines != len(got) {
		t.Errorf("bad lines %d: -want +got\n%s", tr.BadLines, d)
	}
	if len(tr.Events) != 2 {
		t.Errorf("%d events, want the 2 good ones", len(tr.Events))
	}
	want := `trace text line 2: not "TASK-PID [CPU] FLAGS TIME: EVENT"`
	if got := tr.Bad[0].Error(); got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}

func TestBounds(t *testing.T) {
	if _, err := Parse(strings.NewReader(strings.Repeat(head+"x:\n", maxEvents+1))); err == nil {
		t.Errorf("%d events: no error", maxEvents+1)
	}
	tr := parse(t, head+"x: a=1\n"+head+"<stack trace>\n"+strings.Repeat(" => f\n", maxFrames+500))
	if got := len(tr.Events[0].Stack.Frames); got != maxFrames || tr.BadLines != 1 {
		t.Errorf("%d frames and %d bad lines, want %d and 1", got, tr.BadLines, maxFrames)
	}
	tr = parse(t, strings.Repeat("bad\n", maxBad+50))
	if len(tr.Bad) != maxBad || tr.BadLines != maxBad+50 {
		t.Errorf("kept %d of %d bad lines, want %d of %d", len(tr.Bad), tr.BadLines, maxBad, maxBad+50)
	}
	// Lines of nothing but what might end a value: quadratic work would hang here.
	for _, unit := range []string{" ", " a", " a=", `"`, ` "`} {
		line := head + "x: a=" + strings.Repeat(unit, (maxLine-200)/len(unit)) + "\n"
		if tr := parse(t, strings.Repeat(line, 20)); len(tr.Events) != 20 {
			t.Errorf("%d events of lines of %q, want 20", len(tr.Events), unit)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range goldens(f) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) > 3000 {
			text = text[:3000]
		}
		f.Add(text)
	}
	f.Add([]byte(head + `clone: (f+0x4/0x10 [m]) s="a b="c" d" lr=f+0x74/0xb0` + "\nCPU:0 [LOST 5 EVENTS]\n => x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tr, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		if n := len(tr.Events) + tr.BadLines; n > lines {
			t.Errorf("%d events and bad lines of %d lines", n, lines)
		}
		for i, e := range tr.Events {
			line := tr.Lines[i]
			for _, s := range []string{e.Task, e.Flags, e.At, e.Text} {
				if oneLine(s) != s {
					t.Errorf("line %d: %q is not clean", line, s)
				}
			}
			if line < 1 || line > lines || e.Name == "" || e.Time < 0 {
				t.Errorf("event %+v of %d lines", e, lines)
			}
		}
	})
}
