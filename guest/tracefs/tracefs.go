// Package tracefs drives the kernel's trace file system: private trace instances
// with kprobe events, events, tracers and their stacks, armed, read as ring-buffer
// pages, and removed without a trace left behind.
//
// See Documentation/trace/ftrace.rst and kprobetrace.rst in the kernel.
package tracefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"labctl/guest/wire"
)

// files is what FS does to the file system; a test watches it.
type files interface {
	// Write writes text in one write to an existing file: tracefs takes a whole
	// command a write. flag is os.O_TRUNC or os.O_APPEND.
	Write(path, text string, flag int) error
	Mkdir(path string) error
	Rmdir(path string) error
}

// FS is a mounted tracefs. What several instances share is counted in it, so
// there should be one FS for a mount. Its methods are safe for concurrent use.
type FS struct {
	root    string
	proc    string
	modules string // /sys/module
	files   files

	arming sync.Mutex // error_log is one for all
	mu     sync.Mutex
	shared shared
}

// Root is where tracefs is mounted, and OldRoot where its files are on kernels that
// have no such file system, which are those before 4.1.
const (
	Root    = "/sys/kernel/tracing"
	OldRoot = "/sys/kernel/debug/tracing"
)

// Find returns the one that has the files: Root when neither has.
func Find() string {
	for _, root := range []string{Root, OldRoot} {
		if _, err := os.Stat(root + "/trace"); err == nil {
			return root
		}
	}
	return Root
}

// Open takes the tracefs mounted at root and the procfs
// at proc.
func Open(root, proc string) (*FS, error) {
	if _, err := os.Stat(filepath.Join(root, "instances")); err != nil {
		return nil, fmt.Errorf("open tracefs at %s: %w", root, bare(err))
	}
	return &FS{root: root, proc: proc, modules: "/sys/module", files: kernelFiles{}}, nil
}

type kernelFiles struct{}

func (kernelFiles) Write(path, text string, flag int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flag, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	// Some commands take effect, and can fail, on close.
	return errors.Join(err, f.Close())
}

func (kernelFiles) Mkdir(path string) error { return os.Mkdir(path, 0o755) }
func (kernelFiles) Rmdir(path string) error { return syscall.Rmdir(path) }

// instance is a trace instance and what is armed in it.
type instance struct {
	fs      *FS
	dir     string
	group   string        // of its kprobe events
	enabled []string      // directories under events/
	probes  []wire.Kprobe // events in group
}

// plainProbes has probes not optimised, which truncates the stacks taken in them
// (arm). Kernels without optimised probes have no such file.
func (fsys *FS) plainProbes() error {
	err := fsys.files.Write(filepath.Join(fsys.proc, "sys/debug/kprobes-optimization"), "0", os.O_TRUNC)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// statValues reads lines of "name: value"; the times among them are left out.
func statValues(text string) map[string]int64 {
	values := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil && n >= 0 {
			values[name] = n
		}
	}
	return values
}

// create makes the instance's directory anew.
func (in *instance) create(probes []wire.Kprobe) error {
	err := in.fs.files.Mkdir(in.dir)
	if !errors.Is(err, fs.ErrExist) {
		return bare(err)
	}
	for _, probe := range probes {
		in.write("events/"+in.group+"/"+probe.Event+"/enable", "0")
	}
	if err := in.rmdir(); err != nil {
		return err
	}
	return bare(in.fs.files.Mkdir(in.dir))
}

// busyFor is how long an instance may stay busy. A program that is being started
// holds, until its exec, whatever file the agent had open at that moment.
const busyFor = 10 * time.Second

func (in *instance) rmdir() error {
	if err := whileBusy(func() error { return in.fs.files.Rmdir(in.dir) }); err != nil {
		return fmt.Errorf("remove trace instance: %w", err)
	}
	return nil
}

// whileBusy does again what the kernel refuses as busy, for busyFor.
func whileBusy(do func() error) error {
	deadline := time.Now().Add(busyFor)
	for pause := time.Millisecond; ; pause *= 2 {
		err := do()
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

func (in *instance) disable() error {
	var errs []error
	for _, e := range in.enabled {
		if err := in.write("events/"+e+"/enable", "0"); err != nil {
			errs = append(errs, fmt.Errorf("disable %s: %w", e, err))
		}
	}
	in.enabled = nil
	return errors.Join(errs...)
}

func (in *instance) removeProbes() error {
	var errs []error
	for _, p := range in.probes {
		if err := in.fs.probe(p, "-:"+in.group+"/"+p.Event); err != nil {
			errs = append(errs, fmt.Errorf("remove probe %s: %w", p.Event, err))
		}
	}
	in.probes = nil
	return errors.Join(errs...)
}

// probe makes the first alternative that the kernel takes and enables it in the
// instance. The error names every refusal.
func (in *instance) probe(p wire.Kprobe) (symbol string, err error) {
	name := in.group + "/" + p.Event
	if _, err := os.Stat(filepath.Join(in.dir, "events", name)); err == nil {
		if err := in.fs.probe(p, "-:"+name); err != nil {
			return "", fmt.Errorf("remove the old one: %w", err)
		}
	}
	var refused []string
	kind := "p:"
	if p.Fprobe {
		kind = "f:"
	}
	for _, a := range p.Alternatives {
		cmd := strings.Join(append([]string{kind + name, a.Symbol}, a.Args...), " ")
		err := in.fs.probe(p, cmd)
		if err == nil {
			if err = in.enable(name); err == nil {
				in.probes = append(in.probes, p)
				return a.Symbol, nil
			}
			err = errors.Join(err, in.fs.probe(p, "-:"+name))
		}
		if why := fmt.Sprintf("%s: %v", a.Symbol, err); !slices.Contains(refused, why) {
			refused = append(refused, why)
		}
	}
	return "", fmt.Errorf("no alternative taken (%s)", strings.Join(refused, "; "))
}

// probe gives one command on p to the file that has probes of its kind. Opening that to
// truncate would remove all probes, those of others too.
func (fsys *FS) probe(p wire.Kprobe, cmd string) error {
	file := "kprobe_events"
	if p.Fprobe {
		file = "dynamic_events"
	}
	return explained(fsys.root, func() error {
		return fsys.files.Write(filepath.Join(fsys.root, file), cmd+"\n", os.O_APPEND)
	}, fsys.files)
}

// explained does what the kernel may refuse. Its own words on a refusal are in
// error_log of the instance, from 5.2 on; whoever arms clears that first.
func explained(dir string, do func() error, files files) error {
	err := do()
	if err == nil {
		return nil
	}
	err = bare(err)
	if text, rerr := readHead(filepath.Join(dir, errorLog), 8<<10); rerr == nil {
		files.Write(filepath.Join(dir, errorLog), "\n", os.O_TRUNC)
		if why := lastError(text); why != "" {
			return fmt.Errorf("%w (%s)", err, why)
		}
	}
	return err
}

const errorLog = "error_log"

// lastError is the last complaint of an error_log:
//
//	[   12.3] trace_kprobe: error: Invalid fetch argument
//	  Command: p:labctl/x kernel_clone a=%nosuch
//	                                     ^
//
// as "trace_kprobe: Invalid fetch argument at a=%nosuch".
func lastError(text string) string {
	var why, command string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if at, ok := strings.CutPrefix(line, "  Command: "); ok {
			command = at
			continue
		}
		if caret := strings.Index(line, "^"); caret >= 0 && strings.TrimSpace(line) == "^" {
			if i := caret - len("  Command: "); command != "" && i >= 0 && i < len(command) {
				end := " "
				if strings.HasPrefix(command, "hist:") {
					end = " :,"
				}
				word := command[i:]
				if j := strings.IndexAny(word, end); j > 0 {
					word = word[:j]
				}
				why += " at " + word
			}
			continue
		}
		if _, rest, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(line, "[") {
			why, command = strings.Replace(rest, ": error: ", ": ", 1), ""
		}
	}
	return clip(why, 160)
}

// enable switches an event ("sched/sched_process_fork") on in the instance.
func (in *instance) enable(event string) error {
	if err := in.write("events/"+event+"/enable", "1"); err != nil {
		return err
	}
	in.enabled = append(in.enabled, event)
	return nil
}

// resize sets the size of a CPU's buffer. The kernel has small buffers until they
// are used, and on older ones (to 6.6) a size set anywhere counts as the use of
// all: the top instance would keep its few KB for whoever traces there next.
func (in *instance) resize(kb int) error {
	const file, unused = "buffer_size_kb", "(expanded: "
	top := filepath.Join(in.fs.root, file)
	before, _ := readHead(top, 64)
	if err := in.write(file, strconv.Itoa(kb)); err != nil {
		return err
	}
	_, size, small := strings.Cut(before, unused)
	if after, err := readHead(top, 64); err == nil && small && !strings.Contains(after, unused) {
		return in.fs.write(file, strings.TrimRight(size, ")\n"))
	}
	return nil
}

func (in *instance) write(file, text string) error {
	return bare(in.fs.files.Write(filepath.Join(in.dir, file), text, os.O_TRUNC))
}

// bare drops the path from an error that already says what was done to what.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func readHead(path string, max int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max))
	return string(b), err
}
