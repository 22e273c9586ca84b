package collect

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/decode"
	"labctl/host/trace/event"
	"labctl/host/trace/internal/kerneltext"
	"labctl/host/trace/plan"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// guest is a machine that is recorded.
type guest struct {
	*testing.T
	vm     *vm.VM
	kernel *kernel.Kernel
}

func boot(t *testing.T, spec machine.Spec) *guest {
	t.Helper()
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	m, err := machine.Prepare(t.Context(), env, spec)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return &guest{t, v, m.Kernel}
}

func (g *guest) start(p wire.CaptureParams) *Collection {
	g.Helper()
	r, err := Start(g.Context(), g.vm.Agent(), g.kernel, p)
	if err != nil {
		g.Fatal(g.vm.Why(err))
	}
	for _, m := range r.Armed.Missing {
		g.Errorf("%s is missing: %s", m.What, m.Why)
	}
	return r
}

// run runs a program to its end, recorded by the instance unless that is empty.
func (g *guest) run(instance string, argv ...string) (out string, pid int) {
	g.Helper()
	var buf bytes.Buffer
	res, err := g.vm.Agent().Exec(g.Context(), wire.ExecParams{Argv: argv, Instance: instance}, agent.IO{Stdout: &buf, Stderr: &buf})
	if err != nil || !res.Exited || res.Code != 0 {
		g.Fatalf("%q = %+v, %v\n%s", argv, res, g.vm.Why(err), buf.String())
	}
	return buf.String(), res.PID
}

func (g *guest) read(path string) string {
	g.Helper()
	var buf bytes.Buffer
	if err := g.vm.Agent().ReadFile(g.Context(), path, 64<<20, &buf); err != nil {
		g.Fatal(g.vm.Why(err))
	}
	return buf.String()
}

func (g *guest) stop(r *Collection) *Result {
	g.Helper()
	res, err := r.Stop(g.Context())
	if err != nil {
		g.Fatal(g.vm.Why(err))
	}
	g.Cleanup(func() { res.Close() })
	return res
}

// events decodes a result.
func (g *guest) events(res *Result) (*decode.Decoder, []*decode.Event) {
	g.Helper()
	d, err := decode.Open(res.Capture)
	if err != nil {
		g.Fatal(err)
	}
	var events []*decode.Event
	for e, err := range d.Events() {
		if err != nil {
			g.Errorf("decode: %v", err)
			continue
		}
		kept := *e // of what the next iteration overwrites, tests look at these two
		kept.Data, kept.Stack = slices.Clone(e.Data), slices.Clone(e.Stack)
		events = append(events, &kept)
	}
	return d, events
}

// named picks events by name.
func named(events []*decode.Event, name string) (out []*decode.Event) {
	for _, e := range events {
		if e.Name() == name {
			out = append(out, e)
		}
	}
	return out
}

func number(t *testing.T, e *decode.Event, field string) int {
	t.Helper()
	n, err := e.Int(field)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

var (
	clone = wire.Kprobe{Event: "clone", Alternatives: []wire.KprobeTry{{Symbol: "kernel_clone"}, {Symbol: "_do_fork"}}}
	sched = wire.CaptureEvent{Name: "sched"}
	fork  = wire.CaptureEvent{Name: "sched/sched_process_fork", Stack: true}
)

const probePath = "/labctl/labprobe"

// machines has each architecture, the oldest kernel and the newest.
// LABCTL_CAPTURE_ALL=1 has all that are in the README.
func machines() []machine.Spec {
	specs := []machine.Spec{{Arch: "amd64", Kernel: "5.10"}, {Arch: "arm64", Kernel: "7.2"}}
	if os.Getenv("LABCTL_CAPTURE_ALL") != "" {
		specs = nil
		for _, arch := range []string{"amd64", "arm64"} {
			for _, series := range []string{"5.10", "6.1", "6.12", "7.2"} {
				specs = append(specs, machine.Spec{Arch: arch, Kernel: series})
			}
		}
	}
	return specs
}

func TestCapture(t *testing.T) {
	for _, spec := range machines() {
		t.Run(spec.Arch+" "+spec.Kernel, func(t *testing.T) {
			g := boot(t, spec)
			before := g.state()
			for _, tt := range []struct {
				name string
				test func(*guest)
			}{
				{"everybody", everybody},
				{"one program", oneProgram},
				{"several at once", several},
				{"the kernel's text", kernelText},
				{"functions", functions},
				{"function graph", functionGraph},
				{"bounds", bounds},
				{"all symbols", allSymbols},
				{"sleepers", sleepers},
			} {
				if !t.Run(tt.name, func(t *testing.T) { tt.test(&guest{t, g.vm, g.kernel}) }) {
					return
				}
			}
			// The next capture waits until the one before is gone.
			g.stop(g.start(wire.CaptureParams{Instance: "last"}))
			g.stop(g.start(wire.CaptureParams{Instance: "last"}))
			if after := g.state(); after != before {
				t.Errorf("tracefs after the captures:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// state is what captures share, and must leave as they found it.
func (g *guest) state() (s string) {
	g.Helper()
	for _, f := range []string{"kprobe_events", "saved_cmdlines_size", "set_graph_function", "current_tracer", "tracing_on", "trace_clock", "set_event", "set_event_pid"} {
		s += f + ": " + g.read("/sys/kernel/tracing/"+f) + "\n"
	}
	// A buffer that was never used may be made, not smaller than it would be then.
	size := strings.TrimSpace(g.read("/sys/kernel/tracing/buffer_size_kb"))
	if kb, err := strconv.Atoi(size); err == nil && kb < 1000 {
		g.Errorf("the top instance's buffer has %d KB", kb)
	}
	return s
}

func everybody(g *guest) {
	r := g.start(wire.CaptureParams{
		Instance: "one", Events: []wire.CaptureEvent{{Name: "sched/sched_process_exit", Filter: "pid != 99999"}, fork, {Name: "labctl/clone", Stack: true}},
		Probes: []wire.Kprobe{clone},
	})
	_, pid := g.run("", probePath, "fork")
	res := g.stop(r)
	d, events := g.events(res)
	forks := slices.DeleteFunc(named(events, "sched_process_fork"), func(e *decode.Event) bool { return e.PID != pid })
	if len(forks) == 0 || len(forks[0].Stack) == 0 {
		g.Fatalf("%d forks of %d among %d events; want one, with a stack", len(forks), pid, len(events))
	}
	var names []string
	for _, f := range d.Frames(forks[0].Stack) {
		names = append(names, f.Name)
	}
	if !slices.Contains(names, "kernel_clone") {
		g.Errorf("stack of a fork = %q; want kernel_clone in it", names)
	}
	if clones := named(events, "clone"); len(clones) == 0 || len(clones[0].Stack) == 0 || clones[0].Format.System != "labctl" {
		g.Errorf("%d events of the probe labctl/clone; want some, with stacks", len(clones))
	}
	if got := d.Comm(pid); got != "labprobe" {
		g.Errorf("task %d is %q; want labprobe", pid, got)
	}
	if tgid, ok := d.Tgid(pid); !ok || tgid != pid {
		g.Errorf("thread group of %d = %d, %v; want itself", pid, tgid, ok)
	}
	if exits := named(events, "sched_process_exit"); len(exits) == 0 {
		g.Error("no sched_process_exit at all")
	}
	if res.Lost() != 0 {
		g.Errorf("%d events lost: %+v", res.Lost(), res.Stopped)
	}
}

// oneProgram records a program and its child, and nobody else.
func oneProgram(g *guest) {
	r := g.start(wire.CaptureParams{Instance: "mine", PIDOnly: true, Events: []wire.CaptureEvent{sched}, Probes: []wire.Kprobe{clone}})
	g.run("", probePath, "fork")
	_, pid := g.run("mine", probePath, "fork")
	g.run("", probePath, "fork")
	d, events := g.events(g.stop(r))

	// Before the program are the few events of the agent's own that becomes it.
	family := map[int]bool{pid: true}
	kids := 0
	for _, e := range named(events, "sched_process_fork") {
		if family[number(g.T, e, "parent_pid")] {
			family[number(g.T, e, "child_pid")] = true
			kids++
		}
	}
	if kids == 0 {
		g.Error("no child of the program in the capture")
	}
	for _, e := range events {
		// Who runs, or who is woken or switched to.
		ours := family[e.PID]
		for _, field := range []string{"pid", "next_pid", "prev_pid", "child_pid"} {
			if e.Format.Field(field) != nil {
				ours = ours || family[number(g.T, e, field)]
			}
		}
		if !ours {
			g.Errorf("%s of task %d (%s) in the capture of %d and its children: %s", e.Name(), e.PID, d.Comm(e.PID), pid, d.Text(e))
		}
	}
	for _, e := range named(events, "clone") {
		if !family[e.PID] {
			g.Errorf("probe event of task %d in the capture of %d", e.PID, pid)
		}
	}
	if len(named(events, "clone")) == 0 {
		g.Error("no event of the probe")
	}
	execs := named(events, "sched_process_exec")
	if len(execs) == 0 {
		g.Fatal("no sched_process_exec: the program's own start is missing")
	}
	if file, err := execs[0].String("filename"); err != nil || file != probePath || execs[0].PID != pid {
		g.Errorf("first exec is %q by %d, %v; want %s by %d", file, execs[0].PID, err, probePath, pid)
	}
}

// several has two captures at once, with probes of one name.
func several(g *guest) {
	a := g.start(wire.CaptureParams{Instance: "a", Events: []wire.CaptureEvent{fork}, Probes: []wire.Kprobe{clone}})
	b := g.start(wire.CaptureParams{Instance: "b", PIDOnly: true, Events: []wire.CaptureEvent{fork}, Probes: []wire.Kprobe{clone}})
	if _, err := Start(g.Context(), g.vm.Agent(), g.kernel, wire.CaptureParams{Instance: "a"}); err == nil || !strings.Contains(err.Error(), "another capture has it") {
		g.Errorf("a second capture a = %v; want another capture has it", err)
	}
	_, other := g.run("", probePath, "fork")
	_, pid := g.run("b", probePath, "fork")
	for _, tt := range []struct {
		name       string
		collection *Collection
		other      bool // whether it has what is not b's program's
	}{{"a", a, true}, {"b", b, false}} {
		_, events := g.events(g.stop(tt.collection))
		pids := map[int]bool{}
		for _, e := range named(events, "clone") {
			pids[e.PID] = true
		}
		if !pids[pid] || pids[other] != tt.other {
			g.Errorf("capture %s has probe events of %v; want of %d, of %d: %v", tt.name, pids, pid, other, tt.other)
		}
	}
}

func functions(g *guest) {
	p := wire.CaptureParams{
		Instance: "fn", PIDOnly: true, Tracer: "function", Functions: []string{"kernel_clone", "wake_up_new*", "no_such_function"},
		Options: map[string]bool{"func_stack_trace": true},
	}
	r, err := Start(g.Context(), g.vm.Agent(), g.kernel, p)
	if err != nil {
		g.Fatal(g.vm.Why(err))
	}
	a := r.Armed
	if a.Tracer != "function" || a.Matched < 2 || !slices.Contains(a.Functions, "kernel_clone") {
		g.Errorf("armed %+v; want the function tracer on kernel_clone and wake_up_new_task", a)
	}
	if len(a.Missing) != 1 || a.Missing[0].What != "function no_such_function" {
		g.Errorf("missing %+v; want no_such_function", a.Missing)
	}
	g.run("", probePath, "fork")
	_, pid := g.run("fn", probePath, "fork")
	_, events := g.events(g.stop(r))
	calls := named(events, "function")
	if len(calls) < 2 || len(calls[0].Stack) == 0 {
		g.Fatalf("%d function entries among %d events; want 2 or more, with stacks", len(calls), len(events))
	}
	if calls[0].PID != pid {
		g.Errorf("a function entry is of task %d; want %d", calls[0].PID, pid)
	}

	// Without its functions a tracer would trace all.
	p = wire.CaptureParams{Instance: "fn", Tracer: "function", Functions: []string{"no_such_function"}}
	if r, err = Start(g.Context(), g.vm.Agent(), g.kernel, p); err != nil {
		g.Fatal(g.vm.Why(err))
	}
	if r.Armed.Tracer != "nop" || len(r.Armed.Missing) != 2 {
		g.Errorf("armed %+v; want no tracer, and why", r.Armed)
	}
	g.stop(r)
}

// functionGraph is what older kernels have in the top instance alone. The filter
// keeps down what it costs to start.
func functionGraph(g *guest) {
	r := g.start(wire.CaptureParams{
		Instance: "graph", PIDOnly: true, Tracer: "function_graph",
		Functions: []string{"kernel_clone", "copy_process", "wake_up_new_task"}, Graph: []string{"kernel_clone"},
	})
	g.run("graph", probePath, "fork")
	_, events := g.events(g.stop(r))
	if len(named(events, "funcgraph_entry")) == 0 || len(named(events, "funcgraph_exit")) == 0 {
		g.Errorf("%d events, no entries and exits among them", len(events))
	}
}

// bounds fills buffers and bounds of what is shipped.
func bounds(g *guest) {
	busy := []string{probePath, "ps", "-ely"}
	base := wire.CaptureParams{Instance: "small", BufferKB: 16, Hold: true, Events: []wire.CaptureEvent{{Name: "raw_syscalls"}}}
	r := g.start(base)
	g.run("", busy...)
	if res := g.stop(r); res.Stopped.CPUs[0].Dropped+res.Stopped.CPUs[len(res.Stopped.CPUs)-1].Dropped == 0 || res.Lost() == 0 {
		g.Errorf("full buffers that keep the first events lost nothing: %+v", res.Stopped)
	}
	base.Overwrite = true
	r = g.start(base)
	g.run("", busy...)
	if res := g.stop(r); res.Lost() == 0 {
		g.Errorf("full buffers that keep the last events lost nothing: %+v", res.Stopped)
	}
	for _, hold := range []bool{false, true} {
		r = g.start(wire.CaptureParams{Instance: "small", BufferKB: 64, Hold: hold, Max: 10000, Events: []wire.CaptureEvent{{Name: "raw_syscalls"}}})
		g.run("", busy...)
		res := g.stop(r)
		if res.Stopped.Bytes != 8192 || res.Stopped.Truncated == "" || res.Stopped.Left == 0 {
			g.Errorf("bound of 10000 bytes, hold %v: %+v; want 2 pages of 4096, and how much was left", hold, res.Stopped)
		}
		g.events(res)
	}
	// Much more than the buffers hold comes through, if it is taken.
	r = g.start(wire.CaptureParams{Instance: "small", BufferKB: 256, Events: []wire.CaptureEvent{{Name: "raw_syscalls"}}})
	for range 4 {
		g.run("", busy...)
	}
	res := g.stop(r)
	if _, events := g.events(res); len(events) == 0 {
		g.Error("no events")
	}
}

// allSymbols holds the symbols of the image against those of the guest.
func allSymbols(g *guest) {
	r := g.start(wire.CaptureParams{Instance: "sym", Symbols: true})
	all := g.stop(r).Capture.Kallsyms
	r = g.start(wire.CaptureParams{Instance: "sym"})
	got := g.stop(r).Capture.Kallsyms
	// The guest has the code that it made itself, too: trampolines, BPF.
	var want, modules []string
	for line := range strings.Lines(string(all)) {
		if !strings.Contains(line, "[") {
			want = append(want, line)
		} else if !strings.Contains(line, "[__builtin__") && !strings.Contains(line, "[bpf]") {
			modules = append(modules, line)
		}
	}
	lines := slices.Collect(strings.Lines(string(got)))
	if len(lines) < len(want) || !slices.Equal(lines[:len(want)], want) {
		g.Errorf("%d symbols by the image, %d by the guest: first difference %s", len(lines), len(want), firstDifference(lines, want))
	}
	functions := map[string]bool{}
	for _, line := range modules {
		functions[strings.ToLower(line)] = true
	}
	for _, line := range lines[min(len(want), len(lines)):] {
		if !functions[strings.ToLower(line)] {
			g.Errorf("the guest has no %q", line)
			break
		}
	}
	if len(modules) > 0 && len(lines) == len(want) {
		g.Errorf("no symbols of modules, of which the guest has %d", len(modules))
	}
}

func firstDifference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%d: %q, %q", i, a[i], b[i])
		}
	}
	return "the length"
}

// sleepers looks at the tasks that sleep: kthreadd always does.
func sleepers(g *guest) {
	tasks, done, err := g.vm.Agent().Sleepers(g.Context(), 10000)
	if err != nil {
		g.Fatal(g.vm.Why(err))
	}
	if done.Sleepers != len(tasks) || done.Tasks <= done.Sleepers || done.More {
		g.Errorf("%+v, and %d tasks", done, len(tasks))
	}
	for _, s := range tasks {
		if s.Comm == "kthreadd" {
			if !s.Kernel || s.PID != 2 || !strings.Contains(strings.Join(s.Stack, " "), "kthreadd+0x") {
				g.Errorf("kthreadd is %+v; want a kernel thread in kthreadd()", s)
			}
			return
		}
	}
	g.Errorf("kthreadd is not among %d sleepers", len(tasks))
}

// kernelText holds a capture against the kernel's own print of the same events: the
// pages are held in the ring buffer until the trace file has been read. Names,
// tasks, times, fields and stacks must agree, and the task creations of both.
func kernelText(g *guest) {
	facts, err := g.kernel.Facts(g.Context())
	if err != nil {
		g.Fatal(err)
	}
	made, err := plan.Make(plan.Request{
		Creations: plan.Joined, Stacks: true, Exact: true, Hold: true, BufferKB: 4096,
		Events: []plan.Event{{Name: "signal/signal_generate"}, {Name: "sched/sched_wakeup"}},
	}, plan.Kernel{Arch: g.vm.Hello().Arch, Facts: facts})
	if err != nil {
		g.Fatal(err)
	}
	r := g.start(made.Params)
	for _, probe := range []string{"fork", "vfork", "thread", "clone3", "spawn", "kthread"} {
		g.run("", probePath, probe)
	}
	const tracefs = "/sys/kernel/tracing/"
	instance := tracefs + "instances/" + made.Params.Instance + "/"
	g.run("", "/labctl/sh", "-c", "cd "+instance+" && echo 0 >tracing_on && echo 1 >options/sym-offset")
	// What a task is called is the kernel's latest word, which may change meanwhile.
	before := g.read(tracefs + "saved_cmdlines")
	text, err := kerneltext.Parse(strings.NewReader(g.read(instance + "trace")))
	if err != nil || text.BadLines > 0 || text.Lost > 0 {
		g.Fatalf("the kernel's text: %v, %d lost, %v", err, text.Lost, text.Bad)
	}
	after := g.read(tracefs + "saved_cmdlines")
	res := g.stop(r)
	steady := map[int]bool{}
	for _, name := range slices.Collect(strings.Lines(before)) {
		if pid, _, _ := strings.Cut(name, " "); strings.Contains("\n"+after, "\n"+name) && strings.Contains("\n"+string(res.Capture.Cmdlines), "\n"+name) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				g.Fatalf("saved_cmdlines: %q", name)
			}
			steady[n] = true
		}
	}

	d, err := decode.Open(res.Capture)
	if err != nil {
		g.Fatal(err)
	}
	var events []event.Event
	for e, err := range d.Events() {
		if err != nil {
			g.Fatal(err)
		}
		out := d.Event(e)
		out.Time = (out.Time + 500) / 1000 * 1000 // the text has microseconds
		events = append(events, out)
	}
	if len(events) != len(text.Events) || len(events) < 60 {
		g.Fatalf("%d events in the pages, %d in the text; want as many, and 60 or more", len(events), len(text.Events))
	}
	bad, named, frames := 0, 0, 0
	for i := range events {
		got, want := &events[i], &text.Events[i]
		got.Flags = got.Flags[:len(want.Flags)] // kernels up to 5.16 have one column less
		if steady[got.PID] || got.PID == 0 {
			named++
		} else {
			want.Task = got.Task
		}
		if got.Stack != nil {
			frames += len(got.Stack.Frames)
		}
		if diff := cmp.Diff(inWords(want), inWords(got)); diff != "" {
			if bad++; bad <= 3 {
				g.Errorf("event %d of %d differs (-text +pages):\n%s", i, len(events), diff)
			}
		}
	}
	if bad > 3 {
		g.Errorf("%d events differ", bad)
	}
	if named < len(events)/2 || frames < 5*len(events) {
		g.Errorf("of %d events %d have a task whose name held still, with %d frames; want half of them, and five frames each", len(events), named, frames)
	}

	want, err := creation.Join(text.Events)
	if err != nil {
		g.Fatal(err)
	}
	got, err := creation.Join(events)
	if err != nil {
		g.Fatal(err)
	}
	kinds := map[string]bool{}
	for i := range want {
		kinds[want[i].Via] = true
	}
	for _, via := range []string{"clone", "clone3", "vfork", "kthread"} {
		if !kinds[via] && !(via == "vfork" && kinds["clone"]) { // arm64 has no such call
			g.Errorf("no creation by %s among %d", via, len(want))
		}
	}
	// The text has no addresses.
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(stack.Frame{}, "PC")); diff != "" {
		g.Errorf("creations (-text +pages):\n%s", diff)
	}
	g.Logf("%d events, %d frames, %d creations agree", len(events), frames, len(got))
}

// inWords is an event as both have it.
func inWords(e *event.Event) (lines []string) {
	lines = append(lines, fmt.Sprintf("%s-%d [%d] %s %d %s at %q: %s", e.Task, e.PID, e.CPU, e.Flags, e.Time, e.Name, e.At, e.Text))
	for _, f := range e.Fields {
		lines = append(lines, f.Key+"="+f.Value)
	}
	if e.Stack == nil {
		return append(lines, "no stack")
	}
	for i, f := range e.Stack.Frames {
		// After a call that does not return the kernel shows the next function.
		if i > 0 && f.Name != "" && (f.Offset == 0 || f.Offset == f.Size) {
			f.Name, f.Offset = "(start)", 0
		}
		lines = append(lines, fmt.Sprintf("=> %s+%#x [%s]", f.Name, f.Offset, f.Module))
	}
	return lines
}
