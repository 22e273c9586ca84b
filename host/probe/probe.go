// Package probe runs labprobe's probes in a guest under a capture of its task
// creations, and holds what each probe asked for against what the kernel showed.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"labctl/guest/catalogue"
	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/probe/agree"
	"labctl/host/record"
	"labctl/host/strictjson"
	"labctl/host/text"
	"labctl/host/trace"
	"labctl/host/trace/plan"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Path is labprobe in the guest.
const Path = "/labctl/labprobe"

// Bounds of what a guest can make the host keep, in bytes.
const (
	maxResult = 1 << 20
	maxStderr = 64 << 10
	maxPages  = 64 << 20
)

// deadline is for one probe on a machine that boots in two seconds; vm.Patient
// scales it. The kthread probe may wait ten seconds by itself. Arming the trace and
// reading it have as long.
const deadline = 60 * time.Second

// grace is the same for reading the trace after a failure, so that what the probes
// before it showed is not lost with it.
const grace = 10 * time.Second

// FailedError is a probe that could not do its work.
type FailedError struct {
	Name  string
	Why   string
	Usage bool // it has no such parameters
}

func (e *FailedError) Error() string { return fmt.Sprintf("probe %s: %s", e.Name, e.Why) }

// Outcome is CheckFailed, or BadInput when the parameters are wrong.
func (e *FailedError) Outcome() outcome.Kind {
	if e.Usage {
		return outcome.BadInput
	}
	return outcome.CheckFailed
}

// How is ProbeFailed.
func (e *FailedError) How() outcome.How { return outcome.ProbeFailed }

// Ask is one probe to run.
type Ask struct {
	Name   string
	Params json.RawMessage // a JSON object, or nothing for the probe's defaults
}

// Run runs probes one after another in v, whose kernel is k, under one capture,
// which is kept in dir as trace.dat. There is a record of each probe that was begun,
// filled as far as the run came. A probe that fails ends the run. One that ran but
// does not agree with the kernel is not an error: see record.Probe.Findings.
func Run(ctx context.Context, v *vm.VM, k *kernel.Kernel, asks []Ask, dir record.Dir) (all []record.Probe, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.Context(), cancel)()
	limit := func(what string, after time.Duration) (context.Context, context.CancelFunc) {
		return context.WithTimeoutCause(ctx, v.Patient(after), fmt.Errorf("%s: %w", what, ErrDeadline))
	}
	arming, done := limit("arm the trace", deadline)
	defer done()
	steps, err := trace.Begin(arming, v, k, plan.Request{Creations: plan.Joined, Stacks: true, Exact: true, Max: maxPages})
	if err != nil {
		return nil, err
	}
	for _, a := range asks {
		p := record.Probe{Name: a.Name, Params: a.Params}
		running, done := limit("probe "+a.Name, deadline)
		err = run(running, steps, &p)
		done()
		if all = append(all, p); err != nil {
			break
		}
	}
	after := deadline
	if err != nil {
		after = grace
	}
	reading, done := limit("read the trace", after)
	defer done()
	parted, rerr := steps.End(reading)
	if rerr == nil {
		defer parted.Close()
		take(parted, all)
		rerr = parted.WriteFile(dir.File(record.DataFile))
	}
	if err == nil { // else what went wrong first is why
		err = rerr
	}
	return all, err
}

// run runs one probe.
func run(ctx context.Context, steps *trace.Steps, p *record.Probe) error {
	argv := []string{Path, p.Name}
	if len(p.Params) > 0 {
		argv = append(argv, string(p.Params))
	}
	stdout, stderr := bounded.Head{Max: maxResult}, bounded.Head{Max: maxStderr}
	exit, err := steps.Exec(ctx, p.Name, wire.ExecParams{Argv: argv}, agent.IO{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return fmt.Errorf("probe %s: %w", p.Name, err)
	}
	p.Exit, p.Stderr = &exit, text.Clean(stderr.String())
	if !exit.Exited || exit.Code != 0 {
		return &FailedError{p.Name, why(exit, p.Stderr), exit.Exited && exit.Code == catalogue.BadUsage}
	}
	if stdout.Over() {
		return &FailedError{Name: p.Name, Why: fmt.Sprintf("its result is longer than %d KB", maxResult>>10)}
	}
	if p.Result, err = ParseResult(p.Name, stdout.Bytes()); err != nil {
		return &FailedError{Name: p.Name, Why: err.Error()}
	}
	return nil
}

// take gives each probe what the kernel showed of it, and holds the two together.
func take(parted *trace.Parted, all []record.Probe) {
	armed := parted.Armed()
	for i := range all {
		p, step := &all[i], &parted.Steps[i]
		p.Armed, p.Lost, p.Damaged = &armed, parted.Lost+step.Unkept, parted.Damaged
		for _, c := range step.Creations {
			if p.Result != nil && made(p.Result, c.Child.TID) {
				p.Creations = append(p.Creations, c)
			} else {
				p.Others++
			}
		}
		p.Findings = agree.Check(p)
	}
}

// ErrDeadline is the cause when a probe took too long.
var ErrDeadline = fmt.Errorf("deadline: %w", context.DeadlineExceeded)

func why(exit wire.ExecResult, stderr string) string {
	s := text.Line(stderr, 300)
	switch {
	case exit.Signaled:
		return fmt.Sprintf("ended by signal %d: %s", exit.Signal, s)
	case s == "":
		return fmt.Sprintf("exit status %d", exit.Code)
	}
	return s
}

// ParseResult reads the standard output of the probe of a name, which the guest
// could have written otherwise than labprobe does. Numbers of the data are
// json.Number. The error is one line, fit for a terminal.
func ParseResult(name string, out []byte) (*wire.ProbeResult, error) {
	res := new(wire.ProbeResult)
	// In labs the text is clean already, by three bytes for each that was not.
	err := strictjson.Format{Max: 3 * maxResult, Numbers: true}.Decode(out, res)
	if err == nil && (res.Probe != name || len(res.Tasks) == 0 || res.Tasks[0].Role != "self") {
		err = errors.New("it does not name the probe and itself first")
	}
	if err != nil {
		return nil, fmt.Errorf("invalid result: %w", err)
	}
	return res, nil
}

// made reports whether a task is one that the probe reports as made.
func made(r *wire.ProbeResult, tid int) bool {
	return slices.ContainsFunc(r.Tasks, func(t wire.Task) bool { return t.Role != "self" && t.TID == tid })
}
