package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/look"
	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/strictjson"
	"labctl/host/text"
	"labctl/host/trace"
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

// trial runs steps one after another in one machine, under one capture.
type trial struct {
	v      *vm.VM
	k      *kernel.Kernel
	traced *lab.Trace
	trace  *trace.Steps // nil when nothing is traced
	steps  []*result.Step
	// skipped and wrongStates are what take returns, known after end.
	skipped     int64
	wrongStates bool
	watched     []*wire.Watched // by step; nil for one that is not judged
}

// begin arms the trace. end or drop must follow when there is no error.
func begin(v *vm.VM, k *kernel.Kernel, t *lab.Trace) (s *trial, err error) {
	s = &trial{v: v, k: k, traced: t}
	if !t.On() {
		return s, nil
	}
	ctx, cancel := s.limit("arm the trace", stepDeadline)
	defer cancel()
	if s.trace, err = trace.Begin(ctx, v, k, request(t)); err != nil {
		return nil, err
	}
	return s, nil
}

// limit is the machine's context with a deadline.
func (s *trial) limit(what string, after time.Duration) (context.Context, context.CancelFunc) {
	late := &DeadlineError{what, s.v.Patient(after)}
	return context.WithTimeoutCause(s.v.Context(), late.After, late)
}

// run runs one of labctl's own programs. The step is filled as far as the run came.
func (s *trial) run(id string, argv []string, limit time.Duration, points []lab.Point) (*result.Step, error) {
	return s.step(id, wire.ExecParams{Argv: argv, Dir: "/"}, limit, points)
}

// judge is run for a program that nobody vouches for.
func (s *trial) judge(id string, argv []string, limit time.Duration, privileges []string, points []lab.Point) (*result.Step, error) {
	return s.step(id, wire.ExecParams{Argv: argv, Dir: "/", Sandbox: lab.Sandbox(privileges), Watch: s.trace != nil}, limit, points)
}

func (s *trial) step(id string, p wire.ExecParams, limit time.Duration, points []lab.Point) (*result.Step, error) {
	ctx, cancel := s.limit("step "+id, limit)
	defer cancel()
	step := &result.Step{ID: id, Argv: p.Argv}
	s.steps, s.watched = append(s.steps, step), append(s.watched, nil)
	return step, s.exec(ctx, step, p, points)
}

// exec runs the program and keeps what it says. One that says too much is ended.
func (s *trial) exec(ctx context.Context, step *result.Step, p wire.ExecParams, points []lab.Point) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	flood := &FloodError{step.ID}
	ended := func() {}
	stdout := bounded.Head{Max: maxStdout, Full: func() { cancel(flood) }}
	stderr := bounded.Head{Max: maxStderr}
	streams := agent.IO{Stdout: &stdout, Stderr: &stderr}
	if len(points) > 0 {
		looks, err := look.Begin(ctx, s.v, s.k, points)
		if err != nil {
			return fmt.Errorf("step %s: %w", step.ID, err)
		}
		marks, answers := looks.Stdout(&stdout)
		streams.Stdout, streams.Stdin = marks, answers
		p.Env = append(p.Env, wire.LookEnv+"=1")
		defer func() { step.Looks = looks.End() }()
		ended = marks.Flush
	}
	var exit wire.ExecResult
	var err error
	if s.trace != nil {
		exit, err = s.trace.Exec(ctx, step.ID, p, streams)
	} else {
		exit, err = s.v.Agent().Exec(ctx, p, streams)
	}
	var late *DeadlineError // names the step
	if err != nil && !errors.As(err, &late) {
		err = fmt.Errorf("step %s: %w", step.ID, err)
	}
	if err != nil {
		return err
	}
	if ended(); stdout.Over() {
		return flood
	}
	s.watched[len(s.watched)-1] = exit.Watched
	step.PID, step.Exit = int64(exit.PID), int64(exit.Code)
	if exit.Signaled {
		step.Signal, step.Exit = int64(exit.Signal), 128+int64(exit.Signal)
	}
	step.Stdout, step.Stderr = text.Clean(stdout.String()), text.Clean(stderr.String())
	return nil
}

// end stops the trace, gives every step its part of it, and keeps it in dir.
func (s *trial) end(dir record.Dir) error {
	if s.trace == nil {
		return nil
	}
	ctx, cancel := s.limit("read the trace", stepDeadline)
	defer cancel()
	p, err := s.trace.End(ctx)
	s.trace = nil
	if err != nil {
		return err
	}
	defer p.Close()
	s.skipped, s.wrongStates = take(p, s.steps, stacksOf(s.traced))
	for i, w := range s.watched {
		if w != nil {
			s.steps[i].Tampered = tampered(s.steps[i], &p.Steps[i], w, s.traced)
		}
	}
	if dir.Path == "" {
		return nil
	}
	return p.WriteFile(dir.File(record.DataFile))
}

// drop gives the trace up, if it was not ended.
func (s *trial) drop() {
	if s.trace != nil {
		s.trace.Drop()
		s.trace = nil
	}
}

// programData makes a program's standard output the step's data when it is one
// JSON object.
func programData(s *result.Step) {
	var data map[string]any
	// The text is clean, by three bytes for each that was not.
	if (strictjson.Format{Max: 3 * maxStdout, Numbers: true}).Decode([]byte(s.Stdout), &data) != nil {
		return
	}
	for k, v := range data {
		data[k] = result.Plain(v)
	}
	s.Data = data
}

// probeResult makes a probe's standard output the step's tasks and data.
func probeResult(s *result.Step, name string) error {
	p, err := probe.ParseResult(name, []byte(s.Stdout))
	if err != nil {
		return fmt.Errorf("step %s: probe %s: %w", s.ID, name, err)
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
