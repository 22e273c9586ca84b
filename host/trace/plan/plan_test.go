package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/golden"
	"labctl/host/kernel"
	"labctl/host/trace/preset"
)

// kernels are the real ones of testdata, by release.
func kernels(t testing.TB) map[string]Kernel {
	t.Helper()
	files, err := filepath.Glob("testdata/*.names")
	if err != nil || len(files) != 8 {
		t.Fatalf("%d files of names, %v; want 8", len(files), err)
	}
	out := map[string]Kernel{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		part := strings.Split(string(text), "# ")
		if len(part) != 4 {
			t.Fatalf("%s has %d parts, want 4", file, len(part))
		}
		body := func(s string) []byte { _, rest, _ := strings.Cut(s, "\n"); return []byte(rest) }
		names, err := ReadNames(body(part[1]), body(part[2]))
		if err != nil {
			t.Fatal(err)
		}
		symbols := strings.Fields(string(body(part[3])))
		release := strings.TrimSuffix(filepath.Base(file), ".names")
		out[release] = Kernel{
			Arch: release[strings.LastIndex(release, "-")+1:], Names: names,
			Symbol: func(name string) bool { return slices.Contains(symbols, name) },
		}
	}
	return out
}

func dump(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "  %-9s %-34s", l.Kind, l.Name)
		if l.Missing() {
			b.WriteString(" -")
		} else if len(l.Armed) != 1 || l.Armed[0] != l.Name {
			fmt.Fprintf(&b, " %s", strings.Join(l.Armed, " "))
		}
		// Why a function has another name is wire's to say, in its own tests.
		if l.Why != "" && (l.Missing() || l.Kind != "function") {
			b.WriteString(" (" + l.Why + ")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestEveryPresetOnEveryKernel: coverage, as data.
func TestEveryPresetOnEveryKernel(t *testing.T) {
	for release, k := range kernels(t) {
		var b strings.Builder
		for _, p := range preset.All().Presets {
			var r Request
			r.Add(p)
			plan, err := Make(r, k)
			if err != nil {
				t.Errorf("%s on %s: %v", p.Name, release, err)
				continue
			}
			fmt.Fprintf(&b, "%s\n%s", p.Name, dump(plan.Lines))
			if len(p.Functions) > 0 && plan.Params.Tracer != "" && len(plan.Params.Functions) == 0 {
				t.Errorf("%s on %s starts tracer %s without a filter: it would trace every function", p.Name, release, plan.Params.Tracer)
			}
			// One line for each thing that was asked for, and no more than one missing tracer.
			if want := len(p.Functions) + len(p.Events) + len(p.Probes); len(plan.Lines) < want {
				t.Errorf("%s on %s: %d lines for %d things", p.Name, release, len(plan.Lines), want)
			}
			for _, l := range plan.Lines {
				if l.Missing() && l.Why == "" {
					t.Errorf("%s on %s: %s %s is missing without a reason", p.Name, release, l.Kind, l.Name)
				}
				if l.Kind == "event" && l.Missing() {
					t.Errorf("%s on %s: event %s is missing: all of these kernels have it", p.Name, release, l.Name)
				}
			}
		}
		golden.Check(t, filepath.Join("testdata", "coverage", release+".txt"), b.String())
	}
}

// TestFamilies: a function asked for by any of its names is the one of the
// kernel at hand.
func TestFamilies(t *testing.T) {
	for release, k := range kernels(t) {
		stub := "__x64_sys_clone"
		if k.Arch == "arm64" {
			stub = "__arm64_sys_clone"
		}
		for asked, want := range map[string]string{"_do_fork": "kernel_clone", "do_fork": "kernel_clone", "kernel_clone": "kernel_clone", "sys_clone": stub, "SyS_clone": stub, "__vfs_read": "vfs_read", "copy_process.part.5": "copy_process"} {
			p, err := Make(Request{Functions: []string{asked}}, k)
			if err != nil || !slices.Equal(p.Params.Functions, []string{want}) || p.Params.Tracer != "function" {
				t.Errorf("%s on %s: tracer %q, functions %q, %v; want %s", asked, release, p.Params.Tracer, p.Params.Functions, err, want)
				continue
			}
			if l := p.Lines[0]; l.Name != asked || !slices.Equal(l.Armed, []string{want}) || (asked != want) != (l.Why != "") {
				t.Errorf("%s on %s: line %+v", asked, release, l)
			}
		}
	}
	old, err := ReadNames([]byte("_do_fork\nsys_clone\nvfs_read\n__vfs_read\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Make(Request{Functions: []string{"kernel_clone", "__x64_sys_clone", "vfs_read"}}, Kernel{Arch: "arm", Names: old})
	if want := []string{"_do_fork", "sys_clone", "vfs_read"}; err != nil || !slices.Equal(p.Params.Functions, want) {
		t.Errorf("on an old kernel: %q, %v; want %q", p.Params.Functions, err, want)
	}
}

func names(t *testing.T, functions, events string) Kernel {
	t.Helper()
	n, err := ReadNames([]byte(strings.ReplaceAll(functions, " ", "\n")), []byte(strings.ReplaceAll(events, " ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return Kernel{Arch: "amd64", Names: n}
}

func TestMake(t *testing.T) {
	k := names(t, "vfs_read vfs_write vfs_open ksys_read do_exit", "sched:sched_switch sched:sched_wakeup signal:signal_deliver signal:signal_generate")
	k.Symbol = func(name string) bool { return name == "start_kernel" }
	k.Prototype = func(f string) []kernel.Param {
		if f != "do_sys_openat2" {
			return nil
		}
		return []kernel.Param{{Name: "dfd", Type: "int"}, {Name: "filename", Type: "const char *"}, {Name: "how", Type: "struct open_how *"}}
	}
	events := func(p *Plan) (out []string) {
		for _, e := range p.Params.Events {
			out = append(out, strings.TrimSuffix(e.Name+" if "+e.Filter, " if "))
		}
		return out[:len(out)-5] // the tree's own
	}
	probes := func(p *Plan) (out []string) {
		for _, p := range p.Params.Probes {
			for _, a := range p.Alternatives {
				out = append(out, strings.TrimSpace(p.Event+": "+a.Symbol+" "+strings.Join(a.Args, " ")))
			}
		}
		for i, o := range out {
			if strings.HasPrefix(o, "clone: ") { // the tree's own
				return out[:i]
			}
		}
		return out
	}
	for _, c := range []struct {
		name   string
		r      Request
		tracer string
		filter string // functions | graph
		events []string
		probes []string
		lines  string
	}{
		{"a glob", Request{Functions: []string{"vfs_*", "nosuch*"}}, "function", "vfs_*|", nil, nil, `
  function  vfs_*                              vfs_open vfs_read vfs_write
  function  nosuch*                            - (no function of this kernel matches)
`},
		{"not traceable", Request{Functions: []string{"start_kernel", "nosuch", "ext4_statfs"}}, "", "|", nil, nil, `
  function  start_kernel                       - (start_kernel is there, but may not be traced (notrace, or code of the boot))
  function  nosuch                             - (no such function here: inlined, not built in, or in a module that is not loaded)
  function  ext4_statfs                        - (` + ksym.Absent("ext4_statfs") + `)
  tracer    function                           - (not started: this kernel has none of its functions)
`},
		{"a graph", Request{Graph: []string{"ksys_read"}}, "function_graph", "|ksys_read", nil, nil, `
  graph     ksys_read                         
`},
		{"a graph of some functions", Request{Graph: []string{"ksys_read"}, Functions: []string{"vfs_read"}, Stacks: true}, "function_graph", "vfs_read ksys_read|ksys_read", nil, nil, `
  function  vfs_read                          
  graph     ksys_read                         
`},
		{"no graph to start", Request{Graph: []string{"nosuch"}, Functions: []string{"vfs_read"}}, "", "|", nil, nil, `
  function  vfs_read                          
  graph     nosuch                             - (no such function here: inlined, not built in, or in a module that is not loaded)
  tracer    function_graph                     - (not started: this kernel has none of its functions)
`},
		{"events", Request{Events: []Event{{"sched:sched_switch", "prev_pid==1"}, {"signal", ""}, {"sched_wakeup", ""}, {"sched/sched_*", "x"}, {"no:such", ""}}}, "", "|",
			[]string{"sched/sched_switch if prev_pid==1", "signal/signal_deliver", "signal/signal_generate", "sched/sched_wakeup"}, nil, `
  event     sched/sched_switch                
  event     signal                             signal/signal_deliver signal/signal_generate
  event     sched_wakeup                       sched/sched_wakeup
  event     sched/sched_*                      sched/sched_switch sched/sched_wakeup
  event     no/such                            - (this kernel has no such event)
`},
		{"a probe with all its arguments", Request{Probes: []string{"do_sys_openat2"}}, "", "|", nil,
			[]string{"do_sys_openat2: do_sys_openat2 dfd=%di:s32 filename=%si:x64 how=%dx:x64", "do_sys_openat2: do_sys_openat2 dfd=%di:s32 filename=%si:u64 how=%dx:u64"}, `
  probe     do_sys_openat2                    
`},
		{"probes", Request{Probes: []string{"o=do_sys_openat2 filename:ustring how", "p:x vfs_read+0x10 a=%ax", "_do_fork"}}, "", "|", nil,
			[]string{"o: do_sys_openat2 filename=+0(%si):ustring how=%dx:x64", "o: do_sys_openat2 filename=+0(%si):ustring how=%dx:u64", "x: vfs_read+0x10 a=%ax", "_do_fork: _do_fork", "_do_fork: kernel_clone", "_do_fork: do_fork"}, `
  probe     o                                  do_sys_openat2
  probe     x                                  vfs_read+0x10
  probe     _do_fork                          
`},
		{"a filter without a tracer", Request{Tracer: "nop", Functions: []string{"vfs_read"}}, "", "|", nil, nil, `
  filter    vfs_read                           - (not needed: the tracer is nop, and a filter alone traces nothing)
`},
	} {
		p, err := Make(c.r, k)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.Join(p.Params.Functions, " ") + "|" + strings.Join(p.Params.Graph, " "); p.Params.Tracer != c.tracer || got != c.filter {
			t.Errorf("%s: tracer %q, filters %q; want %q, %q", c.name, p.Params.Tracer, got, c.tracer, c.filter)
		}
		if d := cmp.Diff(c.events, events(p)); d != "" && len(c.events)+len(events(p)) > 0 {
			t.Errorf("%s: events -want +got\n%s", c.name, d)
		}
		if d := cmp.Diff(c.probes, probes(p)); d != "" && len(c.probes)+len(probes(p)) > 0 {
			t.Errorf("%s: probes -want +got\n%s", c.name, d)
		}
		if d := cmp.Diff(strings.TrimPrefix(c.lines, "\n"), dump(p.Lines)); d != "" {
			t.Errorf("%s: lines -want +got\n%s", c.name, d)
		}
	}
}

func TestMakeRefuses(t *testing.T) {
	k := names(t, "vfs_read", "sched:sched_switch")
	k.Prototype = func(string) []kernel.Param { return []kernel.Param{{Name: "file", Type: "struct file *"}} }
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Functions: []string{"vfs read"}}, `function "vfs read": want a kernel function's name, * and ? in it for several`},
		{Request{Functions: []string{"["}}, `function "[": want a kernel function's name, * and ? in it for several`},
		{Request{Functions: []string{"!x"}}, `function "!x": want a kernel function's name, * and ? in it for several`},
		{Request{Graph: []string{"a;b"}}, `function "a;b": want a kernel function's name, * and ? in it for several`},
		{Request{Events: []Event{{Name: "../x"}}}, `event "../x": want SYSTEM:EVENT or SYSTEM, * in them for several`},
		{Request{Events: []Event{{Name: "labctl:clone"}}}, `event "labctl:clone": the system labctl is for probes: use --kprobe`},
		{Request{Probes: []string{""}}, `probe "": want [NAME=]SYMBOL [ARG...]`},
		{Request{Probes: []string{"r:x do_exit"}}, `probe "r:x do_exit": return probes damage other events' stacks, on a function that creates tasks: use --fprobe, which does not`},
		{Request{Probes: []string{"clone=vfs_read"}}, `probe "clone=vfs_read": clone is a probe of labctl's own: write another NAME=vfs_read`},
		{Request{Probes: []string{"a-b=vfs_read"}}, `probe "a-b=vfs_read": "a-b" is not an event name: want a C identifier`},
		{Request{Probes: []string{"/x"}}, `probe "/x": "/x" is not a kernel symbol`},
		{Request{Probes: []string{"vfs_read x;y"}}, `probe "vfs_read x;y": "x;y" is neither a parameter's name nor a fetch argument of kprobe_events`},
		{Request{Probes: []string{"vfs_read buf"}}, `probe "vfs_read buf": vfs_read has no parameter buf (it has file)`},
		{Request{Probes: []string{"vfs_read+4 file"}}, `probe "vfs_read+4 file": the parameters of vfs_read are not known here: write NAME=%di for the first one`},
		{Request{Fprobes: []string{""}}, `fprobe "": want [NAME=]SYMBOL [ARG...]`},
		{Request{Fprobes: []string{"vfs_read+4"}}, `fprobe "vfs_read+4": "vfs_read+4" is not a kernel function`},
		{Request{Fprobes: []string{"clone=vfs_read"}}, `fprobe "clone=vfs_read": clone is a probe of labctl's own: write another NAME=vfs_read`},
		{Request{Fprobes: []string{"vfs_read x;y"}}, `fprobe "vfs_read x;y": "x;y" is neither $retval, a parameter's name, nor a fetch argument of dynamic_events`},
		{Request{Fprobes: []string{"vfs_read buf"}}, `fprobe "vfs_read buf": vfs_read has no parameter buf (it has file)`},
		{Request{Fprobes: []string{"vfs_read", "vfs_read%return"}}, `fprobe "vfs_read%return": there is a probe called vfs_read__exit already; write NAME=SYMBOL`},
		{Request{Probes: []string{"vfs_read", "vfs_read"}}, `probe "vfs_read": there is one called vfs_read already; write NAME=vfs_read`},
	} {
		if _, err := Make(c.r, k); err == nil || err.Error() != c.want {
			t.Errorf("Make(%+v) = %v; want %s", c.r, err, c.want)
		}
	}
	if _, err := Make(Request{}, Kernel{Arch: "riscv64"}); err == nil {
		t.Error("Make for riscv64: no error")
	}
}

// TestTreeIsInEveryPlan: whatever is traced, the tree of tasks can be drawn.
func TestTreeIsInEveryPlan(t *testing.T) {
	for _, r := range []Request{{}, {Tasks: true, Stacks: true}, {Events: []Event{{Name: "sched/sched_process_fork"}}}} {
		for _, arch := range []string{"amd64", "arm64", "arm"} {
			p, err := Make(r, Kernel{Arch: arch})
			if err != nil {
				t.Fatal(err)
			}
			count := map[string]int{}
			for _, e := range p.Params.Events {
				count[e.Name]++
			}
			for _, e := range p.Params.Events {
				if want := e.Name == "sched/sched_process_fork" && !r.Stacks; e.Stack != want {
					t.Errorf("%+v on %s: stack of %s %v, want %v", r, arch, e.Name, e.Stack, want)
				}
			}
			last := p.Params.Probes[len(p.Params.Probes)-1]
			if count["sched/sched_process_fork"] != 1 || count["sched/sched_process_exit"] != 1 || len(count) != 5 || last.Event != EventExit || !last.Optional {
				t.Errorf("%+v on %s: events %v, last probe %+v", r, arch, count, last)
			}
			lines := 0
			if r.Tasks {
				lines = 4
			}
			if own := len(p.Lines) - len(r.Events); len(p.Params.Probes) != 4 || own != lines {
				t.Errorf("%+v on %s: %d probes, %d lines; want 4, %d", r, arch, len(p.Params.Probes), own, lines)
			}
		}
	}
}

// TestFilteredFork: a trigger would leave stacks of events that the filter drops.
func TestFilteredFork(t *testing.T) {
	p, err := Make(Request{Events: []Event{{"sched/sched_process_fork", "child_pid > 9"}}}, Kernel{Arch: "arm64"})
	if err != nil || p.Params.Events[0].Filter == "" || p.Params.Events[0].Stack {
		t.Errorf("Make = %+v, %v; want the event without a stack", p.Params.Events, err)
	}
}

// TestIdle: a function that is there and is not what it was is said.
func TestIdle(t *testing.T) {
	for functions, want := range map[string]string{
		"close_fd file_close_fd": "close_fd: close(2) does not call it here, but file_close_fd, file_close_fd: what close(2) calls, a88c955fcfb4",
		"close_fd":               "close_fd: , close_fd: renamed, 8760c909f54a",
	} {
		p, err := Make(Request{Functions: []string{"close_fd", "__close_fd"}}, names(t, functions, ""))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range p.Lines {
			got = append(got, strings.Join(l.Armed, " ")+": "+l.Why)
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("with %s: %s; want %s", functions, got, want)
		}
	}
}

func TestTook(t *testing.T) {
	k := names(t, "kernel_clone do_exit", "sched:sched_switch signal:signal_deliver signal:signal_generate")
	p, err := Make(Request{Functions: []string{"_do_fork", "do_exit"}, Events: []Event{{Name: "signal"}, {Name: "sched/sched_switch", Filter: "x"}}, Probes: []string{"_do_fork", "x=nosuch"}}, k)
	if err != nil {
		t.Fatal(err)
	}
	p.Took(wire.CaptureArmed{
		Tracer:  "function",
		Symbols: map[string]string{"_do_fork": "kernel_clone"},
		Missing: []wire.CaptureMissing{{What: "function do_exit", Why: "no"}, {What: "event signal/signal_deliver", Why: "busy"}, {What: "event sched/sched_switch", Why: "filter"}, {What: "probe x", Why: "no such symbol"}, {What: "option y", Why: "none"}},
	})
	want := `  function  _do_fork                           kernel_clone
  function  do_exit                            - (no)
  event     signal                             signal/signal_generate (signal/signal_deliver: busy)
  event     sched/sched_switch                 - (filter)
  probe     _do_fork                           kernel_clone
  probe     x                                  - (no such symbol)
  option    y                                  - (none)
`
	if d := cmp.Diff(want, dump(p.Lines)); d != "" {
		t.Errorf("lines: -want +got\n%s", d)
	}
}

func TestReadNames(t *testing.T) {
	n, err := ReadNames([]byte("b\na [mod]\n\n*/x\n\x1b[2J\nc.isra.0\n"), []byte("s:e\nnocolon\na/b:c\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c.isra.0"}; !slices.Equal(n.functions, want) || !slices.Equal(n.events, []string{"s/e"}) || !slices.Equal(n.systems, []string{"s"}) {
		t.Errorf("functions %q, events %q, systems %q", n.functions, n.events, n.systems)
	}
	if _, err := ReadNames([]byte(strings.Repeat("x\n", maxNames+1)), nil); err == nil {
		t.Errorf("%d names: no error", maxNames+1)
	}
}

func FuzzReadNames(f *testing.F) {
	f.Add([]byte("kernel_clone\nvfs_read [ext4]\n"), []byte("sched:sched_switch\n"), "vfs_*")
	f.Add([]byte("a\n[\n"), []byte(":"), "[")
	f.Fuzz(func(t *testing.T, functions, events []byte, asked string) {
		n, err := ReadNames(functions, events)
		if err != nil {
			return
		}
		p, err := Make(Request{Functions: []string{asked}, Events: []Event{{Name: asked}}}, Kernel{Arch: "arm64", Names: n})
		if err != nil {
			return
		}
		for _, f := range p.Params.Functions {
			if !isGlob(f) {
				t.Errorf("function %q is sent", f)
			}
		}
		for _, e := range p.Params.Events {
			if strings.ContainsAny(e.Name, " \n;.") {
				t.Errorf("event %q is sent", e.Name)
			}
		}
	})
}

func FuzzProbe(f *testing.F) {
	for _, s := range []string{"do_sys_openat2", "x=vfs_read+0x10 a=+0(%di):string", "p:x y %di", "r:x y", "a b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := Make(Request{Probes: []string{spec}}, Kernel{Arch: "amd64"})
		if err != nil {
			return
		}
		for _, a := range p.Params.Probes[0].Alternatives {
			for _, w := range append([]string{a.Symbol}, a.Args...) {
				if w == "" || strings.ContainsAny(w, " \t\n;#") {
					t.Errorf("%q sends %q", spec, w)
				}
			}
		}
	})
}

// TestExact: the names of an exact request are taken as they are, whether or not
// somebody has read the kernel's.
func TestExact(t *testing.T) {
	r := Request{Exact: true, Creations: NoCreations, Events: []Event{{Name: "sched/sched_switch", Filter: "prev_pid > 1"}}}
	for _, names := range []*Names{nil, {}} {
		p, err := Make(r, Kernel{Arch: "arm64", Names: names})
		if err != nil {
			t.Fatal(err)
		}
		want := []wire.CaptureEvent{{Name: "sched/sched_switch", Filter: "prev_pid > 1"}}
		if !slices.Equal(p.Params.Events, want) {
			t.Errorf("with names %v: events %v, want %v", names, p.Params.Events, want)
		}
	}
}

// TestTookFunctions: what the kernel's filter has is what is armed.
func TestTookFunctions(t *testing.T) {
	all := make([]string, 50)
	for i := range all {
		all[i] = fmt.Sprintf("f_%02d", i)
	}
	names, err := ReadNames([]byte(strings.Join(append(all, "g", "h"), "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	make := func() *Plan {
		p, err := Make(Request{Functions: []string{"f_*", "g", "h"}, Creations: NoCreations}, Kernel{Arch: "amd64", Names: names})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := make()
	if l := p.Lines[0]; len(l.Armed) != maxArmed || l.Count != 50 || !slices.Equal(l.Names(), all) {
		t.Errorf("planned %+v; want 50 functions, and %d of them as Armed", l, maxArmed)
	}
	// One is refused that is not among the first.
	p.Took(wire.CaptureArmed{Tracer: "function", Matched: 2000, Functions: all[:10], Missing: []wire.CaptureMissing{{What: "function f_40", Why: "busy"}}})
	if l := p.Lines[0]; l.Count != 49 || len(l.Names()) != 49 || slices.Contains(l.Names(), "f_40") || l.Why != "f_40: busy" || len(p.Lines) != 3 {
		t.Errorf("after a refusal: %+v", p.Lines)
	}
	p = make()
	p.Took(wire.CaptureArmed{Tracer: "function", Matched: 3, Functions: []string{"f_02", "f_30", "g"}})
	if l := p.Lines[0]; !slices.Equal(l.Armed, []string{"f_02", "f_30"}) || l.Count != 2 {
		t.Errorf("the kernel's filter has two, the line %+v", l)
	}
	if l := p.Lines[2]; !l.Missing() || l.Why == "" {
		t.Errorf("the kernel's filter has no h, the line is %+v", l)
	}
	p = make()
	p.Took(wire.CaptureArmed{Tracer: "nop", Missing: []wire.CaptureMissing{{What: "tracer function", Why: "busy"}}})
	for _, l := range p.Lines {
		if !l.Missing() || l.Why == "" {
			t.Errorf("no tracer, and a line of %+v", l)
		}
	}
}

func TestFprobes(t *testing.T) {
	k := Kernel{Arch: "amd64", Prototype: func(f string) []kernel.Param {
		if f == "vfs_read" {
			return []kernel.Param{{Name: "file", Type: "struct file *"}, {Name: "buf", Type: "char *"}}
		}
		return nil
	}}
	for _, c := range []struct{ spec, want string }{
		{"vfs_read", "vfs_read__exit: vfs_read%return ret=$retval | vfs_read%return"},
		{"_do_fork", "_do_fork__exit: _do_fork%return ret=$retval | _do_fork%return | kernel_clone%return ret=$retval | kernel_clone%return | do_fork%return ret=$retval | do_fork%return"},
		{"f:r vfs_read%return $retval buf:ustring", "r: vfs_read%return ret=$retval buf=buf:ustring"},
		{"r=vfs_read ret=$retval:x64 file comm=$comm", "r: vfs_read%return ret=$retval:x64 file=file comm=$comm"},
	} {
		p, err := Make(Request{Creations: NoCreations, Fprobes: []string{c.spec}}, k)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		probe := p.Params.Probes[0]
		var tries []string
		for _, a := range probe.Alternatives {
			tries = append(tries, strings.Join(append([]string{a.Symbol}, a.Args...), " "))
		}
		if got := probe.Event + ": " + strings.Join(tries, " | "); got != c.want || !probe.Fprobe || !probe.Optional {
			t.Errorf("%s is %s, %+v; want %s", c.spec, got, probe, c.want)
		}
	}
	k.NoFprobes = true
	r := Request{Creations: NoCreations, Fprobes: []string{"vfs_read"}}
	p, err := Make(r, k)
	if err != nil || len(p.Params.Probes) != 0 {
		t.Fatalf("Make without fprobe events: %+v, %v", p, err)
	}
	const want = "nothing to trace: probe vfs_read__exit: this kernel has no fprobe events: it is built without FPROBE_EVENTS"
	if err := p.Nothing(r, nil); err == nil || err.Error() != want {
		t.Errorf("Nothing = %v; want %s", err, want)
	}
}

// TestWakeup: what the kernel measures, and what labctl reckons the same from.
func TestWakeup(t *testing.T) {
	k := names(t, "", "sched:sched_switch sched:sched_waking sched:sched_process_exit")
	p, err := Make(Request{Wakeup: true, Events: []Event{{Name: "sched"}}, Creations: NoCreations}, k)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Params.Wakeup || len(p.Params.Events) != 3 || len(p.Lines) != 2 || p.Lines[1].Kind != "wakeup" {
		t.Errorf("params %+v, lines %+v", p.Params, p.Lines)
	}
	p.Took(wire.CaptureArmed{Missing: []wire.CaptureMissing{{What: "wakeup wakeup_lat", Why: "no"}}})
	if l := p.Lines[1]; !l.Missing() || l.Why != "no" || len(p.Lines) != 2 {
		t.Errorf("refused: %+v", p.Lines)
	}
	for _, name := range []string{"sched:sched_waking", "sched_switch", "sched"} {
		if _, err := Make(Request{Wakeup: true, Events: []Event{{Name: name, Filter: "pid > 1"}}}, k); err == nil || !strings.Contains(err.Error(), "leave out its --filter") {
			t.Errorf("a filter on %s: %v; want an error", name, err)
		}
	}
	if r := (Request{Wakeup: true}); r.Empty() {
		t.Error("a request of wake-ups is called empty")
	}
}
