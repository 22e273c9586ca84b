package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/clone"
	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/hist"
	"labctl/host/trace/plan"
	"labctl/host/trace/tasks"
)

var update = flag.Bool("update", false, "rewrite testdata/full.json")

// full is a run with a value in every field.
func full() *Run {
	sig, status := clone.Signal(17), 256
	first, born, dead := 1, int64(5e8), int64(9e8)
	frames := []stack.Frame{{
		Name: "kernel_clone", PC: 0xffff800080001000, Offset: 0x10, Size: 0x400, Module: "m", Kind: stack.Function,
		Args: []stack.Arg{{Name: "flags", Value: "SIGCHLD"}}, AllArgs: true, Exception: true, Note: "a note",
	}}
	st := stack.Stack{Frames: frames, Trimmed: frames, Truncated: true, Origin: "sched_process_fork", Note: "no frames"}
	died := &Crash{
		Kind: "panic", Title: "x (Fatal exception)", Cause: "oops", Task: &Task{Comm: "labprobe", PID: 10, CPU: 1},
		Victim: &Task{Comm: "sh", PID: 9, CPU: -1}, Stack: &st, Lines: []string{"line", "line"}, Count: 2, Last: "x",
	}
	return &Run{
		Name: "probe-fork", Labctl: "v1", Command: []string{"labctl", "probe", "run", "fork"},
		Started: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Seconds: 4.5,
		Target: Target{Name: "arm64", Arch: "arm64", CPUs: 2, MemoryMB: 512, Link: "virtio"},
		Kernel: Kernel{Ref: "6.12", Source: "debian", Release: "6.12.0-arm64", Version: "6.12.0-1", SHA256: "00ff"},
		QEMU:   QEMU{Binary: "qemu-system-aarch64", Version: "7.2.22", Accel: "tcg", Reason: "no /dev/kvm"},
		Phases: []Phase{{Name: "qemu", Seconds: 0.1}, {Name: "kernel", Seconds: 1}},
		Probes: []Probe{{
			Name: "fork", NotApplicable: "no such system call", Params: json.RawMessage(`{"flags":256}`),
			Result: &wire.ProbeResult{
				Probe: "fork", Method: "clone(SIGCHLD)",
				Tasks: []wire.Task{
					{Role: "self", Comm: "labprobe", PID: 10, TID: 10, TGID: 10, PPID: 1},
					{Role: "child", Comm: "labprobe", PID: 11, TID: 11, TGID: 11, PPID: 10, Asked: &wire.Asked{Syscall: "clone", Flags: 256, ExitSignal: 17, Unknown: true}, Status: &status},
				},
				Data: map[string]any{"k": "v"},
			},
			Exit:   &wire.ExecResult{PID: 10, Errno: 2, Exited: true, Code: 1, Signaled: true, Signal: 2, Core: true, Tainted: 512, Watched: &wire.Watched{Changed: []string{"tracing_on"}, Forks: 1}},
			Stderr: "words",
			Armed: &wire.CaptureArmed{
				Symbols: map[string]string{"clone": "kernel_clone"}, Functions: []string{"x"}, Matched: 1, Events: []string{"sched/sched_process_fork"},
				Missing: []wire.CaptureMissing{{What: "probe kthread_request", Why: "no such symbol"}}, Top: true, Tracer: "nop", Clock: "local",
				BufferKB: 1024, CPUs: 2, PageSize: 4096, BigEndian: true, Found: []string{"x"}, Off: true, Uname: "Linux 6.12.0 aarch64",
			},
			Creations: []creation.Creation{{
				Time: 5e9, CPU: 1, Via: "clone", Symbol: "kernel_clone",
				Requester: creation.Task{TID: 10, Comm: "labprobe"},
				Child:     creation.Child{TID: 11, Comm: "labprobe", Name: "sh", Exec: "/bin/sh"},
				Args:      &creation.Args{Flags: 256, ExitSignal: &sig, Text: "CLONE_VM|SIGCHLD"},
				Entered:   2, Stack: st, Skipped: 1,
				AskedBy: &creation.Request{Time: 4e9, CPU: 1, Task: creation.Task{TID: 9, Comm: "sh"}, Format: "k/%d", Function: "worker", Stack: st},
				Notes:   []string{"a note"}, Disputed: "another note",
			}},
			Others: 3, Lost: 1, Damaged: 2,
			Findings: []Finding{{What: "flags of child 11", OK: true, Got: "0x100", Want: "0x100"}},
		}},
		Trace: &Trace{
			Preset: "book/4.4.1", Argv: []string{"labprobe", "fork"}, PIDOnly: true,
			Script: &Script{
				Name: "x.sh", Exit: &wire.ExecResult{PID: 9, Errno: 2, Exited: true, Code: 1, Signaled: true, Signal: 2, Core: true, Tainted: 512, Watched: &wire.Watched{Changed: []string{"tracing_on"}, Forks: 1}},
				Names:  []wire.TraceName{{File: "set_ftrace_filter", Asked: "_do_fork", Became: "kernel_clone", Why: "renamed"}},
				Unread: "more than 10000 names",
			},
			Exit:  &wire.ExecResult{PID: 10, Errno: 2, Exited: true, Code: 1, Signaled: true, Signal: 2, Core: true, Tainted: 512, Watched: &wire.Watched{Changed: []string{"tracing_on"}, Forks: 1}},
			Lines: []plan.Line{{Kind: "function", Name: "_do_fork", Armed: []string{"kernel_clone"}, Count: 1, Idle: 1, Never: []string{"kernel_clone"}, Why: "renamed"}},
			Armed: &wire.CaptureArmed{
				Symbols: map[string]string{"exit": "do_exit"}, Functions: []string{"kernel_clone"}, Matched: 1, Events: []string{"sched/sched_switch"},
				Missing: []wire.CaptureMissing{{What: "event a/b", Why: "no such event"}}, Top: true, Tracer: "function", Clock: "local",
				BufferKB: 4096, CPUs: 2, PageSize: 4096, BigEndian: true, Found: []string{"sched/sched_switch"}, Off: true, Uname: "Linux 6.12.0 aarch64",
			},
			CPUs:      []TraceCPU{{CPU: 1, Bytes: 4096, Events: 100, Lost: 3}},
			Truncated: "at its bound", Left: 8192, Damage: []string{"CPU 1, byte 12: no record"}, Damaged: 1,
			Timeline: &tasks.Timeline{SkippedFrames: 1,
				Start: 1e9, End: 2e9, Events: map[string]int64{"sched_switch": 3}, Unkept: 1, UnkeptPaths: 1,
				Tasks: []tasks.Task{
					{TID: 10, Comm: "labprobe"},
					{
						TID: 11, Comm: "sh", Exec: "/bin/sh", Parent: &first, Born: &born, Via: "clone", Flags: "SIGCHLD", AskedBy: &creation.Task{TID: 9, Comm: "sh"},
						Died: &dead, Exit: &tasks.Exit{Code: 3, Signal: 9, Core: true}, Path: 1, AskedPath: 1, Notes: []string{"a note"},
					},
				},
				Paths: []tasks.Path{{Of: "kernel_clone", Count: 2, Stack: st}},
			},
			Hists: []hist.Histogram{{
				Event: "sched/sched_switch", Trigger: "hist:keys=next_comm:vals=hitcount:sort=hitcount:size=2048", Keys: []string{"next_comm"}, Values: []string{"hitcount"},
				Rows: []hist.Row{{Keys: []hist.Key{{Text: "sh", Stack: &st}}, Values: []uint64{3}}},
				Hits: 3, Entries: 1, Dropped: 2, Unkept: 1, Unread: 1, Disputed: "the rows come to 3 hits",
			}},
			Wakeups: &Wakeups{
				Kernel: 5, Reckoned: 5, Agree: 4, Differ: 1, Differing: []string{"task 7: 3 ns by the kernel"}, Lost: true,
				Count: 1, Before: 1, Running: 1, Others: 1, Unkept: 1, Median: 1500, P90: 1500, P99: 1500, Max: 1500,
				Ranges: []WakeupRange{{From: 1000, To: 2000, Count: 1}},
				Worst:  []WakeupLatency{{Latency: 1500, Time: 1e9, CPU: 1, Task: creation.Task{TID: 11, Comm: "sh"}, Prio: 120, By: &creation.Task{TID: 9, Comm: "init"}, WokenOn: 1, Interrupt: true}},
			},
			Sleepers: &Sleepers{Samples: 2, Moved: 1, Places: []Place{{Count: 3, State: "S", Kernel: true, Stack: st, Tasks: []creation.Task{{TID: 11, Comm: "sh"}}}}},
		},
		Reports: []*Crash{died},
		Outcome: Outcome{Kind: outcome.GuestCrashed, How: "panic", Message: "kernel panic: x", Phase: "hello", Crash: died, CPUs: []string{"CPU 0: pc 0x1, CPL=0"}},
	}
}

// empty finds fields without a value, by their path.
func empty(v reflect.Value, path string) (found []string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return empty(v.Elem(), path)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			break
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") == "-" { // not of the record
				continue
			}
			found = append(found, empty(v.Field(i), path+"."+v.Type().Field(i).Name)...)
		}
		return found
	case reflect.Slice:
		if v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct {
			return empty(v.Index(v.Len()-1), path)
		}
	}
	if v.IsZero() {
		return []string{path}
	}
	return nil
}

// TestSchema holds the form of run.json: a change of testdata/full.json is a
// change that readers of old records see.
func TestSchema(t *testing.T) {
	run := full()
	d, err := Create(filepath.Join(t.TempDir(), "r"), "x", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteRun(run); err != nil {
		t.Fatal(err)
	}
	if missing := empty(reflect.ValueOf(run), ""); len(missing) > 0 {
		t.Errorf("full() has no value for %q", missing)
	}
	got, err := os.ReadFile(d.File(RunFile))
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/full.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run.json (-want +got):\n%s", diff)
	}
	back, err := d.ReadRun()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(compact(t, run), compact(t, back)); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// compact undoes the indentation that raw JSON in a record takes on.
func compact(t *testing.T, r *Run) *Run {
	t.Helper()
	for i, p := range r.Probes {
		var b bytes.Buffer
		if len(p.Params) > 0 {
			if err := json.Compact(&b, p.Params); err != nil {
				t.Fatal(err)
			}
			r.Probes[i].Params = b.Bytes()
		}
	}
	return r
}

// TestReal reads a record that labctl wrote of a run, and writes it again.
func TestReal(t *testing.T) {
	want, err := os.ReadFile("testdata/real-v2.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Probes) != 2 || r.Outcome.Kind != outcome.OK || len(r.Probes[0].Creations) == 0 {
		t.Errorf("read %d probes, outcome %q", len(r.Probes), r.Outcome.Kind)
	}
	d := Dir{t.TempDir()}
	if err := d.WriteRun(r); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(d.File(RunFile))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("written again (-want +got):\n%s", diff)
	}
}

// TestUpgrade reads a record that a labctl of before wrote: all that is shown of it
// is there, and written again it reads the same.
func TestUpgrade(t *testing.T) {
	old, err := os.ReadFile("testdata/real-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Decode(old)
	if err != nil {
		t.Fatal(err)
	}
	if r.Schema != Schema || len(r.Probes) != 2 || r.Kernel.Release != "6.12.107+deb13-arm64" {
		t.Fatalf("schema %s, %d probes, kernel %s", r.Schema, len(r.Probes), r.Kernel.Release)
	}
	p := &r.Probes[0]
	if p.Armed == nil || p.Armed.Symbols["clone"] != "kernel_clone" || len(p.Creations) != 1 || p.Creations[0].Time != 2473142000 ||
		len(p.Creations[0].Stack.Frames) != 9 || len(p.Findings) == 0 || p.Others != 6 {
		t.Errorf("probe %s: armed %+v, %d creations, %d others, %d findings", p.Name, p.Armed, len(p.Creations), p.Others, len(p.Findings))
	}
	b, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("written and read again (-want +got):\n%s", diff)
	}
}

func TestUpgradeOfDamage(t *testing.T) {
	r, err := Decode([]byte(`{"schema":"labctl/run/v1","probes":[{"name":"fork","others":0,"lost":3,"bad_lines":2,"trace":{"bytes":1,"entries":2,"overrun":3},
		"armed":{"symbols":{"clone":"_do_fork"},"missing":["event a/b: no such file or directory","file x"]}},{"name":"vfork","others":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Probe{
		{Name: "fork", Lost: 3, Damaged: 2, Armed: &wire.CaptureArmed{
			Symbols: map[string]string{"clone": "_do_fork"}, Missing: []wire.CaptureMissing{{What: "event a/b", Why: "no such file or directory"}, {What: "file x"}},
		}},
		{Name: "vfork", Others: 1},
	}
	if diff := cmp.Diff(want, r.Probes); diff != "" {
		t.Errorf("probes (-want +got):\n%s", diff)
	}
}

func TestDecodeErrors(t *testing.T) {
	const ok = `{"schema":"labctl/run/v2"`
	const old = `{"schema":"labctl/run/v1"`
	for _, tt := range []struct {
		name, in, want string
	}{
		{"nothing", "", "line 1: unexpected end of JSON input"},
		{"cut short", ok + ",\n\"name\": \"x\",\n", "line 2: unexpected end of JSON input"},
		{"no JSON", "{\n\n oops", "line 3: invalid character 'o'"},
		{"line break in a string", "{\n\"schema\": \"labctl\n\"}", "line 2: invalid character '\\n' in string literal"},
		{"null", "null", `schema is ""`},
		{"a list", "[]", "line 1: json: cannot unmarshal array"},
		{"no schema", `{"name":"x"}`, `schema is "", this labctl reads "labctl/run/v1" and "labctl/run/v2"`},
		{"newer schema with new fields", `{"schema":"labctl/run/v3","new":1}`, `schema is "labctl/run/v3", this labctl reads "labctl/run/v1" and "labctl/run/v2"`},
		{"unknown field of an older schema", old + `,"probes":[{"bad_lines":1,"nmae":"x"}]}`, `json: unknown field "nmae"`},
		{"a field of the older schema", ok + `,"probes":[{"bad_lines":1}]}`, `json: unknown field "bad_lines"`},
		{"another type in an older schema", old + `,"probes":[{"bad_lines":"x"}]}`, "line 1: json: cannot unmarshal string"},
		{"another form of an older schema", old + `,"probes":{"armed":3}}`, "line 1: json: cannot unmarshal object"},
		{"escapes in the schema", `{"schema":"\u001b[2J"}`, `schema is "\x1b[2J"`},
		{"schema of another type", `{"schema":1}`, "line 1: json: cannot unmarshal number"},
		{"unknown field", ok + `,"nmae":"x"}`, `json: unknown field "nmae"`},
		{"unknown field deep inside", ok + `,"probes":[{"result":{"x":1}}]}`, `json: unknown field "x"`},
		{"another type", ok + ",\n\n\"target\":\n{\"cpus\": \"two\"}}", "line 4: json: cannot unmarshal string"},
		{"number out of range", ok + ",\n\"seconds\": 1e999}", "line 2: json: cannot unmarshal number 1e999"},
		{"second document", ok + "}\n{}", "line 2: invalid character '{' after top-level value"},
		{"bytes after it", ok + "}\n\x00", "line 2: invalid character '\\x00' after top-level value"},
		{"too long", ok + "}" + strings.Repeat(" ", int(format.Max)), "more than 64 MB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.in))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Decode = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestNewCrash takes reports from consoles that hold the kernel's own lines.
func TestNewCrash(t *testing.T) {
	if got := NewCrash(nil); got != nil {
		t.Errorf("NewCrash of no report = %+v", got)
	}
	for _, tt := range []struct {
		name, console string
		want          Crash
	}{
		{"panic with a stack", "CPU: 1 PID: 7 Comm: a b Not tainted\nKernel panic - not syncing: Attempted to kill init!\nCPU: 1 PID: 7 Comm: a b Not tainted 6.12\nCall trace:\n do_exit+0x1/0x2\n",
			Crash{Kind: "panic", Title: "Attempted to kill init!", Cause: "init died", Task: &Task{Comm: "a b", PID: 7, CPU: 1}, Stack: &stack.Stack{}}},
		{"out of memory", "Out of memory: Killed process 9 (b) total-vm:1kB\n",
			Crash{Kind: "oom", Title: "Out of memory: Killed process 9 (b) total-vm:1kB", Victim: &Task{Comm: "b", PID: 9, CPU: -1}}},
		{"one hang", "INFO: task c:3 blocked for more than 5 seconds.\n",
			Crash{Kind: "hung task", Title: "INFO: task c:3 blocked for more than 5 seconds.", Task: &Task{Comm: "c", PID: 3, CPU: -1}}},
		{"a hang that lasts", "INFO: task c:3 blocked for more than 5 seconds.\nINFO: task c:3 blocked for more than 10 seconds.\n",
			Crash{Kind: "hung task", Title: "INFO: task c:3 blocked for more than 5 seconds.", Task: &Task{Comm: "c", PID: 3, CPU: -1}, Count: 2, Last: "INFO: task c:3 blocked for more than 10 seconds."}},
		{"a hang whose title stays", "BUG: workqueue lockup - pool cpus=0\nBUG: workqueue lockup - pool cpus=0\n",
			Crash{Kind: "stall", Title: "BUG: workqueue lockup - pool cpus=0", Count: 2}},
	} {
		var s crash.Scanner
		s.Write([]byte(tt.console))
		all := s.Reports()
		if len(all) != 1 {
			t.Errorf("%s: %d reports", tt.name, len(all))
			continue
		}
		got := NewCrash(all[0])
		if (got.Stack != nil) != (tt.want.Stack != nil) || len(got.Lines) == 0 {
			t.Errorf("%s: stack %+v, lines %q", tt.name, got.Stack, got.Lines)
		}
		got.Stack, got.Lines, tt.want.Stack = nil, nil, nil
		if d := cmp.Diff(&tt.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
}

func TestTraceCounts(t *testing.T) {
	tr := Trace{CPUs: []TraceCPU{{Events: 3, Lost: 1}, {Events: 4}, {Events: 5, Lost: 2}}}
	if tr.Count() != 12 || tr.Lost() != 3 {
		t.Errorf("%d events, %d lost; want 12, 3", tr.Count(), tr.Lost())
	}
}

func TestReadRun(t *testing.T) {
	d := Dir{t.TempDir()}
	if _, err := d.ReadRun(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadRun of nothing = %v, want ErrNotExist", err)
	}
	if err := d.WriteFile(RunFile, []byte("{\n}x")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadRun(); err == nil || !strings.Contains(err.Error(), d.File(RunFile)+": line 2: ") {
		t.Errorf("ReadRun = %v, want the file and the line", err)
	}
	// A file with a hole: long, but no space on the disk.
	if err := os.Truncate(d.File(RunFile), 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadRun(); err == nil || !strings.Contains(err.Error(), "more than 64 MB") {
		t.Errorf("ReadRun of a terabyte = %v, want a bound", err)
	}
}

func TestCreate(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, want := range []string{"labctl-out/20260102-030405-x", "labctl-out/20260102-030405-x-2", "labctl-out/20260102-030405-x-3"} {
		d, err := Create("", "x", now)
		if err != nil || d.Path != want {
			t.Errorf("Create = %q, %v, want %q", d.Path, err, want)
		}
	}
	for name, file := range map[string]string{"a run": RunFile, "a console": ConsoleFile} {
		d := Dir{strings.ReplaceAll(name, " ", "-")}
		if err := os.Mkdir(d.Path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.File(file), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(d.Path, "x", now); err == nil || !strings.Contains(err.Error(), d.Path+" already holds a run") {
			t.Errorf("Create over %s = %v, want a refusal", name, err)
		}
		if b, err := os.ReadFile(d.File(file)); err != nil || string(b) != "old" {
			t.Errorf("%s is %q, %v after a refusal", name, b, err)
		}
	}
	// A directory that holds something else is taken as it is.
	if err := os.MkdirAll("mine/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Create("mine", "x", now); err != nil {
		t.Errorf("Create in a folder with other things = %v", err)
	}
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Create("file", "x", now); err == nil {
		t.Error("Create at a file = nil")
	}
}

func TestCreateAtOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Now()
	const n = 32
	paths := make([]string, n)
	claimed := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			d, err := Create("", "x", now)
			if err != nil {
				t.Error(err)
			}
			paths[i] = d.Path
			_, claimed[i] = Create("one", "x", now)
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	won := 0
	for i, p := range paths {
		if seen[p] {
			t.Errorf("%s was given twice", p)
		}
		seen[p] = true
		if claimed[i] == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d calls got the same folder, want 1", won)
	}
}

func TestWriteFile(t *testing.T) {
	d := Dir{t.TempDir()}
	a, b := bytes.Repeat([]byte("a"), 300<<10), bytes.Repeat([]byte("b"), 200<<10)
	if err := d.WriteFile("f", a); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for _, data := range [][]byte{a, b} {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.WriteFile("f", data); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		got, err := os.ReadFile(d.File("f"))
		if err != nil || !bytes.Equal(got, a) && !bytes.Equal(got, b) {
			t.Errorf("read %d bytes, %v: neither writer's file", len(got), err)
			break
		}
	}
	close(stop)
	writers.Wait()
	if st, err := os.Stat(d.File("f")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v, want 0644", st.Mode(), err)
	}
	if err := d.WriteFile("no/such", nil); err == nil {
		t.Error("WriteFile below a missing folder = nil")
	}
	if err := os.Mkdir(d.File("folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("folder", a); err == nil {
		t.Error("WriteFile over a folder = nil")
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"testdata/real-v1.json", "testdata/real-v2.json", "testdata/full.json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{
		`{"Schema":"labctl/run/v1","schema":"labctl/run/v1"}`,
		`{"schema":"labctl/run/v1","probes":[{"params":null,"result":{"data":{"x":[1e5,null,"\ud800"]}}}],"started":"2026-01-02T03:04:05+23:59"}`,
		"{\"schema\":\"labctl/run/v1\",\"probes\":[{\"params\":{\"a\" : \"\xff<\"}}]}",
		"{\"schema\":\"labctl/run/v2\",\"probes\":[{\"params\":{\"a\" : \"\xff<\"}}]}",
		`{"schema":"labctl/run/v1","probes":[{"armed":{"missing":["a: b",1]},"bad_lines":1e3,"trace":{}}]}`,
		`{"schema":"labctl/run/v1","outcome":{"kind":"crash","crash":{"kind":1},"how":[]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one clean line: %q", err)
			}
			return
		}
		first, err := encode(r)
		if err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("read what was written: %v\n%s", err, first)
		}
		if second, err := encode(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("not stable: %v\n%s", err, cmp.Diff(string(first), string(second)))
		}
	})
}
