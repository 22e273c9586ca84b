package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/collect"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Bounds on what a step can make the host keep, in bytes.
const (
	maxStdout = 1 << 20
	maxStderr = 64 << 10
)

// stepDeadline is for one step on a machine that boots in two seconds;
// vm.Patient scales it. Arming the trace and reading it are a step each, too.
const stepDeadline = 60 * time.Second

// DeadlineError is a program that did not end in time, or a trace that could not
// be armed or read in time.
type DeadlineError struct {
	What  string // "step fork"
	After time.Duration
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("%s: it did not end in %v", e.What, e.After.Round(100*time.Millisecond))
}

func (e *DeadlineError) Unwrap() error { return probe.ErrDeadline }

// Outcome is Deadline.
func (e *DeadlineError) Outcome() outcome.Kind { return outcome.Deadline }

// How is TooSlow.
func (e *DeadlineError) How() outcome.How { return outcome.TooSlow }

// FloodError is a program that printed more than is kept.
type FloodError struct{ Step string }

func (e *FloodError) Error() string {
	return fmt.Sprintf("step %s: it prints more than %d KB", e.Step, maxStdout>>10)
}

// Outcome is CheckFailed.
func (e *FloodError) Outcome() outcome.Kind { return outcome.CheckFailed }

// How is TooLoud.
func (e *FloodError) How() outcome.How { return outcome.TooLoud }

// trial runs steps one after another in one machine, under one recording.
type trial struct {
	v     *vm.VM
	plan  *plan
	rec   *collect.Recording // nil when nothing is traced
	steps []*result.Step
}

// begin arms the trace. end or drop must follow when there is no error.
func begin(v *vm.VM, k *kernel.Kernel, t *lab.Trace) (s *trial, err error) {
	s = &trial{v: v}
	if !t.On() {
		return s, nil
	}
	ctx, cancel := s.limit("arm the trace", stepDeadline)
	defer cancel()
	if s.plan, err = newPlan(ctx, v.Hello().Arch, k, t); err != nil {
		return nil, err
	}
	if s.rec, err = collect.Start(ctx, v.Agent(), k, s.plan.CaptureParams); err != nil {
		return nil, fmt.Errorf("arm the trace: %w", err)
	}
	return s, nil
}

// limit is the machine's context with a deadline.
func (s *trial) limit(what string, after time.Duration) (context.Context, context.CancelFunc) {
	late := &DeadlineError{what, s.v.Patient(after)}
	return context.WithTimeoutCause(s.v.Context(), late.After, late)
}

// run runs one program. The step is filled as far as the run came.
func (s *trial) run(id string, argv []string, limit time.Duration) (*result.Step, error) {
	ctx, cancel := s.limit("step "+id, limit)
	defer cancel()
	step := &result.Step{ID: id, Argv: argv}
	p := wire.ExecParams{Argv: argv, Dir: "/"}
	if s.rec != nil {
		p.Instance, p.Mark = s.plan.Instance, mark(len(s.steps))
	}
	s.steps = append(s.steps, step)
	return step, s.exec(ctx, step, p)
}

// exec runs the program and keeps what it says. One that says too much is ended.
func (s *trial) exec(ctx context.Context, step *result.Step, p wire.ExecParams) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	flood := &FloodError{step.ID}
	stdout := bounded.Head{Max: maxStdout, Full: func() { cancel(flood) }}
	stderr := bounded.Head{Max: maxStderr}
	exit, err := s.v.Agent().Exec(ctx, p, agent.IO{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return fmt.Errorf("step %s: %w", step.ID, err)
	}
	if stdout.Over() {
		return flood
	}
	step.PID, step.Exit = int64(exit.PID), int64(exit.Code)
	if exit.Signaled {
		step.Signal, step.Exit = int64(exit.Signal), 128+int64(exit.Signal)
	}
	step.Stdout, step.Stderr = text.Clean(stdout.String()), text.Clean(stderr.String())
	return nil
}

// end stops the trace and gives every step its part of it.
func (s *trial) end(dir record.Dir) error {
	if s.rec == nil {
		return nil
	}
	ctx, cancel := s.limit("read the trace", stepDeadline)
	defer cancel()
	res, err := s.rec.Stop(ctx)
	s.rec = nil
	if res != nil {
		defer res.Close()
	}
	if err == nil {
		err = s.plan.read(res, s.steps, dir)
	}
	if err != nil {
		return fmt.Errorf("read the trace: %w", err)
	}
	return nil
}

// drop gives the trace up, if it was not ended.
func (s *trial) drop() {
	if s.rec == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for a guest that may hang
	if res, _ := s.rec.Stop(ctx); res != nil {
		res.Close()
	}
	s.rec = nil
}

// programData makes a program's standard output the step's data when it is one
// JSON object.
func programData(s *result.Step) {
	d := json.NewDecoder(strings.NewReader(s.Stdout))
	d.UseNumber()
	var data map[string]any
	if err := d.Decode(&data); err != nil {
		return
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return
	}
	for k, v := range data {
		data[k] = result.Plain(v)
	}
	s.Data = data
}

// probeResult reads a probe's standard output, which the guest could have
// written otherwise than labprobe does.
func probeResult(s *result.Step, probe string) error {
	bad := func(why string) error {
		return outcome.Errorf(outcome.CheckFailed, "step %s: probe %s: invalid result: %s", s.ID, probe, text.Line(why, 300))
	}
	var p wire.ProbeResult
	d := json.NewDecoder(strings.NewReader(s.Stdout))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		return bad(err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("bytes after the document")
	}
	if p.Probe != probe || len(p.Tasks) == 0 || p.Tasks[0].Role != "self" {
		return bad("it does not name the probe and itself first")
	}
	for _, t := range p.Tasks {
		out := result.Task{Role: t.Role, Comm: t.Comm, PID: int64(t.PID), TID: int64(t.TID), TGID: int64(t.TGID), PPID: int64(t.PPID)}
		if t.Status != nil {
			out.Reaped, out.Status = true, int64(*t.Status)
		}
		if a := t.Asked; a != nil && !a.Unknown {
			out.Syscall, out.Flags, out.ExitSignal = a.Syscall, int64(a.Flags), int64(a.ExitSignal)
		}
		s.Tasks = append(s.Tasks, out)
	}
	s.Data = map[string]any{}
	for k, v := range p.Data {
		s.Data[k] = result.Plain(v)
	}
	s.Stdout = "" // it is all in the tasks and the data
	return nil
}
