// Package record is the run record: the directory that a run leaves behind and
// from which everything after the VM works. Judging, comparing and rendering
// read it; none of them starts a VM.
//
//	run.json     what was run, on what, how it ended (schema labctl/run/v2: type Run)
//	console.log  every byte of the guest's console, as it came
//	qemu.txt     QEMU's command line, quoted for a shell
//	stacks.txt   the call stacks as they were printed
//	outside.txt  what a lab read from outside the guest
//	trace.dat    the ring-buffer pages of the capture, for trace-cmd(1) and KernelShark
//	trace.pftrace  the same for ui.perfetto.dev
//	registers.txt  the CPUs' registers, of a guest that a deadline ended
//	tasks.txt      its tasks and their stacks, also of one that crashed or was interrupted
//	debug.log    a debugger's session: commands and what they showed
//	report.html  all of this for people, made when the rest is there (host/page)
//	kernel.json  what the kernel's image contains (schema labctl/kernel/v1: host/kernel/profile)
//
// console.log and qemu.txt are written as the guest runs, the others whole or not
// at all, run.json last: a record that holds it is whole.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/stack"
	"labctl/host/strictjson"
	"labctl/host/text"
	"labctl/host/trace/creation"
)

// Schema is the value of Run.Schema that this package writes. It reads that, and
// earlier ones by upgrade.
const Schema = "labctl/run/v2"

// format bounds run.json: a record may come from anywhere.
var format = strictjson.Format{Schema: Schema, Older: map[string]func(map[string]any){schemaV1: upgradeV1}, Max: 64 << 20}

// File names inside a record.
const (
	RunFile     = "run.json"
	ConsoleFile = "console.log"
	QEMUFile    = "qemu.txt"
	StacksFile  = "stacks.txt"
	OutsideFile = "outside.txt"
	DataFile    = "trace.dat"
	ViewFile    = "trace.pftrace"

	RegistersFile = "registers.txt"
	TasksFile     = "tasks.txt"
	DebugFile     = "debug.log"
	KernelFile    = "kernel.json"
	PageFile      = "report.html"
)

// Run is run.json.
type Run struct {
	Schema  string    `json:"schema"`
	Name    string    `json:"name"`              // "probe-fork"
	Labctl  string    `json:"labctl"`            // labctl's version
	Command []string  `json:"command,omitempty"` // how labctl was called
	Started time.Time `json:"started"`           // host clock, UTC
	Seconds float64   `json:"seconds"`           // wall time of the run

	Target Target  `json:"target"`
	Kernel Kernel  `json:"kernel"`
	QEMU   QEMU    `json:"qemu"`
	Phases []Phase `json:"phases"`

	Probes  []Probe  `json:"probes,omitempty"`
	Trace   *Trace   `json:"trace,omitempty"`
	Reports []*Crash `json:"reports,omitempty"` // all of the console's, warnings too; at most 64
	Outcome Outcome  `json:"outcome"`
}

// Target is the machine that was booted.
type Target struct {
	Name     string `json:"name"` // host/targets row
	Arch     string `json:"arch"` // GOARCH
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mb"`
	Link     string `json:"link"` // "virtio", "uart"
}

// Kernel is the kernel that was booted.
type Kernel struct {
	Ref     string `json:"ref"`     // what `--kernel` takes to get this very kernel
	Source  string `json:"source"`  // "debian", "file"
	Release string `json:"release"` // uname -r
	Version string `json:"version"` // of the package, where there is one
	SHA256  string `json:"sha256"`  // of the image, hex
}

// QEMU is what ran the machine.
type QEMU struct {
	Binary  string `json:"binary"`
	Version string `json:"version"`
	Accel   string `json:"accel"`  // "tcg", "kvm"
	Reason  string `json:"reason"` // why that acceleration
}

// Phase is one step of the boot.
type Phase struct {
	Name    string  `json:"name"`    // "qemu", "kernel", "init", "hello"
	Seconds float64 `json:"seconds"` // wall time of the step on the host
}

// Probe is one probe's run.
type Probe struct {
	Name   string          `json:"name"`
	Params json.RawMessage `json:"params,omitempty"`
	// NotApplicable says why the probe was not run on this kernel.
	NotApplicable string              `json:"not_applicable,omitempty"`
	Result        *wire.ProbeResult   `json:"result,omitempty"` // nil when the probe failed
	Exit          *wire.ExecResult    `json:"exit,omitempty"`
	Stderr        string              `json:"stderr,omitempty"`
	Armed         *wire.CaptureArmed  `json:"armed,omitempty"`     // the capture that it ran in; nil when that could not be read
	Creations     []creation.Creation `json:"creations,omitempty"` // of this probe's tasks
	Others        int                 `json:"others"`              // task creations that were not this probe's
	Lost          int64               `json:"lost,omitempty"`      // events that the capture says are missing
	Damaged       int64               `json:"damaged,omitempty"`   // places of the capture that could not be read
	Findings      []Finding           `json:"findings,omitempty"`
}

// Failed counts the findings that do not agree.
func (p *Probe) Failed() (n int) {
	for _, f := range p.Findings {
		if !f.OK {
			n++
		}
	}
	return n
}

// Finding is one thing that was compared between what a probe asked and what
// the kernel showed.
type Finding struct {
	What string `json:"what"` // "flags of child 123"
	OK   bool   `json:"ok"`
	Got  string `json:"got"`
	Want string `json:"want"`
}

// Crash is one report of the kernel's on its console.
type Crash struct {
	// Kind is one of package crash's: "warning", "KASAN", "oops" and so on. See
	// docs/reports.md.
	Kind   string       `json:"kind"`
	Title  string       `json:"title"`
	Cause  string       `json:"cause,omitempty"`  // of a panic: "init died"
	Task   *Task        `json:"task,omitempty"`   // that it is of
	Victim *Task        `json:"victim,omitempty"` // of an OOM
	Stack  *stack.Stack `json:"stack,omitempty"`
	Lines  []string     `json:"lines"` // the console's, cleaned
	// A hang is reported repeatedly: how often, if more than once, and the title of
	// the last report if that differs.
	Count int    `json:"count,omitempty"`
	Last  string `json:"last,omitempty"`
}

// Task is a task of the guest as its kernel named it.
type Task struct {
	Comm string `json:"comm,omitempty"`
	PID  int    `json:"pid,omitempty"` // 0 when not printed
	CPU  int    `json:"cpu"`           // -1 when not printed
}

// NewCrash puts a report into the record's words; nil stays nil.
func NewCrash(r *crash.Report) *Crash {
	if r == nil {
		return nil
	}
	c := &Crash{Kind: string(r.Kind), Title: r.Title, Cause: r.Cause, Task: task(r.Task()), Victim: task(r.Victim), Lines: r.Lines}
	if s := r.Stack(); len(s.Frames) > 0 {
		c.Stack = &s
	}
	if r.Count > 1 {
		c.Count = r.Count
		if r.Last != r.Title {
			c.Last = r.Last
		}
	}
	return c
}

func task(t *crash.Task) *Task {
	if t == nil {
		return nil
	}
	return &Task{Comm: t.Comm, PID: t.PID, CPU: t.CPU}
}

// Dir is a record that is being written or read.
type Dir struct{ Path string }

// Create makes a new record directory: at dir when it is not empty, else at
// labctl-out/TIME-NAME below the working directory. A dir that already holds a
// run is refused, so that no record is ever overwritten.
func Create(dir, name string, now time.Time) (_ Dir, err error) {
	kind := outcome.BadInput // of a directory that the user chose
	if dir == "" {
		kind = outcome.HostLacks
	}
	defer outcome.OrElse(kind, &err)
	if dir == "" {
		base := filepath.Join("labctl-out", now.Format("20060102-150405")+"-"+name)
		dir = base
		for i := 2; ; i++ {
			if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
				return Dir{}, fmt.Errorf("create run record: %w", err)
			}
			err := os.Mkdir(dir, 0o755)
			if err == nil {
				return Dir{dir}, nil
			}
			if !errors.Is(err, fs.ErrExist) {
				return Dir{}, fmt.Errorf("create run record: %w", err)
			}
			dir = fmt.Sprintf("%s-%d", base, i)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Dir{}, fmt.Errorf("create run record: %w", err)
	}
	// The console's file, made here and by one alone, is the claim on the directory.
	_, err = os.Lstat(filepath.Join(dir, RunFile))
	if errors.Is(err, fs.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(filepath.Join(dir, ConsoleFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			return Dir{dir}, f.Close()
		}
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		return Dir{}, fmt.Errorf("create run record: %s already holds a run; give another --out", dir)
	}
	return Dir{}, fmt.Errorf("create run record: %w", err)
}

// Discard removes a record that Create has placed and that cannot be completed, and
// labctl-out if it holds no other.
func (d Dir) Discard() error {
	if err := os.RemoveAll(d.Path); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("remove run record: %w", err))
	}
	_ = os.Remove(filepath.Dir(d.Path)) // which fails if there is something in it
	return nil
}

// File is the path of one file of the record.
func (d Dir) File(name string) string { return filepath.Join(d.Path, name) }

// WriteFile writes one file whole or not at all.
func (d Dir) WriteFile(name string, data []byte) error {
	if err := scratch.Write(d.File(name), data, 0o644); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("write run record: %w", err))
	}
	return nil
}

// WriteRun writes run.json, the last file of a record.
func (d Dir) WriteRun(r *Run) error {
	b, err := encode(r)
	if err != nil {
		return fmt.Errorf("write run record: %w", err)
	}
	return d.WriteFile(RunFile, b)
}

func encode(r *Run) ([]byte, error) {
	r.Schema = Schema
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// ReadRun reads run.json strictly: a schema that is not known, an unknown field or bytes
// after the document are errors.
func (d Dir) ReadRun() (_ *Run, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	b, err := bounded.ReadFile(d.File(RunFile), format.Max)
	if err != nil {
		return nil, fmt.Errorf("read run record: %w", err)
	}
	r, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read run record %s: %w", d.File(RunFile), err)
	}
	return r, nil
}

// Decode reads the bytes of a run.json.
func Decode(b []byte) (*Run, error) {
	r := new(Run)
	if err := format.Decode(b, r); err != nil {
		return nil, err
	}
	if k := r.Outcome.Kind; k != "" && !k.Known() {
		return nil, fmt.Errorf("outcome %q is not known", text.Line(string(k), 40))
	}
	return r, nil
}
