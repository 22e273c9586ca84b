// Package run runs a lab, or a learner's program, in a machine of its own and
// leaves the result that host/lab/judge judges.
package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"labctl/host/agent"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/build"
	"labctl/host/lab/expr"
	"labctl/host/lab/facts"
	"labctl/host/lab/result"
	"labctl/host/machine"
	"labctl/host/probe"
	"labctl/host/program"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/vm"
)

// stepDeadline is for one step on a machine that boots in two seconds;
// vm.Patient scales it.
const stepDeadline = 60 * time.Second

// DeadlineError is a program that did not end in time.
type DeadlineError struct {
	Step  string
	After time.Duration
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("step %s: it did not end in %v", e.Step, e.After.Round(100*time.Millisecond))
}

func (e *DeadlineError) Unwrap() error { return probe.ErrDeadline }

// Spec is the machine that a lab needs, on top of what the user asks for.
func Spec(l *lab.Lab, asked machine.Spec) machine.Spec {
	asked.Features = append(asked.Features, "trace")
	asked.Commands = asked.Commands || l.Commands()
	asked.Append = append(append([]string(nil), l.Needs.Append...), asked.Append...)
	asked.CPUs, asked.MemoryMB = max(asked.CPUs, l.Needs.CPUs), max(asked.MemoryMB, l.Needs.MemoryMB)
	if t, err := machine.FindTarget(asked.Arch, asked.Board); err == nil {
		// What the machine has anyhow is no wish: one template serves more labs.
		if asked.CPUs == l.Needs.CPUs && l.Needs.CPUs <= t.CPUs {
			asked.CPUs = 0
		}
		if asked.MemoryMB == l.Needs.MemoryMB && l.Needs.MemoryMB <= t.MemoryMB {
			asked.MemoryMB = 0
		}
	}
	return asked
}

// Lab runs all steps of a lab. rec is filled as far as the run came, and dir,
// when it has a path, gets the record's files but run.json. A lab that cannot
// run on this machine is no error: see Result.Missing.
func Lab(ctx context.Context, env machine.Env, asked machine.Spec, l *lab.Lab, dir record.Dir, rec *record.Run) (res *result.Result, err error) {
	m, res, err := prepare(ctx, env, asked, l, l.Asks())
	if err != nil || len(res.Missing) > 0 {
		return res, err
	}
	programs, lacking, remove, err := buildSteps(ctx, l, m.Target.Arch)
	defer remove()
	if err != nil {
		return res, err
	}
	v, err := boot(ctx, env, m, dir, rec)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, finish(v, dir, rec, res)) }()
	if err := missingFiles(v, l, res); err != nil || len(res.Missing) > 0 {
		return res, v.Why(err)
	}
	r, err := newRunner(v.Context(), v, m.Kernel, l.Trace)
	if err != nil {
		return res, err
	}
	for _, p := range programs {
		if err := send(v, p); err != nil {
			return res, v.Why(err)
		}
	}
	for _, s := range l.Steps {
		if c := lacking[s.Program]; c != "" {
			res.Steps = append(res.Steps, &result.Step{ID: s.ID, NoCompiler: c})
			continue
		}
		argv := append([]string(nil), s.Argv...)
		switch {
		case s.Probe != "":
			argv = []string{probe.Path, s.Probe}
			if p := s.Params(); p != nil {
				argv = append(argv, string(p))
			}
		case s.Shell != "":
			argv = []string{"/bin/sh", "-c", s.Shell}
		default:
			argv = append([]string{programs[s.Program].Argv0}, argv...)
		}
		step, err := r.bounded(s.ID, argv, stepDeadline, dir)
		res.Steps = append(res.Steps, step)
		switch {
		case err != nil:
		case s.Probe == "":
			programData(step)
		case step.Exit == 0:
			err = probeResult(step, s.Probe)
		}
		if err != nil {
			return res, v.Why(err)
		}
	}
	return res, nil
}

// Program runs a learner's program by the rules of a lab's exercise.
func Program(ctx context.Context, env machine.Env, asked machine.Spec, l *lab.Lab, p *program.Program, dir record.Dir, rec *record.Run) (res *result.Result, err error) {
	m, res, err := prepare(ctx, env, asked, l, l.ExerciseAsks())
	res.Exercise = true
	if err != nil || len(res.Missing) > 0 {
		return res, err
	}
	v, err := boot(ctx, env, m, dir, rec)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, finish(v, dir, rec, res)) }()
	if err := missingFiles(v, l, res); err != nil || len(res.Missing) > 0 {
		return res, v.Why(err)
	}
	r, err := newRunner(v.Context(), v, m.Kernel, l.Exercise.Trace)
	if err != nil {
		return res, err
	}
	if err := send(v, p); err != nil {
		return res, v.Why(err)
	}
	step, err := r.bounded(lab.ProgramStep, []string{p.Argv0}, time.Duration(l.Exercise.Seconds)*time.Second, dir)
	res.Steps = append(res.Steps, step)
	return res, v.Why(err)
}

// TraceFile is where a shell in the guest finds the trace that Arm has armed.
const TraceFile = "/sys/kernel/tracing/instances/labctl/trace"

// Arm arms a lab's trace in a machine and leaves it so, for a learner at a
// shell. It gives what the kernel would not trace.
func Arm(v *vm.VM, k *kernel.Kernel, l *lab.Lab) (missing []string, err error) {
	r, err := newRunner(v.Context(), v, k, l.Trace)
	if err != nil || !l.Trace.On() {
		return nil, err
	}
	armed, err := v.Agent().TraceStart(v.Context(), r.plan)
	if err != nil {
		return nil, fmt.Errorf("arm the trace: %w", err)
	}
	return armed.Missing, nil
}

// Arch is the GOARCH that programs for this machine are built for.
func Arch(asked machine.Spec) (string, error) {
	t, err := machine.FindTarget(asked.Arch, asked.Board)
	return t.Arch, err
}

func prepare(ctx context.Context, env machine.Env, asked machine.Spec, l *lab.Lab, asks expr.Asks) (*machine.Machine, *result.Result, error) {
	res := &result.Result{Lab: l.ID, SHA256: l.SHA256}
	t, err := machine.FindTarget(asked.Arch, asked.Board)
	if err != nil {
		return nil, res, err
	}
	plain := Spec(l, asked)
	if t.Fixed {
		// A board has what it has; whether that is enough is for Missing to say.
		plain.CPUs, plain.MemoryMB = asked.CPUs, asked.MemoryMB
	}
	m, err := machine.Prepare(ctx, env, plain)
	if err != nil {
		return nil, res, err
	}
	if res.Kernel, err = facts.Of(ctx, m.Kernel, m.Target, asks); err != nil {
		return nil, res, err
	}
	res.Missing = facts.Missing(l.Needs, &res.Kernel, m.Target)
	return m, res, nil
}

func boot(ctx context.Context, env machine.Env, m *machine.Machine, dir record.Dir, rec *record.Run) (*vm.VM, error) {
	v, err := m.Boot(ctx, env, dir, nil)
	m.Describe(rec, v)
	return v, err
}

// finish ends the machine and writes what is there to write.
func finish(v *vm.VM, dir record.Dir, rec *record.Run, res *result.Result) error {
	for _, rep := range v.Reports() {
		rec.Reports = append(rec.Reports, record.NewCrash(rep))
	}
	err := v.Close()
	if dir.Path == "" {
		return err
	}
	data, eerr := result.Encode(res)
	if eerr != nil {
		return errors.Join(err, eerr)
	}
	return errors.Join(err, dir.WriteFile(record.StacksFile, []byte(Stacks(res))), dir.WriteFile(result.File, data))
}

// bounded runs one step with a deadline.
func (r *runner) bounded(id string, argv []string, limit time.Duration, dir record.Dir) (*result.Step, error) {
	late := &DeadlineError{id, r.v.Patient(limit)}
	ctx, cancel := context.WithTimeoutCause(r.v.Context(), late.After, late)
	defer cancel()
	s, trace, err := r.step(ctx, id, argv)
	if len(trace) > 0 && dir.Path != "" {
		err = errors.Join(err, dir.WriteFile("trace-"+id+".txt", trace))
	}
	return s, err
}

func send(v *vm.VM, p *program.Program) error {
	var b program.Bundle
	if err := b.AddProgram(p); err != nil {
		return err
	}
	return b.Send(v.Context(), v.Agent())
}

// missingFiles looks for the files that the lab needs in the guest.
func missingFiles(v *vm.VM, l *lab.Lab, res *result.Result) error {
	res.Kernel.CPUs = int64(v.Hello().CPUs)
	for _, f := range l.Needs.Files {
		err := v.Agent().ReadFile(v.Context(), f, 0, nil)
		var guest *agent.GuestError
		if err != nil && !errors.As(err, &guest) {
			return err
		}
		if guest != nil && strings.Contains(guest.Msg, "no such file or directory") {
			res.Missing = append(res.Missing, "it needs "+f+", which this kernel does not have")
		}
	}
	return nil
}

// buildSteps builds the programs of a lab's steps, by their folders. lacking are
// the compilers of those that this host cannot build.
func buildSteps(ctx context.Context, l *lab.Lab, arch string) (built map[string]*program.Program, lacking map[string]string, remove func(), err error) {
	built, lacking = map[string]*program.Program{}, map[string]string{}
	var all []func()
	remove = func() {
		for _, f := range all {
			f()
		}
	}
	for _, s := range l.Steps {
		if s.Program == "" || built[s.Program] != nil || lacking[s.Program] != "" {
			continue
		}
		src, err := fs.Sub(l.Dir, s.Program)
		if err != nil {
			return nil, nil, remove, err
		}
		p, drop, err := build.Step(ctx, src, path.Join(path.Dir(l.File), s.Program), strings.ReplaceAll(s.Program, "/", "-"), arch)
		var none *build.CompilerError
		if errors.As(err, &none) {
			lacking[s.Program] = none.Compiler
			continue
		}
		if err != nil {
			return nil, nil, remove, err
		}
		built[s.Program] = p
		all = append(all, drop)
	}
	return built, lacking, remove, nil
}

// Stacks prints the creations of a result for people.
func Stacks(r *result.Result) string {
	var b strings.Builder
	for _, s := range r.Steps {
		for i := range s.Creations {
			c := &s.Creations[i]
			fmt.Fprintf(&b, "// step %s: %s-%d makes %s-%d by %s\n", s.ID, report.Clean(c.Requester.Comm), c.Requester.TID,
				report.Clean(c.Child.Name), c.Child.TID, report.Clean(c.Via))
			printed := c.Stack.Print()
			b.WriteString(printed.TRACE32())
			if c.Asked {
				fmt.Fprintf(&b, "// asked for by %s-%d\n", report.Clean(c.AskedBy.Comm), c.AskedBy.TID)
				printed := c.AskStack.Print()
				b.WriteString(printed.TRACE32())
			}
		}
	}
	return b.String()
}
