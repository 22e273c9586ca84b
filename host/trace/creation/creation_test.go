package creation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/clone"
	"labctl/host/golden"
	"labctl/host/stack"
	"labctl/host/trace/internal/kerneltext"
)

// traces are those of real kernels that package kerneltext is tested with.
func traces(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../internal/kerneltext/testdata/*.trace")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d traces, %v; want at least 8", len(files), err)
	}
	out := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".trace")] = string(text)
	}
	return out
}

func join(t testing.TB, text string) []Creation {
	t.Helper()
	tr, err := kerneltext.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if tr.BadLines > 0 {
		t.Fatalf("trace text: %v", tr.Bad)
	}
	got, err := Join(tr.Events)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGolden(t *testing.T) {
	for name, text := range traces(t) {
		got := Text(join(t, text))
		golden.Check(t, filepath.Join("testdata", name+".txt"), got)
	}
}

// calls are the base names of a stack's frames, machinery of the system call
// path that differs by architecture and age left out.
func calls(s stack.Stack) string {
	var names []string
	for _, f := range s.Frames {
		names = append(names, f.Base())
	}
	return strings.Join(names, " ")
}

// TestEveryKernelTellsTheSame holds the traces to what the guest's program did,
// whatever the goldens say.
func TestEveryKernelTellsTheSame(t *testing.T) {
	for name, text := range traces(t) {
		arm64, btf := strings.Contains(name, "arm64"), !strings.Contains(name, "nobtf")
		syscall := func(call string) string {
			if arm64 {
				return "kernel_clone __do_sys_" + call + " __arm64_sys_" + call
			}
			return "kernel_clone __do_sys_" + call + " do_syscall_64 entry_SYSCALL_64_after_hwframe"
		}
		fork := "fork"
		if arm64 {
			fork = "clone" // has no fork
		}
		chld, none := clone.Signal(17), clone.Signal(0)
		seen := map[string]int{}
		for _, c := range join(t, text) {
			check := func(what string, flags clone.Flags, sig *clone.Signal, via, stackStart string) {
				t.Helper()
				seen[what]++
				if c.Args == nil || c.Args.Flags != flags {
					t.Errorf("%s: %s has arguments %+v, want flags %v", name, what, c.Args, flags)
				} else if (btf || via == "fork") && sig != nil && (c.Args.ExitSignal == nil || *c.Args.ExitSignal != *sig) {
					t.Errorf("%s: %s has exit signal %v, want %v", name, what, c.Args.ExitSignal, *sig)
				} else if (!btf && via != "fork" || sig == nil) && c.Args.ExitSignal != nil {
					t.Errorf("%s: %s has exit signal %v, want none known", name, what, *c.Args.ExitSignal)
				}
				if got := calls(c.Stack); !strings.HasPrefix(got, stackStart) || c.Via != via || c.Stack.Truncated {
					t.Errorf("%s: %s by %q with stack %q, truncated %v; want by %q, %q…, whole", name, what, c.Via, got, c.Stack.Truncated, via, stackStart)
				}
				for _, n := range c.Notes {
					if btf {
						t.Errorf("%s: %s has note %q, want none", name, what, n)
					}
				}
			}
			switch {
			case c.Via == "worker":
				check("io_uring thread", 0x80810f00, nil, "worker", "copy_process create_io_thread io_")
				if c.Symbol != "copy_process" || !strings.HasPrefix(c.Child.Name, "iou-sqp-") || c.Child.Comm != "init" {
					t.Errorf("%s: io_uring thread is %+v by %s, want iou-sqp-… by copy_process", name, c.Child, c.Symbol)
				}
			case c.Child.Current() == "khugepaged":
				check("khugepaged", 0x800700, &chld, "kthread", "kernel_clone kernel_thread kthreadd ret_from_fork")
				if c.Requester != (Task{2, "kthreadd"}) {
					t.Errorf("%s: khugepaged made by %+v, want kthreadd-2", name, c.Requester)
				}
				r := c.AskedBy
				if r == nil {
					t.Errorf("%s: nobody asked for khugepaged", name)
				} else if r.Comm != "init" || r.Function != "khugepaged" || r.Format != "khugepaged" || r.Time >= c.Time ||
					!strings.HasPrefix(calls(r.Stack), "__kthread_create_on_node kthread_create_on_node start_stop_khugepaged enabled_store ") || r.Stack.Truncated {
					t.Errorf("%s: khugepaged asked for by %s", name, Text([]Creation{c}))
				}
			case c.Via == "kthread":
				// The kernel's own, at its own time.
				if !strings.HasPrefix(c.Child.Current(), "kworker/") {
					t.Errorf("%s: unexpected kernel thread %+v", name, c.Child)
				}
			case c.Child.Exec == "/child":
				check("process", 0x5100, &chld, "clone", syscall("clone"))
				if c.Child.Comm != "init" || c.Child.Name != "child" || c.Requester.Comm != "init" {
					t.Errorf("%s: process is %+v of %+v, want init, now child, of init", name, c.Child, c.Requester)
				}
			case c.Args.Flags == 0x5100:
				check("trial of os.StartProcess", 0x5100, &none, "clone", syscall("clone"))
			case c.Args.Flags == 0 && c.Via == "clone3":
				check("clone3", 0, &chld, "clone3", syscall("clone3"))
			case c.Args.Flags == 0:
				check("fork", 0, &chld, fork, syscall(fork))
			default:
				flags := clone.Flags(0xd0f00)
				if arm64 {
					flags = 0x50f00
				}
				check("thread", flags, &none, "clone", syscall("clone"))
			}
		}
		for what, want := range map[string]int{"process": 1, "trial of os.StartProcess": 1, "fork": 1, "clone3": 1, "khugepaged": 1, "io_uring thread": 1} {
			if seen[what] != want {
				t.Errorf("%s: %d of %s, want %d", name, seen[what], what, want)
			}
		}
		if seen["thread"] < 4 {
			t.Errorf("%s: %d threads, want at least 4", name, seen["thread"])
		}
		// One call entered kernel_clone and failed there.
		if entered, made := strings.Count(text, ": clone: "), strings.Count(text, ": sched_process_fork: "); made >= entered {
			t.Errorf("%s: %d entries for %d tasks, want more: a call failed", name, entered, made)
		}
	}
}

// TestText: every stack is in the text, whole and in order, and no other is.
func TestText(t *testing.T) {
	for name, text := range traces(t) {
		made := join(t, text)
		rest, stacks := Text(made), 0
		if got := strings.Count(rest, "-000|"); got == 0 {
			t.Errorf("%s: the text has no stack", name)
		}
		next := func(s *stack.Stack) {
			stacks++
			before, after, ok := strings.Cut(rest, s.TRACE32())
			if !ok || strings.Contains(before, "-000|") {
				t.Fatalf("%s: after %d stacks of the text comes not\n%sbut\n%s", name, stacks-1, s.TRACE32(), rest)
			}
			rest = after
		}
		for i := range made {
			next(&made[i].Stack)
			if r := made[i].AskedBy; r != nil {
				next(&r.Stack)
			}
		}
		if strings.Contains(rest, "-000|") {
			t.Errorf("%s: more than %d stacks:\n%s", name, stacks, rest)
		}
	}
}

func TestJSON(t *testing.T) {
	for name, text := range traces(t) {
		want := join(t, text)
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		var got []Creation
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

// The cases below are ones that no kernel at hand shows on demand. Their lines
// have the form of the real ones.

const (
	at    = "            init-1       [001] d....     %: "
	kt    = "        kthreadd-2       [000] d....     %: "
	stk   = "<stack trace>\n => kernel_clone+0x1/0x3f0\n => __do_sys_clone+0x60/0x80\n => entry_SYSCALL_64_after_hwframe+0x67/0xd1\n"
	ktstk = "<stack trace>\n => kernel_clone+0x1/0x3f0\n => kernel_thread+0x60/0x80\n => kthreadd+0x1/0x2\n => ret_from_fork+0x22/0x30\n"
)

// script puts a time into each line, a millisecond apart from the one before.
func script(lines ...string) string {
	var b strings.Builder
	for i, l := range lines {
		b.WriteString(strings.Replace(l, "%", "1."+string(rune('0'+i/10))+string(rune('0'+i%10))+"0000", 1) + "\n")
	}
	return b.String()
}

func TestPairing(t *testing.T) {
	made := join(t, script(
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x100 exit_signal=0", // fails
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x0 exit_signal=17",  // a signal comes
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x0 exit_signal=17",
		"            init-9       [000] d....     %: clone: (kernel_clone+0x0/0x3f0) flags=0x200 exit_signal=10",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50",
		at+stk,
		"            init-9       [000] d....     %: sched_process_fork: comm=init pid=9 child_comm=init child_pid=51",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=52", // entered before the trace
		at+"task_rename: pid=50 oldcomm=init newcomm=first oom_score_adj=0",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50", // the number again
		"          second-50      [001] d....     %: task_rename: oldcomm=init newcomm=second oom_score_adj=0",
	))
	type row struct {
		child, entered int
		text, name     string
		notes          int
	}
	var got []row
	for _, c := range made {
		r := row{child: c.Child.TID, entered: c.Entered, name: c.Child.Name, notes: len(c.Notes)}
		if c.Args != nil {
			r.text = c.Args.Text
		}
		got = append(got, r)
	}
	want := []row{
		{50, 2, "SIGCHLD", "first", 0},
		{51, 1, "CLONE_FS|SIGUSR1", "", 0},
		{52, 0, "", "", 1},
		{50, 0, "", "second", 1},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(row{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestOrder: creations come out by time, those of one time as they were traced.
func TestOrder(t *testing.T) {
	fork := func(time, child string) string {
		return strings.Replace(at, "%", time, 1) + "sched_process_fork: comm=init pid=1 child_comm=init child_pid=" + child + "\n"
	}
	var got []int
	for _, c := range join(t, strings.Replace(at, "%", "1.000001", 1)+"task_newtask: pid=50 comm=init clone_flags=100 oom_score_adj=0\n"+
		fork("1.000003", "51")+fork("1.000003", "52")+fork("1.000002", "53")+fork("1.000003", "54")+fork("1.000004", "50")) {
		got = append(got, c.Child.TID)
	}
	if want := []int{53, 51, 52, 54, 50}; !slices.Equal(got, want) {
		t.Errorf("children %v, want %v", got, want)
	}
}

// TestNamesOfThatMoment: the name that a line begins with is the task's last one.
func TestNamesOfThatMoment(t *testing.T) {
	made := join(t, script(
		strings.Replace(at, "init-1", "late-1", 1)+"task_newtask: pid=50 comm=early clone_flags=100 oom_score_adj=0",
		strings.Replace(at, "init-1", "late-1", 1)+"task_rename: pid=1 oldcomm=early newcomm=late oom_score_adj=0",
		strings.Replace(at, "init-1", "late-1", 1)+"task_newtask: pid=51 comm=late clone_flags=100 oom_score_adj=0",
		strings.Replace(at, "init-1", "last-1", 1)+"task_rename: pid=1 oldcomm=late newcomm=last oom_score_adj=0",
		strings.Replace(at, "init-1", "else-2", 1)+"task_newtask: pid=52 comm=else clone_flags=100 oom_score_adj=0",
	))
	var got []string
	for _, c := range made {
		got = append(got, c.Requester.Comm)
	}
	if want := []string{"early", "late", "else"}; !slices.Equal(got, want) {
		t.Errorf("requesters %q, want %q", got, want)
	}
}

// TestEntered: a call that starts again has the same arguments, wherever else the
// two entries differ.
func TestEntered(t *testing.T) {
	for _, c := range []struct {
		first, second string
		want          int
	}{
		{"flags=0x100 exit_signal=17 lr=a+0x1/0x2", "flags=0x100 exit_signal=17 lr=b+0x1/0x2", 2},
		{"flags=0x100 exit_signal=17", "flags=0x200 exit_signal=17", 1},
		{"flags=0x100 exit_signal=17", "flags=0x100 exit_signal=10", 1},
		{"clone_flags=0x100", "clone_flags=0x200", 1},
		{"flags=0x100 stack=0x1000", "flags=0x100 stack=0x2000", 1},
	} {
		made := join(t, script(
			at+"clone: (kernel_clone+0x0/0x3f0) "+c.first,
			at+"clone: (kernel_clone+0x0/0x3f0) "+c.second,
			at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50"))
		if len(made) != 1 || made[0].Entered != c.want {
			t.Errorf("%s, then %s: entered %d times, want %d", c.first, c.second, made[0].Entered, c.want)
		}
	}
}

func TestArgumentsByWhatTheSymbolShows(t *testing.T) {
	for _, c := range []struct{ name, fields, want string }{
		{"struct", "flags=0x4100 exit_signal=17", "CLONE_VM|CLONE_VFORK|SIGCHLD"},
		{"struct without BTF", "flags=0x1200000", "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID"},
		{"clone3's flag within CSIGNAL", "flags=0x80 exit_signal=0", "CLONE_NEWTIME"},
		{"by value", "clone_flags=0x1200011", "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"},
		{"_do_fork by value", "clone_flags=0x1200011 flags=(fault)", "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"},
		{"_do_fork by value, readable there", "clone_flags=0x1200011 flags=0x7f454c46", "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"},
		{"_do_fork by value, no signal, readable there", "clone_flags=0x1200000 flags=0x7f454c46", "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID"},
		{"_do_fork with a struct", "clone_flags=0xffffc90000013e98 flags=0x4100", "CLONE_VM|CLONE_VFORK"},
		{"_do_fork with a struct, arm", "clone_flags=0xb9e51ef0 flags=0x4100", "CLONE_VM|CLONE_VFORK"},
		{"_do_fork by value, arm, CLONE_IO", "clone_flags=0x80000011 flags=0x4100", "CLONE_IO|SIGCHLD"},
		{"fault", "flags=(fault) exit_signal=0", ""},
	} {
		made := join(t, script(at+"clone: (_do_fork+0x0/0x3f0) "+c.fields,
			at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50"))
		got := ""
		if made[0].Args != nil {
			got = made[0].Args.Text
		}
		if got != c.want || (got == "") != (len(made[0].Notes) > 0) {
			t.Errorf("%s: %q with notes %q, want %q", c.name, got, made[0].Notes, c.want)
		}
		if made[0].Symbol != "_do_fork" {
			t.Errorf("%s: symbol %q, want _do_fork", c.name, made[0].Symbol)
		}
	}
}

// TestExitSignalOfTheCall: what the structure does not show, the system call does.
func TestExitSignalOfTheCall(t *testing.T) {
	for _, c := range []struct{ name, call, args, way, want string }{
		{"clone", "clone_flags=0x411", "flags=0x400", "sys_clone", "CLONE_FILES|SIGCHLD"},
		{"no signal", "clone_flags=0x400", "flags=0x400", "sys_clone", "CLONE_FILES"},
		{"fork", "", "flags=0x0", "sys_fork", "SIGCHLD"},
		{"another call's", "clone_flags=0x211", "flags=0x400", "sys_clone", "CLONE_FILES, not known"},
		{"not traced", "", "flags=0x400", "sys_clone", "CLONE_FILES, not known"},
		{"clone3 after a clone that failed", "clone_flags=0x411", "flags=0x400", "sys_clone3", "CLONE_FILES, not known"},
		{"known", "clone_flags=0x411", "flags=0x400 exit_signal=10", "sys_clone", "CLONE_FILES|SIGUSR1"},
	} {
		var lines []string
		if c.call != "" {
			lines = append(lines, at+"clone_call: (sys_clone+0x0/0x80) "+c.call)
		}
		lines = append(lines, at+"clone: (kernel_clone+0x0/0x3f0) "+c.args,
			at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50",
			at+"<stack trace>", " => kernel_clone", " => "+c.way, " => ret_fast_syscall")
		made := join(t, script(lines...))
		if len(made) != 1 || made[0].Args == nil {
			t.Fatalf("%s: %+v", c.name, made)
		}
		got := made[0].Args.Text
		if made[0].Args.ExitSignal == nil {
			got += ", not known"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRequestIsMatchedByFunctionAndData(t *testing.T) {
	ask := func(pid, data, name string) string {
		return "            init-" + pid + "       [001] d....     %: kthread_request: (__kthread_create_on_node+0x0/0x1e0) threadfn=0xffff1000 data=" + data + ` namefmt="` + name + `" threadfn_sym=worker_thread+0x0/0x3e0`
	}
	enter := func(data string) string {
		return kt + "clone: (kernel_clone+0x0/0x3f0) flags=0x800700 exit_signal=17 kt_threadfn=0xffff1000 kt_data=" + data
	}
	made := func(child string) string {
		return kt + "sched_process_fork: comm=kthreadd pid=2 child_comm=kthreadd child_pid=" + child
	}
	text := script(
		ask("5", "0xffff0001", "a/%d"), ask("6", "0xffff0002", "b"), ask("7", "0xffff0003", "c/%d"), ask("8", "0xffff0002", "d"),
		enter("0xffff0002"), made("60"), kt+ktstk,
		enter("0xffff0001"), made("61"), kt+ktstk,
		enter("0xffff0009"), made("62"), kt+ktstk, // asked for before the trace
		enter("(fault)"), made("63"), kt+ktstk, // only the order is left
		"            init-7       [001] d....     %: task_rename: pid=63 oldcomm=kthreadd newcomm=c/3 oom_score_adj=0",
	)
	type row struct {
		child  int
		name   string
		asker  int
		byName string
		notes  int
	}
	var got []row
	for _, c := range join(t, text) {
		r := row{child: c.Child.TID, name: c.Child.Name, notes: len(c.Notes)}
		if c.AskedBy != nil {
			r.asker, r.byName = c.AskedBy.TID, c.AskedBy.Function
		}
		got = append(got, r)
	}
	want := []row{{60, "b", 6, "worker_thread", 0}, {61, "", 5, "worker_thread", 0}, {62, "", 0, "", 0}, {63, "c/3", 7, "worker_thread", 1}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(row{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestRequestNames has what a kernel thread may be called before it runs.
func TestRequestNames(t *testing.T) {
	const ask = at + `kthread_request: (__kthread_create_on_node+0x0/0x1e0) threadfn=0xffff1000 data=0x1`
	const enter = kt + "clone: (kernel_clone+0x0/0x3f0) flags=0x800700 kt_threadfn=0xffff1000 kt_data=0x1"
	const made = kt + "sched_process_fork: comm=kthreadd pid=2 child_comm=kthreadd child_pid=60"
	for _, c := range []struct {
		name, ask, enter, made string
		child, function        string
	}{
		{"by the request", ask + ` namefmt="a"`, enter, made, "a", "0xffff1000"},
		{"by the struct", ask + ` namefmt="a/%d"`, enter + ` kt_name="a/1"`, made, "a/1", "0xffff1000"},
		{"by an unreadable struct", ask + ` namefmt="a"`, enter + ` kt_name=(fault)`, made, "a", "0xffff1000"},
		{"already its own", ask + ` namefmt="a"`, enter, strings.Replace(made, "child_comm=kthreadd", "child_comm=b", 1), "b", "0xffff1000"},
		{"without a format", ask, enter, made, "kthreadd", "0xffff1000"},
		{"function known", ask + " threadfn_sym=f+0x0/0x8", enter, made, "kthreadd", "f"},
		{"function without a symbol", ask + " threadfn_sym=0xffff1000", enter, made, "kthreadd", "0xffff1000"},
	} {
		all := join(t, script(c.ask, c.enter, c.made, kt+ktstk))
		if len(all) != 1 || all[0].AskedBy == nil {
			t.Errorf("%s: %+v, want a request", c.name, all)
			continue
		}
		if child, f := all[0].Child.Current(), all[0].AskedBy.Function; child != c.child || f != c.function {
			t.Errorf("%s: child %q, function %q, want %q, %q", c.name, child, f, c.child, c.function)
		}
	}
}

// TestRequestStacks: the request's own function has arguments, and no other.
func TestRequestStacks(t *testing.T) {
	for stk, want := range map[string]string{
		"\n => x+0x1/0x2\n => __kthread_create_on_node+0x1/0x2\n => f+0x1/0x2": "-000|__kthread_create_on_node(threadfn = 0x1, data = 0x2, namefmt = \"a\", ...)\n-001|f(...)\n ---|end of frame  // truncated\n",
		"\n => f+0x1/0x2": "-000|f(...)\n ---|end of frame  // truncated\n",
		"\n => 0":         " ---|end of frame  // truncated\n",
	} {
		made := join(t, script(
			at+`kthread_request: (__kthread_create_on_node+0x0/0x1e0) threadfn=0x1 data=0x2 namefmt="a"`, at+"<stack trace>"+stk,
			kt+"clone: (kernel_clone+0x0/0x3f0) flags=0x800700", kt+"sched_process_fork: comm=kthreadd pid=2 child_comm=kthreadd child_pid=60", kt+ktstk))
		if len(made) != 1 || made[0].AskedBy == nil {
			t.Fatalf("%q: %+v, want a request", stk, made)
		}
		if got := made[0].AskedBy.Stack.TRACE32(); got != want {
			t.Errorf("%q: the request's stack is\n%swant\n%s", stk, got, want)
		}
	}
}

// TestRequestBound: of requests that nobody answers the oldest are forgotten.
func TestRequestBound(t *testing.T) {
	for n, want := range map[int]bool{maxRequests: true, maxRequests + 1: false} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%skthread_request: (__kthread_create_on_node+0x0/0x1e0) threadfn=0xf data=%#x\n", strings.Replace(at, "%", "1.000000", 1), i+1)
		}
		made := join(t, b.String()+script(
			kt+"clone: (kernel_clone+0x0/0x3f0) flags=0x800700 kt_threadfn=0xf kt_data=0x1",
			kt+"sched_process_fork: comm=kthreadd pid=2 child_comm=kthreadd child_pid=60", kt+ktstk))
		if got := len(made) == 1 && made[0].AskedBy != nil; got != want {
			t.Errorf("the first of %d requests is known: %t, want %t", n, got, want)
		}
	}
}

// TestSkippedCreationFunction has what 6.1 armmp traces: the stacks at trace
// points lack the function that the trace point is in.
func TestSkippedCreationFunction(t *testing.T) {
	const outer = "\n => sys_clone+0x78/0x9c\n => ret_fast_syscall+0x0/0x1c"
	const creation = "\n => kernel_clone+0x0/0x3c4"
	for _, tt := range []struct {
		name, entry string
		want        []string
		notes       int
	}{
		{"the rest agrees", creation + outer, []string{"kernel_clone", "sys_clone", "ret_fast_syscall"}, 0},
		{"with the user's registers", creation + outer + "\n => 0xb6f00000", []string{"kernel_clone", "sys_clone", "ret_fast_syscall"}, 0},
		{"nor has the entry's", "\n => kprobe_handler+0x1/0x2" + outer, []string{"sys_clone", "ret_fast_syscall"}, 1},
		{"the entry's has no frames", "", []string{"sys_clone", "ret_fast_syscall"}, 0},
		{"the rest differs", creation + "\n => sys_vfork+0x10/0x20\n => ret_fast_syscall+0x0/0x1c", []string{"kernel_clone", "sys_vfork", "ret_fast_syscall"}, 1},
		{"the entry's ends early", creation, []string{"sys_clone", "ret_fast_syscall"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			made := join(t, script(
				at+"clone: (kernel_clone+0x0/0x3c4) flags=0x100",
				at+"<stack trace>"+tt.entry,
				at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50",
				at+"<stack trace>"+outer,
			))
			if len(made) != 1 {
				t.Fatalf("%d creations; want 1", len(made))
			}
			var got []string
			for _, f := range made[0].Stack.Frames {
				got = append(got, f.Name)
			}
			if d := cmp.Diff(tt.want, got); d != "" || len(made[0].Notes) != tt.notes {
				t.Errorf("frames -want +got\n%s notes %q; want %d", d, made[0].Notes, tt.notes)
			}
		})
	}
}

// TestFramePointersOf319 has what 3.19 built with frame pointers traces: at the function's
// entry the stack lacks function and caller, at the event the function.
func TestFramePointersOf319(t *testing.T) {
	made := join(t, script(
		at+"clone: (do_fork+0x0/0x320) clone_flags=0x11", at+"<stack trace>\n => stub_clone+0x69/0x90",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50",
		at+"<stack trace>\n => SyS_clone+0x16/0x20\n => stub_clone+0x69/0x90",
	))
	if len(made) != 1 {
		t.Fatalf("%d creations; want 1", len(made))
	}
	c := made[0]
	if got := calls(c.Stack); got != "do_fork SyS_clone stub_clone" || c.Skipped != 1 || c.Via != "clone" || len(c.Notes) > 0 || c.Stack.Truncated {
		t.Errorf("stack %q, skipped %d, via %q, truncated %v, notes %q", got, c.Skipped, c.Via, c.Stack.Truncated, c.Notes)
	}
	if last := c.Stack.Frames[2]; !last.Exception || last.Kind != stack.Asm {
		t.Errorf("stub_clone is %+v; want the entry from user mode", last)
	}
}

// TestConstantSkip has what 4.14 traces: the stacks of events lack several inner
// functions, those of probes are whole.
func TestConstantSkip(t *testing.T) {
	const outer = "\n => do_syscall_64+0x73/0x130\n => entry_SYSCALL_64_after_hwframe+0x3d/0xa2"
	entry := func(who, symbol string) string { return who + "clone: (" + symbol + "+0x0/0x3c4) clone_flags=0x11" }
	fork := func(who, pid, child string) string {
		return who + "sched_process_fork: comm=init pid=" + pid + " child_comm=init child_pid=" + child
	}
	made := join(t, script(
		entry(at, "_do_fork"), at+"<stack trace>\n => _do_fork+0x1/0x3c4\n => SyS_clone+0x19/0x20"+outer,
		fork(at, "1", "50"), at+"<stack trace>"+outer,
		entry(kt, "_do_fork"), kt+"<stack trace>\n => _do_fork+0x1/0x3c4\n => kernel_thread+0x29/0x30\n => kthreadd+0x1/0x2\n => ret_from_fork+0x35/0x40",
		fork(kt, "2", "60"), kt+"<stack trace>\n => kthreadd+0x1/0x2\n => ret_from_fork+0x35/0x40",
		// No entry of its own: the tracer has left out too much.
		fork(at, "1", "51"), at+"<stack trace>"+outer,
		// A call that fails, and an io_uring worker, which does not go through _do_fork.
		entry(at, "_do_fork"), at+"<stack trace>\n => _do_fork+0x1/0x3c4\n => SyS_clone+0x19/0x20"+outer,
		fork(at, "1", "52"), at+"<stack trace>\n => create_io_thread+0x1/0x2\n => io_wq_create+0x1/0x2\n => ret_from_fork+0x35/0x40",
	))
	type row struct {
		calls, via, symbol string
		skipped            int
	}
	var got []row
	for _, c := range made {
		got = append(got, row{calls(c.Stack), c.Via, c.Symbol, c.Skipped})
	}
	want := []row{
		{"_do_fork SyS_clone do_syscall_64 entry_SYSCALL_64_after_hwframe", "clone", "_do_fork", 2},
		{"_do_fork kernel_thread kthreadd ret_from_fork", "kthread", "_do_fork", 2},
		{"do_syscall_64 entry_SYSCALL_64_after_hwframe", "", "", 0},
		{"create_io_thread io_wq_create ret_from_fork", "worker", "_do_fork", 0},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(row{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestDisagreementsAreNoted(t *testing.T) {
	made := join(t, script(
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x100 exit_signal=17 lr=elsewhere+0x1/0x2",
		at+"<stack trace>\n => kprobe_handler+0x1/0x2\n => kernel_clone+0x0/0x3f0\n => entry_SYSCALL_64_after_hwframe+0x67/0xd1",
		at+"task_newtask: pid=50 comm=init clone_flags=300 oom_score_adj=0",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50",
		at+stk,
	))
	want := []string{
		"the stack at the function's entry differs at frame 1: elsewhere+0x1/0x2, not __do_sys_clone+0x60/0x80",
		"task_newtask has other flags: CLONE_VM|CLONE_FS",
	}
	if len(made) != 1 {
		t.Fatalf("%d creations, want 1", len(made))
	}
	if d := cmp.Diff(want, made[0].Notes); d != "" {
		t.Errorf("notes: -want +got\n%s", d)
	}
	made = join(t, script(
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x100", at+stk,
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=50", at+"<stack trace>\n => kernel_clone+0x1/0x3f0\n => __do_sys_clone+0x60/0x80"))
	want = []string{"the stack at the function's entry differs at frame 2: entry_SYSCALL_64_after_hwframe+0x67/0xd1, not its end"}
	if d := cmp.Diff(want, made[0].Notes); d != "" {
		t.Errorf("notes on a short stack: -want +got\n%s", d)
	}
}

func TestOtherWaysIn(t *testing.T) {
	made := join(t, script(
		at+"sched_process_fork: comm=kworker/u4:0 pid=1 child_comm=kworker/u4:0 child_pid=50",
		at+"<stack trace>\n => kernel_clone+0x1/0x2\n => user_mode_thread+0x1/0x2\n => call_usermodehelper_exec_work+0x1/0x2\n => kthread+0x1/0x2\n => ret_from_fork+0x1/0x2",
		at+"task_newtask: pid=0 comm=swapper/0 clone_flags=100 oom_score_adj=0",
		at+"<stack trace>\n => copy_process+0x1/0x2\n => fork_idle+0x1/0x2\n => ret_from_fork+0x1/0x2",
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=51",
		at+"<stack trace>\n => 0\n => 0",                                // nothing but end marks
		at+"clone: (kernel_clone+0x0/0x3f0) flags=0x100 exit_signal=17", // no stack of the fork: the entry's is taken
		at+stk,
		at+"sched_process_fork: comm=init pid=1 child_comm=init child_pid=52",
	))
	var got []string
	for _, c := range made {
		got = append(got, c.Via+": "+calls(c.Stack))
	}
	want := []string{
		"kernel: kernel_clone user_mode_thread call_usermodehelper_exec_work kthread ret_from_fork",
		"idle: copy_process fork_idle ret_from_fork",
		": ",
		"clone: kernel_clone __do_sys_clone entry_SYSCALL_64_after_hwframe",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestJoinErrors(t *testing.T) {
	for line, want := range map[string]string{
		at + "sched_process_fork: nothing":                               "join task creations: event sched_process_fork at 1.000000 on CPU 1 has no field child_pid",
		at + "sched_process_fork: comm=a pid=x child_comm=b child_pid=2": `join task creations: event sched_process_fork at 1.000000 on CPU 1: field pid is "x", not a 32-bit number`,
		at + "task_newtask: comm=a":                                      "join task creations: event task_newtask at 1.000000 on CPU 1 has no field pid",
		at + "task_newtask: pid=4 comm=a clone_flags=zz oom_score_adj=0": `join task creations: event task_newtask at 1.000000 on CPU 1: field clone_flags is "zz", not a hexadecimal number`,
		at + "task_rename: pid=4":                                        "join task creations: event task_rename at 1.000000 on CPU 1 has no field newcomm",
		at + "sched_process_exec: filename=/x":                           "join task creations: event sched_process_exec at 1.000000 on CPU 1 has no field pid",
	} {
		tr, err := kerneltext.Parse(strings.NewReader(script(line)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Join(tr.Events); err == nil || err.Error() != want {
			t.Errorf("Join of %q: %v, want %s", line, err, want)
		}
	}
}

func FuzzJoin(f *testing.F) {
	for _, text := range traces(f) {
		if i := strings.Index(text, ": kthread_request:"); i > 0 {
			f.Add([]byte(text[i-50:]))
		}
		f.Add([]byte(text[:4000]))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tr, err := kerneltext.Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		made, err := Join(tr.Events)
		if err != nil {
			return
		}
		if len(made) > len(tr.Events) {
			t.Errorf("%d creations of %d events", len(made), len(tr.Events))
		}
		for i := range made {
			if i > 0 && made[i].Time < made[i-1].Time {
				t.Errorf("creation %d is before creation %d", i, i-1)
			}
		}
		if _, err := json.Marshal(made); err != nil {
			t.Error(err)
		}
		Text(made)
	})
}
