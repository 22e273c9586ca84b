// Package probe runs labprobe's probes in a guest under the task-creation
// trace, and holds what each probe asked for against what the kernel showed.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"labctl/guest/catalogue"
	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/probe/judge"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Path is labprobe in the guest.
const Path = "/labctl/labprobe"

// limits bound what a guest can make the host keep, in bytes.
const (
	maxResult = 1 << 20
	maxStderr = 64 << 10
	maxTrace  = 64 << 20
)

// deadline is for one probe on a machine that boots in two seconds; vm.Patient
// scales it. The kthread probe may wait ten seconds by itself.
const deadline = 60 * time.Second

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

// Run runs one probe in v, whose kernel is k. The record is filled as far as
// the run came; trace is the kernel's own text. A probe that ran but does not
// agree with the kernel is no error: see record.Probe.Findings.
func Run(ctx context.Context, v *vm.VM, k *kernel.Kernel, name string, params json.RawMessage) (p record.Probe, trace []byte, err error) {
	p = record.Probe{Name: name, Params: params}
	facts, err := k.Facts(ctx)
	if err != nil {
		return p, nil, fmt.Errorf("probe %s: %w", name, err)
	}
	plan, err := creation.Plan(v.Hello().Arch, facts)
	if err != nil {
		return p, nil, fmt.Errorf("probe %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, v.Patient(deadline), fmt.Errorf("probe %s: %w", name, ErrDeadline))
	defer cancel()
	defer context.AfterFunc(v.Context(), cancel)()

	armed, err := v.Agent().TraceStart(ctx, plan)
	if err != nil {
		return p, nil, fmt.Errorf("probe %s: arm the trace: %w", name, err)
	}
	p.Armed = &armed

	argv := []string{Path, name}
	if len(params) > 0 {
		argv = append(argv, string(params))
	}
	stdout, stderr := bounded.Head{Max: maxResult}, bounded.Head{Max: maxStderr}
	exit, err := v.Agent().Exec(ctx, wire.ExecParams{Argv: argv}, agent.IO{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return p, nil, fmt.Errorf("probe %s: %w", name, err)
	}
	p.Exit, p.Stderr = &exit, text.Clean(stderr.String())

	raw := bounded.Head{Max: maxTrace}
	stopped, err := v.Agent().TraceStop(ctx, &raw)
	if err != nil {
		return p, raw.Bytes(), fmt.Errorf("probe %s: read the trace: %w", name, err)
	}
	p.Trace = &stopped
	if raw.Over() {
		return p, raw.Bytes(), outcome.Errorf(outcome.CheckFailed, "probe %s: the trace is longer than %d MB", name, maxTrace>>20)
	}
	if !exit.Exited || exit.Code != 0 {
		return p, raw.Bytes(), &FailedError{name, why(exit, p.Stderr), exit.Exited && exit.Code == catalogue.BadUsage}
	}
	if p.Result, err = decode(name, stdout.Bytes(), stdout.Over()); err != nil {
		return p, raw.Bytes(), err
	}
	parsed, err := event.Parse(bytes.NewReader(raw.Bytes()))
	if err != nil {
		return p, raw.Bytes(), outcome.Default(outcome.CheckFailed, fmt.Errorf("probe %s: %w", name, err))
	}
	p.Lost, p.BadLines = parsed.Lost+stopped.Overrun, parsed.BadLines
	all, err := creation.Join(parsed.Events)
	if err != nil {
		return p, raw.Bytes(), outcome.Default(outcome.CheckFailed, fmt.Errorf("probe %s: %w", name, err))
	}
	for _, c := range all {
		if made(p.Result, c.Child.TID) {
			p.Creations = append(p.Creations, c)
		} else {
			p.Others++
		}
	}
	p.Findings = judge.Probe(&p)
	return p, raw.Bytes(), nil
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

// decode reads a probe's standard output, which the guest could have written
// otherwise than labprobe does.
func decode(name string, out []byte, over bool) (*wire.ProbeResult, error) {
	if over {
		return nil, &FailedError{Name: name, Why: fmt.Sprintf("its result is longer than %d KB", maxResult>>10)}
	}
	res := new(wire.ProbeResult)
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	err := d.Decode(res)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("bytes after the document")
		}
	}
	if err != nil {
		return nil, &FailedError{Name: name, Why: "invalid result: " + text.Line(err.Error(), 300)}
	}
	if res.Probe != name || len(res.Tasks) == 0 || res.Tasks[0].Role != "self" {
		return nil, &FailedError{Name: name, Why: "invalid result: it does not name the probe and itself first"}
	}
	return res, nil
}

// made says whether a task is one that the probe reports as made.
func made(r *wire.ProbeResult, tid int) bool {
	return slices.ContainsFunc(r.Tasks, func(t wire.Task) bool { return t.Role != "self" && t.TID == tid })
}
