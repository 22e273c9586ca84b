package tracefs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

// fakeKernel stands for tracefs in a folder of plain files: it gives the files
// a new instance has, knows some symbols, and holds the kernel's rules that the
// order of the commands must respect. log is what was written, in order.
type fakeKernel struct {
	t       *testing.T
	root    string
	symbols map[string]bool
	probes  map[string]bool // events in group labctl
	log     []string
	fail    map[string]error  // by path below root
	tracers string            // that instances may have
	pages   map[string][]byte // of each CPU: "cpu0"
	busy    int               // how often an instance is busy before it goes
}

func newFake(t *testing.T) (*fakeKernel, *FS) {
	k := &fakeKernel{t: t, root: t.TempDir(), symbols: map[string]bool{"_do_fork": true}, tracers: "function_graph function nop\n", probes: map[string]bool{}, fail: map[string]error{}}
	k.file("instances/.keep", "")
	k.file("kprobe_events", "")
	k.file("error_log", "")
	fsys, err := Open(k.root, filepath.Join(k.root, "proc"))
	if err != nil {
		t.Fatal(err)
	}
	fsys.files = k
	return k, fsys
}

func (k *fakeKernel) file(path, text string) {
	k.t.Helper()
	path = filepath.Join(k.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func (k *fakeKernel) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	rel, _ := filepath.Rel(k.root, path)
	k.log = append(k.log, "mkdir "+rel)
	for _, f := range []string{"tracing_on", "trace", "buffer_size_kb", "options/stacktrace", "options/sym-offset", "options/sym-addr", "events/sched/sched_process_fork/enable"} {
		k.file(rel+"/"+f, "")
	}
	for e := range k.probes {
		k.file(rel+"/events/labctl/"+e+"/enable", "0")
	}
	k.file(rel+"/trace", "# tracer: nop\nline\n")
	k.file(rel+"/per_cpu/cpu0/stats", "entries: 3\noverrun: 1\ncommit overrun: 9\n")
	k.file(rel+"/per_cpu/cpu1/stats", "entries: 4\noverrun: 0\n")
	if k.pages != nil {
		k.recordFiles(rel)
	}
	return nil
}

func (k *fakeKernel) Rmdir(path string) error {
	rel, _ := filepath.Rel(k.root, path)
	if k.busy > 0 {
		k.busy--
		return syscall.EBUSY
	}
	k.log = append(k.log, "rmdir "+rel)
	return os.RemoveAll(path)
}

func (k *fakeKernel) Write(path, text string, flag int) error {
	rel, _ := filepath.Rel(k.root, path)
	if err := k.fail[rel]; err != nil {
		return err
	}
	if rel == "kprobe_events" {
		if flag != os.O_APPEND {
			k.t.Errorf("kprobe_events opened with flag %#x: that removes all probes", flag)
		}
		return k.kprobe(strings.TrimSpace(text))
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if rel != "error_log" {
		k.log = append(k.log, strings.TrimPrefix(rel, "instances/lab/")+"="+strings.TrimSpace(text))
	}
	if filepath.Base(rel) == "set_ftrace_filter" && strings.TrimSpace(text) != "" && !k.symbols[strings.TrimSpace(text)] {
		return syscall.EINVAL
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (k *fakeKernel) kprobe(cmd string) error {
	if rest, ok := strings.CutPrefix(cmd, "-:"); ok {
		group, event, _ := strings.Cut(rest, "/")
		if !k.probes[event] {
			return &fs.PathError{Op: "write", Path: "kprobe_events", Err: syscall.ENOENT}
		}
		if b, err := os.ReadFile(filepath.Join(k.root, "instances/lab/events", group, event, "enable")); err == nil && string(b) == "1" {
			return syscall.EBUSY
		}
		delete(k.probes, event)
		k.log = append(k.log, cmd)
		return nil
	}
	words := strings.Fields(cmd)
	group, event, _ := strings.Cut(strings.TrimPrefix(words[0], "p:"), "/")
	if !k.symbols[words[1]] {
		k.file("error_log", fmt.Sprintf("[    1.5] trace_kprobe: error: Invalid probed address or symbol\n  Command: %s\n%s^\n",
			cmd, strings.Repeat(" ", len("  Command: ")+strings.Index(cmd, words[1]))))
		return &fs.PathError{Op: "write", Path: "kprobe_events", Err: syscall.EINVAL}
	}
	k.probes[event] = true
	k.file("instances/lab/events/"+group+"/"+event+"/enable", "0")
	k.file("instances/lab/events/"+group+"/"+event+"/format", "name: "+event+"\n")
	k.log = append(k.log, cmd)
	return nil
}

var forkFamily = wire.Kprobe{Event: "clone", Alternatives: []wire.KprobeTry{
	{Symbol: "kernel_clone", Args: []string{"flags=+0(%di):x64"}},
	{Symbol: "_do_fork", Args: []string{"flags=%di:x64"}},
	{Symbol: "do_fork", Args: []string{"flags=%di:x64"}},
}}

func TestStartStop(t *testing.T) {
	k, fsys := newFake(t)
	k.file("proc/sys/debug/kprobes-optimization", "1")
	in, armed, err := fsys.Start(wire.TraceParams{
		Instance: "lab", Stacks: true, BufferKB: 4096,
		Probes: []wire.Kprobe{forkFamily, {Event: "opt", Optional: true, Alternatives: []wire.KprobeTry{{Symbol: "nosuch"}}}},
		Events: []string{"sched/sched_process_fork", "sched/nosuch"},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantArmed := wire.TraceArmed{
		Symbols: map[string]string{"clone": "_do_fork"},
		Missing: []string{
			"probe opt: no alternative taken (nosuch: invalid argument (trace_kprobe: Invalid probed address or symbol at nosuch))",
			"event sched/nosuch: no such file or directory",
		},
	}
	if diff := cmp.Diff(wantArmed, armed); diff != "" {
		t.Errorf("Start (-want +got):\n%s", diff)
	}
	var text bytes.Buffer
	stopped, err := in.Stop(&text)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Remove(); err != nil {
		t.Fatal(err)
	}
	if want := (wire.TraceStopped{Bytes: int64(text.Len()), Entries: 7, Overrun: 1}); stopped != want || text.Len() == 0 {
		t.Errorf("Stop() = %+v, want %+v", stopped, want)
	}
	want := []string{
		"mkdir instances/lab",
		"tracing_on=0",
		"buffer_size_kb=4096",
		"options/stacktrace=1",
		"options/sym-offset=1",
		"options/sym-addr=0",
		"proc/sys/debug/kprobes-optimization=0",
		"p:labctl/clone _do_fork flags=%di:x64",
		"events/labctl/clone/enable=1",
		"events/sched/sched_process_fork/enable=1",
		"tracing_on=1", // last
		"tracing_on=0",
		"events/labctl/clone/enable=0",
		"events/sched/sched_process_fork/enable=0",
		"rmdir instances/lab",
		"-:labctl/clone",
	}
	if diff := cmp.Diff(want, k.log); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

// What an earlier run left behind is removed first.
func TestStartOverLeftovers(t *testing.T) {
	k, fsys := newFake(t)
	p := wire.TraceParams{Instance: "lab", Probes: []wire.Kprobe{forkFamily}}
	if _, _, err := fsys.Start(p); err != nil {
		t.Fatal(err)
	}
	in, _, err := fsys.Start(p)
	if err != nil {
		t.Fatalf("second Start: %v", err)
	}
	if err := in.Remove(); err != nil {
		t.Fatal(err)
	}
	if len(k.probes) != 0 {
		t.Errorf("probes left: %v", k.probes)
	}
}

// On an error nothing is left behind, and the error says what the kernel said.
func TestStartErrors(t *testing.T) {
	nowhere := wire.Kprobe{Event: "nowhere", Alternatives: []wire.KprobeTry{{Symbol: "a1"}, {Symbol: "a2"}}}
	for _, tt := range []struct {
		name   string
		probes []wire.Kprobe
		fail   string
		want   string
	}{
		{"probe refused", []wire.Kprobe{forkFamily, nowhere}, "", "probe nowhere: no alternative taken (a1: invalid argument (trace_kprobe: Invalid probed address or symbol at a1); a2: "},
		{"cannot enable", []wire.Kprobe{forkFamily}, "instances/lab/events/labctl/clone/enable", "_do_fork: input/output error"},
		{"cannot start", nil, "instances/lab/tracing_on", "hold trace: input/output error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, fsys := newFake(t)
			k.fail[tt.fail] = syscall.EIO
			_, _, err := fsys.Start(wire.TraceParams{Instance: "lab", Probes: tt.probes})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want %q in it", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(k.root, "instances/lab")); !errors.Is(err, fs.ErrNotExist) || len(k.probes) != 0 {
				t.Errorf("left behind: instance (%v), probes %v", err, k.probes)
			}
		})
	}
}

func TestOpenNoTracefs(t *testing.T) {
	if _, err := Open(t.TempDir(), "/proc"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(plain folder) = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestCheck(t *testing.T) {
	probe := func(event, symbol string, args ...string) wire.TraceParams {
		return wire.TraceParams{Instance: "i", Probes: []wire.Kprobe{{Event: event, Alternatives: []wire.KprobeTry{{Symbol: symbol, Args: args}}}}}
	}
	for _, tt := range []struct {
		p    wire.TraceParams
		want string // empty for no error
	}{
		{wire.TraceParams{Instance: "lab-1_x", Events: []string{"sched/sched_process_fork"}}, ""},
		{probe("clone", "kernel_clone+0x4", "flags=+0(%di):x64", "s=+u8($stack2):ustring"), ""},
		{probe("clone", "virtio_console:port_fops_open"), ""},
		{wire.TraceParams{}, "trace instance"},
		{wire.TraceParams{Instance: "../x"}, "trace instance"},
		{wire.TraceParams{Instance: "a/b"}, "trace instance"},
		{wire.TraceParams{Instance: "i", BufferKB: -1}, "buffer"},
		{wire.TraceParams{Instance: "i", Events: []string{"sched"}}, "SYSTEM/EVENT"},
		{wire.TraceParams{Instance: "i", Events: []string{"../../x"}}, "SYSTEM/EVENT"},
		{wire.TraceParams{Instance: "i", Probes: []wire.Kprobe{forkFamily, forkFamily}}, "named twice"},
		{wire.TraceParams{Instance: "i", Probes: []wire.Kprobe{{Event: "e"}}}, "no alternatives"},
		{probe("1x", "f"), "C identifier"},
		{probe("a/b", "f"), "C identifier"},
		{probe("e", ""), "empty"},
		{probe("e", "f\n-:x"), "not one word"},
		{probe("e", "f", "a b"), "not one word"},
		{probe("e", "f", "a;b"), "not one word"},
		{probe("e", "f", "ä"), "not one word"},
	} {
		err := check(tt.p)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("check(%+v) = %v, want %q", tt.p, err, tt.want)
		}
	}
}

func TestLastError(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"\n", ""},
		// From 6.12.107, arm64.
		{"[    6.692936] trace_kprobe: error: Invalid register name\n  Command: p:labctl/opt kernel_clone x=%nosuch\n                                       ^\n", "trace_kprobe: Invalid register name at %nosuch"},
		{"[ 1.0] trace_kprobe: error: First\n  Command: p:a b\n           ^\n[ 2.0] trace_kprobe: error: Last\n  Command: p:a b\n               ^\n", "trace_kprobe: Last at b"},
		{"[ 1.0] trace_kprobe: error: No caret\n  Command: p:a b\n", "trace_kprobe: No caret"},
		{"[ 1.0] x: error: First letter\n  Command: p:a b\n           ^\n", "x: First letter at p:a"},
		{"[ 1.0] x: error: Before it\n  Command: p:a b\n          ^\n", "x: Before it"},
		{"[ 1.0] x: error: Last letter\n  Command: p:a b\n               ^\n", "x: Last letter at b"},
		{"[ 1.0] x: error: Behind it\n  Command: p:a b\n                ^\n", "x: Behind it"},
		{"[ 1.0] x: error: At the margin\n  Command: p:a b\n^\n", "x: At the margin"},
		{"[ 1.0] x: error: No command\n           ^\n", "x: No command"},
		{"some] other: error: line\n[no stamp\n", ""},
		{"[ 1.0] " + strings.Repeat("x", 160) + "\n", strings.Repeat("x", 160)},
		{"[ 1.0] " + strings.Repeat("x", 161) + "\n", strings.Repeat("x", 160) + "…"},
		{"  Command: x\n", ""},
	} {
		if got := lastError(tt.text); got != tt.want {
			t.Errorf("lastError(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add("[    6.2] trace_kprobe: error: Invalid register name\n  Command: p:labctl/opt kernel_clone x=%nosuch\n                                         ^\n")
	f.Add("  Command: \n^\n           ^")
	f.Fuzz(func(t *testing.T, text string) {
		if got := lastError(text); len(got) > 164 {
			t.Errorf("lastError() = %d bytes", len(got))
		}
	})
}

func FuzzParseStats(f *testing.F) {
	f.Add("entries: 36\noverrun: 0\ncommit overrun: 0\nbytes: 5000\noldest event ts:     6.55\nnow ts:     7.2\ndropped events: 0\nread events: 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		if e, o := parseStats(text); e < 0 || o < 0 {
			t.Errorf("parseStats(%q) = %d, %d", text, e, o)
		}
	})
}
