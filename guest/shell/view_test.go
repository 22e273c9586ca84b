package shell

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

var update = flag.Bool("update", false, "rewrite golden files")

// fakeTracefs takes the names that a kernel has, as the kernel does: a word at a
// time, and an empty filter reads as "all functions".
type fakeTracefs struct {
	functions []string // globs match these
	events    []string // "sched/sched_switch"
	files     []string // others that are there
	content   map[string][]string
}

func (k *fakeTracefs) Open(name string, flag int) (io.WriteCloser, error) {
	if event, ok := strings.CutPrefix(path.Dir(name), "events/"); ok && !slices.ContainsFunc(k.events, func(e string) bool { return e == event || path.Dir(e) == event }) ||
		!ok && !slices.Contains(k.files, name) {
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if flag&os.O_TRUNC != 0 {
		delete(k.content, name)
	}
	return &fakeFile{k, name}, nil
}

func (k *fakeTracefs) Head(name string) string {
	switch {
	case name == "available_tracers":
		return "function_graph function nop\n"
	case len(k.content[name]) == 0:
		return "#### all functions enabled ####\n"
	}
	return strings.Join(k.content[name], "\n")
}

type fakeFile struct {
	kernel *fakeTracefs
	name   string
}

func (f *fakeFile) Close() error { return nil }

func (f *fakeFile) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	refused := func(err error) (int, error) {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	switch {
	case strings.HasPrefix(f.name, "set_ftrace") || strings.HasPrefix(f.name, "set_graph"):
		word, _, _ := strings.Cut(strings.TrimPrefix(text, "!"), ":")
		if text != "" && !matches(word, f.kernel.functions) {
			return refused(syscall.EINVAL)
		}
	case f.name == "set_event":
		if !slices.Contains(f.kernel.events, strings.Replace(text, ":", "/", 1)) {
			return refused(syscall.EINVAL)
		}
	case f.name == "kprobe_events":
		if !slices.Contains(f.kernel.functions, strings.Fields(text)[1]) {
			return refused(syscall.ENOENT)
		}
	case f.name == "current_tracer":
		if !slices.Contains([]string{"function", "function_graph", "nop"}, text) {
			return refused(syscall.EINVAL)
		}
	}
	if text != "" {
		f.kernel.content[f.name] = append(f.kernel.content[f.name], text)
	}
	return len(p), nil
}

func matches(glob string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { ok, _ := path.Match(glob, n); return ok })
}

// functionsOf are a real kernel's, as far as they matter.
func functionsOf(t *testing.T, kernel string) (names []string) {
	t.Helper()
	data, err := os.ReadFile("../ksym/testdata/functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); slices.Contains(words[1:], kernel) {
			names = append(names, words[0])
		}
	}
	return names
}

// runView runs a script on a fake tracefs and returns what it printed, what became
// of its names, and what the files hold then.
func runView(t *testing.T, script, kernel string) string {
	t.Helper()
	root := t.TempDir()
	t.Setenv("TRACEFS", root)
	k := &fakeTracefs{
		functions: functionsOf(t, kernel),
		events:    []string{"sched/sched_switch", "sched/sched_process_fork", "sched/sched_process_exit", "signal/signal_generate", "irq/irq_handler_entry", "kmem/kmalloc", "kmem/kmem_cache_alloc"},
		files:     []string{"tracing_on", "events/enable", "current_tracer", "set_ftrace_filter", "set_ftrace_notrace", "set_graph_function", "set_event", "kprobe_events", "options/func_stack_trace", "options/sym-offset"},
		content:   map[string][]string{},
	}
	// The files of the whole system come in no directory of one.
	k.events = append(k.events, ".")
	out, err := os.Create(filepath.Join(root, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s, err := newShell(options{args: []string{script}}, nil, out, out)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s.view = &view{roots: append([]string{root}, tracefsRoots...), files: k, log: func(n wire.TraceName) { fmt.Fprintf(&log, "%v\n", n) }}
	source, err := readScript(script)
	if err != nil {
		t.Fatal(err)
	}
	status := s.runSource(script, source)
	printed, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## %s: status %d\n%s## names\n%s## files\n", kernel, status, printed, log.String())
	for _, name := range k.files {
		if lines := k.content[name]; len(lines) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(lines, " | "))
		}
	}
	for _, e := range k.events {
		for _, name := range []string{"events/" + e + "/enable", "events/" + path.Dir(e) + "/enable"} {
			if lines := k.content[name]; len(lines) > 0 {
				fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(lines, " | "))
			}
		}
	}
	return b.String()
}

func TestView(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.sh")
	if err != nil || len(scripts) < 3 {
		t.Fatalf("scripts = %v, %v", scripts, err)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			got := runView(t, script, "amd64-5.10") + runView(t, script, "arm64-7.2")
			golden := strings.TrimSuffix(script, ".sh") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", script, diff)
			}
		})
	}
}

// Where the kernel takes nothing at all, that is said, and once.
func TestViewNoStandIn(t *testing.T) {
	k := &fakeTracefs{files: []string{"set_ftrace_filter"}, content: map[string][]string{}}
	var names []wire.TraceName
	v := &view{roots: tracefsRoots, files: k, log: func(n wire.TraceName) { names = append(names, n) }}
	f, err, ok := v.open("/sys/kernel/debug/../debug/tracing/set_ftrace_filter", os.O_TRUNC)
	if err != nil || !ok {
		t.Fatalf("open = %v, %v", err, ok)
	}
	if _, err := io.WriteString(f, "nothing"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	want := []wire.TraceName{
		{File: "set_ftrace_filter", Asked: "nothing", Why: "no function of this name can be traced in this kernel"},
		{File: "set_ftrace_filter", Asked: "(none of them)", Why: "every function is traced"},
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	for _, other := range []string{"/sys/kernel/tracingx/tracing_on", "/sys/kernel/tracing", "/tmp/set_ftrace_filter"} {
		if _, _, ok := v.open(other, 0); ok {
			t.Errorf("open(%s) is taken for tracefs", other)
		}
	}
}

func TestViewLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	want := wire.TraceName{File: "set_ftrace_filter", Asked: "_do_fork", Became: "kernel_clone", Why: "renamed"}
	for range 2 { // appended to
		log, err := openViewLog(name)
		if err != nil {
			t.Fatal(err)
		}
		log(want)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 2 {
		t.Fatalf("log = %q; want two lines", data)
	}
	var got wire.TraceName
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || got != want {
		t.Errorf("log line = %+v, %v; want %+v", got, err, want)
	}
}

// Whatever a script writes, the view takes it and gives the kernel whole lines.
func FuzzView(f *testing.F) {
	for _, seed := range []string{"do_exit _do_fork\n", "!x:y", "p:a b+4 c=%di", "-:a", "p", "p ", "+", "a:b:c\n\n*\n"} {
		f.Add("set_ftrace_filter", seed)
		f.Add("kprobe_events", seed)
		f.Add("set_event", seed)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		k := &lineFiles{t: t}
		v := &view{roots: tracefsRoots, files: k, log: func(wire.TraceName) {}}
		file, err := v.openBelow(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.WriteString(file, text); n != len(text) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
		file.Close()
	})
}

// lineFiles refuse all and want whole lines.
type lineFiles struct{ t *testing.T }

func (l *lineFiles) Open(string, int) (io.WriteCloser, error) { return l, nil }
func (l *lineFiles) Head(string) string                       { return "" }
func (l *lineFiles) Close() error                             { return nil }
func (l *lineFiles) Write(p []byte) (int, error) {
	if !bytes.HasSuffix(p, []byte("\n")) {
		l.t.Errorf("the kernel got %q", p)
	}
	return 0, syscall.EINVAL
}

// TestStrictView: commands that are typed get the names of this kernel, an error for what
// it has not got, and no trace of every function for want of one.
func TestStrictView(t *testing.T) {
	for _, tt := range []struct {
		name, lines string
		out, log    string
		filter      string
		status      int
	}{
		{"renamed", "echo _do_fork > T/set_ftrace_filter; echo status $?\n", "status 0\n", "set_ftrace_filter: _do_fork → kernel_clone (renamed, cad6967ac108)\n", "kernel_clone", 0},
		{"one of two", "echo nosuch kernel_clone > T/set_ftrace_filter; echo status $?\n", "status 0\n",
			"set_ftrace_filter: nosuch is not there: no function of this name can be traced in this kernel\nset_ftrace_filter: kernel_clone\n", "kernel_clone", 0},
		{"none", "echo nosuch > T/set_ftrace_filter; echo and\necho after > T/tracing_on\n", "sh: what follows is not run\n",
			"set_ftrace_filter: nosuch is not there: no function of this name can be traced in this kernel\nset_ftrace_filter: (none of them) → kernel_halt (an empty filter is every function; this one does not run)\n", "kernel_halt", 1},
		{"no such file", "echo 1 > T/events/sched/nosuch/enable || echo refused\n", "refused\n", "events/sched/nosuch/enable: sched/nosuch is not there: no such event in this kernel\n", "", 0},
		{"a value", "echo wakeup > T/current_tracer || echo refused\n", "refused\n", "current_tracer: wakeup is not there: this kernel has function_graph, function, nop\n", "", 0},
		{"emptied", "echo > T/set_ftrace_filter && echo emptied\n", "emptied\n", "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			k := &fakeTracefs{
				functions: []string{"kernel_clone", "kernel_halt"}, events: []string{"sched/sched_switch"},
				files: []string{"set_ftrace_filter", "current_tracer", "tracing_on"}, content: map[string][]string{},
			}
			out, err := os.Create(filepath.Join(root, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			s, err := newShell(options{}, nil, out, out)
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s.view = &view{strict: true, roots: []string{root}, files: k, log: func(n wire.TraceName) { fmt.Fprintf(&log, "%v\n", n) }}
			status := s.runInput(strings.NewReader(strings.ReplaceAll(tt.lines, "T/", root+"/")))
			printed, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			if got := string(printed); got != tt.out || status != tt.status {
				t.Errorf("printed %q, status %d; want %q, %d", got, status, tt.out, tt.status)
			}
			if diff := cmp.Diff(tt.log, log.String()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
			if got := strings.Join(k.content["set_ftrace_filter"], " "); got != tt.filter {
				t.Errorf("filter = %q, want %q", got, tt.filter)
			}
			if got := k.content["tracing_on"]; got != nil {
				t.Errorf("tracing_on = %q: a command after the refused one was run", got)
			}
		})
	}
}
