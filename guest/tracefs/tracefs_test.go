package tracefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"labctl/guest/wire"
)

// fakeKernel stands for tracefs in a directory of plain files: it gives the files
// a new instance has, knows some symbols, and holds the kernel's rules that the
// order of the commands must respect. log is what was written, in order.
type fakeKernel struct {
	t       *testing.T
	root    string
	symbols map[string]bool
	probes  map[string]bool // kprobe events: "labctl_lab/clone"
	log     []string
	fail    map[string]error  // by path below root
	tracers string            // that instances may have
	pages   map[string][]byte // of each CPU: "cpu0"
	busy    int               // how often an instance is busy before it goes
	hists   bool              // events have histograms
	more    map[string]string // files of a new instance
	// busyEvents is how often a synthetic event cannot be removed yet.
	busyEvents int
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
	for _, f := range []string{"tracing_on", "trace", "buffer_size_kb", "options/stacktrace", "events/sched/sched_process_fork/enable"} {
		k.file(rel+"/"+f, "")
	}
	k.captureFiles(rel)
	for name, text := range k.more {
		k.file(rel+"/"+name, text)
	}
	for e := range k.probes { // instances have all probes
		k.file(rel+"/events/"+e+"/enable", "0")
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
	if rel == "kprobe_events" || rel == "dynamic_events" {
		if flag != os.O_APPEND {
			k.t.Errorf("%s opened with flag %#x: that removes all probes", rel, flag)
		}
		if f := strings.HasPrefix(text, "f:"); f != (rel == "dynamic_events") && !strings.HasPrefix(text, "-:") {
			k.t.Errorf("%s got %q", rel, text)
		}
		return k.kprobe(strings.TrimSpace(text))
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if rel == "synthetic_events" {
		if flag != os.O_APPEND {
			k.t.Errorf("synthetic_events opened with flag %#x: that removes all events", flag)
		}
		if strings.HasPrefix(text, "!") && k.busyEvents > 0 {
			k.busyEvents--
			return syscall.EBUSY
		}
	}
	if filepath.Base(rel) == "trigger" && strings.Contains(text, "hist:") {
		if flag != os.O_APPEND {
			k.t.Errorf("%s opened with flag %#x: that removes all triggers", rel, flag)
		}
		if err := k.histTrigger(rel, text); err != nil {
			return err
		}
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
		if !k.probes[rest] {
			return &fs.PathError{Op: "write", Path: "kprobe_events", Err: syscall.ENOENT}
		}
		if b, err := os.ReadFile(filepath.Join(k.root, "instances/lab/events", rest, "enable")); err == nil && string(b) == "1" {
			return syscall.EBUSY
		}
		delete(k.probes, rest)
		k.log = append(k.log, cmd)
		return nil
	}
	words := strings.Fields(cmd)
	name := strings.TrimPrefix(strings.TrimPrefix(words[0], "p:"), "f:")
	if !k.symbols[words[1]] {
		k.file("error_log", fmt.Sprintf("[    1.5] trace_kprobe: error: Invalid probed address or symbol\n  Command: %s\n%s^\n",
			cmd, strings.Repeat(" ", len("  Command: ")+strings.Index(cmd, words[1]))))
		return &fs.PathError{Op: "write", Path: "kprobe_events", Err: syscall.EINVAL}
	}
	if k.probes[name] {
		return &fs.PathError{Op: "write", Path: "kprobe_events", Err: syscall.EEXIST}
	}
	k.probes[name] = true
	k.file("instances/lab/events/"+name+"/enable", "0")
	k.file("instances/lab/events/"+name+"/format", "name: "+filepath.Base(name)+"\n")
	k.log = append(k.log, cmd)
	return nil
}

var forkFamily = wire.Kprobe{Event: "clone", Alternatives: []wire.KprobeTry{
	{Symbol: "kernel_clone", Args: []string{"flags=+0(%di):x64"}},
	{Symbol: "_do_fork", Args: []string{"flags=%di:x64"}},
	{Symbol: "do_fork", Args: []string{"flags=%di:x64"}},
}}

func TestOpenNoTracefs(t *testing.T) {
	if _, err := Open(t.TempDir(), "/proc"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(plain folder) = %v, want %v", err, fs.ErrNotExist)
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

func FuzzStatValues(f *testing.F) {
	f.Add("entries: 36\noverrun: 0\ncommit overrun: 0\nbytes: 5000\noldest event ts:     6.55\nnow ts:     7.2\ndropped events: 0\nread events: 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		for name, n := range statValues(text) {
			if n < 0 || strings.Contains(name, "\n") {
				t.Errorf("statValues(%q) has %q: %d", text, name, n)
			}
		}
	})
}
