package shell

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"syscall"

	"labctl/guest/ksym"
	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// tracefsRoots are the paths by which scripts reach tracefs; the last is where it
// is mounted.
var tracefsRoots = []string{tracefs.OldRoot, tracefs.Root}

// view shows an old script the tracefs that it was written for: what it writes by
// a redirection (`echo _do_fork > set_ftrace_filter`) is changed to names that
// this kernel has, and what the kernel has not is said and does not stop the
// script. A name counts as there when the kernel takes it: asking costs one look
// at all functions, reading available_filter_functions ten.
//
// Reads pass through. What programs write by themselves (tee, dd, cp) is not
// seen; what they write to a standard output that was redirected is.
type view struct {
	log    viewLog
	roots  []string
	files  tracefsFiles
	strict bool // what the kernel has not got is an error

	halt atomic.Bool // a strict one has been asked for functions, and there is none
}

// errRefused is what a command gets that wrote only what the kernel has not got. The log
// says why.
var errRefused = errors.New("not in this kernel")

// halted reports whether the commands that follow would trace every function.
func (v *view) halted() bool { return v != nil && v.halt.Load() }

// resume is for a new line.
func (v *view) resume() {
	if v != nil {
		v.halt.Store(false)
	}
}

// viewLog is called for every name, those that stay as they are too.
type viewLog func(wire.TraceName)

// tracefsFiles are the files of tracefs by their path below its root.
type tracefsFiles interface {
	// Open opens for writing; flag is os.O_TRUNC, os.O_APPEND or 0.
	Open(name string, flag int) (io.WriteCloser, error)
	// Head reads the beginning of a file, empty where it cannot.
	Head(name string) string
}

func newView(log viewLog) *view {
	return &view{log: log, roots: tracefsRoots, files: kernelTracefs(tracefs.Find())}
}

// kernelTracefs is the real one, mounted here.
type kernelTracefs string

func (root kernelTracefs) Open(name string, flag int) (io.WriteCloser, error) {
	return os.OpenFile(path.Join(string(root), name), os.O_WRONLY|flag, 0)
}

func (root kernelTracefs) Head(name string) string {
	f, err := os.Open(path.Join(string(root), name))
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 4<<10)
	n, _ := io.ReadFull(f, head)
	return string(head[:n])
}

// changes prints what is not as it was asked for.
func changes(w io.Writer) viewLog {
	return func(n wire.TraceName) {
		if n.Became != n.Asked {
			fmt.Fprintf(w, "sh: %v\n", n)
		}
	}
}

// openViewLog appends to a file that several shells write.
func openViewLog(name string) (viewLog, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--trace-log: %w", err)
	}
	return func(n wire.TraceName) {
		if line, err := json.Marshal(n); err == nil {
			f.Write(append(line, '\n'))
		}
	}, nil
}

// open opens a file of tracefs; ok says that it is one.
func (v *view) open(name string, flag int) (f io.ReadWriteCloser, err error, ok bool) {
	name = path.Clean(name)
	for _, root := range v.roots {
		if below, isBelow := strings.CutPrefix(name, root+"/"); isBelow {
			f, err := v.openBelow(below, flag&(os.O_TRUNC|os.O_APPEND))
			return f, err, true
		}
	}
	return nil, nil, false
}

func (v *view) openBelow(name string, flag int) (io.ReadWriteCloser, error) {
	f, err := v.files.Open(name, flag)
	other := errors.Is(err, fs.ErrNotExist)
	if other {
		if f = v.openOther(name, flag); f == nil {
			return discard{v.strict}, nil
		}
	} else if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: bare(err)}
	}
	t := &tracefsFile{view: v, name: name, file: f, other: other}
	switch path.Base(name) {
	case "set_ftrace_filter", "set_graph_function":
		t.line, t.emptyIsAll = t.functions, true
	case "set_ftrace_notrace", "set_graph_notrace":
		t.line = t.functions
	case "set_event":
		t.line = t.events
	case "kprobe_events":
		t.line = t.kprobe
	case "enable":
		t.line = t.enable
	default:
		t.line = t.value
	}
	return t, nil
}

// openOther opens what a missing file of an event is called now, or says that
// there is nothing and returns nil.
func (v *view) openOther(name string, flag int) io.WriteCloser {
	instance, below := splitInstance(name)
	parts := strings.Split(below, "/")
	if parts[0] != "events" || len(parts) < 3 {
		v.log(wire.TraceName{File: name, Asked: path.Base(name), Why: "no such file in this kernel's tracefs"})
		return nil
	}
	if len(parts) == 3 { // events/SYSTEM/enable
		v.log(wire.TraceName{File: name, Asked: parts[1], Why: "no events of this name in this kernel"})
		return nil
	}
	event := parts[1] + "/" + parts[2]
	for _, c := range ksym.EventCandidates(event)[1:] {
		f, err := v.files.Open(path.Join(append([]string{instance, "events", c.Name}, parts[3:]...)...), flag)
		if err == nil {
			v.log(wire.TraceName{File: name, Asked: event, Became: c.Name, Why: c.Why})
			return f
		}
	}
	v.log(wire.TraceName{File: name, Asked: event, Why: "no such event in this kernel"})
	return nil
}

// splitInstance takes instances/NAME off.
func splitInstance(name string) (instance, below string) {
	if parts := strings.SplitN(name, "/", 3); len(parts) == 3 && parts[0] == "instances" {
		return "instances/" + parts[1], parts[2]
	}
	return "", name
}

// tracefsFile is an open file that takes whole lines.
type tracefsFile struct {
	view *view
	name string
	file io.WriteCloser
	line func(string)

	other      bool         // what the script asked for is called so now, which is logged
	rest       bytes.Buffer // a line that has not ended
	names      int          // written at once, of which the kernel takes
	good       int          // so many
	asked      int          // functions to be traced
	taken      int
	emptyIsAll bool // no function means every function
}

func (*tracefsFile) Read([]byte) (int, error) { return 0, io.EOF }

// Write fails only in a strict view: what the kernel refuses is logged, and a script goes
// on.
func (t *tracefsFile) Write(p []byte) (int, error) {
	t.names, t.good = 0, 0
	t.rest.Write(p)
	for {
		i := bytes.IndexByte(t.rest.Bytes(), '\n')
		if i < 0 {
			break
		}
		t.line(strings.TrimRight(string(t.rest.Next(i+1)), "\n"))
	}
	if t.view.strict && t.names > 0 && t.good == 0 {
		return 0, errRefused
	}
	return len(p), nil
}

func (t *tracefsFile) Close() error {
	if t.rest.Len() > 0 {
		t.line(t.rest.String())
		t.rest.Reset()
	}
	if err := t.file.Close(); err != nil {
		t.log("", "", bare(err).Error())
	}
	if t.emptyIsAll && t.asked > 0 && t.taken == 0 && strings.HasPrefix(t.view.files.Head(t.name), "####") {
		t.standIn()
		t.view.halt.Store(t.view.strict)
	}
	return nil
}

// standIn keeps a filter that was to have functions from meaning all of them,
// which brings a guest to a stand.
func (t *tracefsFile) standIn() {
	f, err := t.view.files.Open(t.name, os.O_APPEND)
	if err != nil {
		t.log("", "", "every function is traced: "+bare(err).Error())
		return
	}
	defer f.Close()
	for _, name := range ksym.StandIns {
		if _, err := io.WriteString(f, name+"\n"); err == nil {
			t.log("(none of them)", name, "an empty filter is every function; this one does not run")
			return
		}
	}
	t.log("(none of them)", "", "every function is traced")
}

func (t *tracefsFile) log(asked, became, why string) {
	t.names++
	if became != "" {
		t.good++
	}
	t.view.log(wire.TraceName{File: t.name, Asked: asked, Became: became, Why: why})
}

// first returns the first candidate that the kernel takes, or its word on the name
// that was asked for.
func (t *tracefsFile) first(candidates []ksym.Candidate, write func(name string) string) (ksym.Candidate, error) {
	var refusal error
	for _, c := range candidates {
		_, err := io.WriteString(t.file, write(c.Name)+"\n")
		if err == nil {
			return c, nil
		}
		if refusal == nil {
			refusal = bare(err)
		}
	}
	return ksym.Candidate{}, refusal
}

// functions takes a line of set_ftrace_filter: FUNCTION, a glob, !FUNCTION, or
// FUNCTION:COMMAND.
func (t *tracefsFile) functions(line string) {
	for word := range strings.FieldsSeq(line) {
		name, not := strings.CutPrefix(word, "!")
		name, command, isCommand := strings.Cut(name, ":")
		candidates := []ksym.Candidate{{Name: name}}
		if !isGlob(name) {
			candidates = ksym.FunctionCandidates(name)
		}
		c, err := t.first(candidates, func(name string) string {
			if not {
				name = "!" + name
			}
			if isCommand {
				name += ":" + command
			}
			return name
		})
		if !not && !isCommand {
			t.asked++
			if err == nil {
				t.taken++
			}
		}
		switch {
		case err != nil:
			t.log(name, "", absent(name, err))
		case not:
			t.log("!"+name, "!"+c.Name, c.Why)
		default:
			t.log(name, c.Name, c.Why)
		}
	}
}

// absent says why there is no such function.
func absent(function string, refusal error) string {
	if why := ksym.Absent(function); why != "" {
		return why
	}
	if errors.Is(refusal, syscall.EINVAL) || errors.Is(refusal, syscall.ENOENT) {
		return "no function of this name can be traced in this kernel"
	}
	return refusal.Error()
}

// events takes a line of set_event: SYSTEM:EVENT, EVENT, globs, and ! before them.
func (t *tracefsFile) events(line string) {
	for word := range strings.FieldsSeq(line) {
		name, not := strings.CutPrefix(word, "!")
		candidates := []ksym.Candidate{{Name: name}}
		if system, event, ok := strings.Cut(name, ":"); ok && !isGlob(name) {
			candidates = ksym.EventCandidates(system + "/" + event)
			for i := range candidates {
				candidates[i].Name = strings.Replace(candidates[i].Name, "/", ":", 1)
			}
		}
		c, err := t.first(candidates, func(name string) string {
			if not {
				name = "!" + name
			}
			return name
		})
		switch {
		case err != nil:
			t.log(name, "", "no such event in this kernel")
		case not:
			t.log("!"+name, "!"+c.Name, c.Why)
		default:
			t.log(name, c.Name, c.Why)
		}
	}
}

// kprobe takes a line of kprobe_events: p[:EVENT] SYMBOL[+OFFSET] [ARGS].
func (t *tracefsFile) kprobe(line string) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0][0] != 'p' && words[0][0] != 'r' {
		t.value(line)
		return
	}
	symbol, offset := words[1], ""
	if i := strings.IndexByte(symbol, '+'); i > 0 {
		symbol, offset = symbol[:i], symbol[i:]
	}
	candidates := []ksym.Candidate{{Name: symbol}}
	if !strings.Contains(symbol, ":") { // MODULE:SYMBOL
		for _, c := range ksym.FunctionCandidates(symbol)[1:] {
			if !isGlob(c.Name) {
				candidates = append(candidates, c)
			}
		}
	}
	if f, err := t.view.files.Open("error_log", os.O_TRUNC); err == nil {
		io.WriteString(f, "\n")
		f.Close()
	}
	why := ""
	c, err := t.first(candidates, func(name string) string {
		// The next name is tried also when this one is there, and the rest of
		// the line is what the kernel does not want.
		if complaint := t.complaint(); complaint != "" {
			why = complaint
		}
		return strings.Join(append([]string{words[0], name + offset}, words[2:]...), " ")
	})
	if err != nil {
		t.log(symbol, "", cmp.Or(t.complaint(), why, absent(symbol, err)))
		return
	}
	t.log(symbol, c.Name, c.Why)
}

// complaint is the kernel's last one in error_log, unless that is about a missing
// symbol; kernels before 5.2 have none.
func (t *tracefsFile) complaint() string {
	text := t.view.files.Head("error_log")
	i := strings.LastIndex(text, "trace_kprobe: error: ")
	if i < 0 {
		return ""
	}
	what, command, _ := strings.Cut(strings.TrimPrefix(text[i:], "trace_kprobe: error: "), "\n")
	if strings.Contains(what, "symbol") {
		return ""
	}
	command, _, _ = strings.Cut(strings.TrimSpace(command), "\n")
	return what + ", " + strings.TrimPrefix(command, "Command: ")
}

// enable takes a line of events/SYSTEM/EVENT/enable, events/SYSTEM/enable or
// events/enable.
func (t *tracefsFile) enable(line string) {
	_, below := splitInstance(t.name)
	event := strings.TrimPrefix(path.Dir(below), "events/")
	if event == "events" || strings.TrimSpace(line) != "1" || t.other {
		t.value(line)
		return
	}
	if c, err := t.first([]ksym.Candidate{{Name: event}}, func(string) string { return line }); err != nil {
		t.log(event, "", err.Error())
	} else {
		t.log(event, c.Name, "")
	}
}

// value takes what is not a name.
func (t *tracefsFile) value(line string) {
	_, err := io.WriteString(t.file, line+"\n")
	if err == nil {
		t.names, t.good = t.names+1, t.good+1
		return
	}
	why := bare(err).Error()
	if path.Base(t.name) == "current_tracer" {
		why = "this kernel has " + strings.Join(strings.Fields(t.view.files.Head("available_tracers")), ", ")
	}
	t.log(line, "", why)
}

func isGlob(name string) bool { return strings.ContainsAny(name, "*?[") }

// bare takes the path off an error that is shown beside it.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// discard stands for a file that this kernel has not got.
type discard struct{ strict bool }

func (discard) Read([]byte) (int, error) { return 0, io.EOF }

func (d discard) Write(p []byte) (int, error) {
	if d.strict {
		return 0, errRefused
	}
	return len(p), nil
}

func (discard) Close() error { return nil }
