// Package runner runs a lab, or a learner's program, in a machine of its own and
// leaves the result that host/lab/judge judges.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/kernel/profile"
	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/expr"
	"labctl/host/lab/facts"
	"labctl/host/lab/result"
	"labctl/host/machine"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

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
	defer func() { err = errors.Join(err, finish(ctx, v, m.Kernel, dir, rec, res)) }()
	if err := missingFiles(v, l, res); err != nil || len(res.Missing) > 0 {
		return res, v.Why(err)
	}
	if err := send(v, slices.Collect(maps.Values(programs))...); err != nil {
		return res, v.Why(err)
	}
	s, err := begin(v, m.Kernel, l.Trace)
	if err != nil {
		return res, v.Why(err)
	}
	defer s.drop()
	for _, step := range l.Steps {
		if c := lacking[step.Program]; c != "" {
			res.Steps = append(res.Steps, &result.Step{ID: step.ID, NoCompiler: c})
			continue
		}
		done, err := s.run(step.ID, argvOf(step, programs), stepDeadline)
		res.Steps = append(res.Steps, done)
		switch {
		case err != nil:
		case step.Probe == "":
			programData(done)
		case done.Exit == 0:
			err = probeResult(done, step.Probe)
		}
		if err != nil {
			return res, v.Why(err)
		}
	}
	return res, v.Why(s.end(dir))
}

// argvOf is what a step runs.
func argvOf(s lab.Step, programs map[string]*program.Program) []string {
	switch {
	case s.Probe != "":
		argv := []string{probe.Path, s.Probe}
		if p := s.Params(); p != nil {
			argv = append(argv, string(p))
		}
		return argv
	case s.Shell != "":
		return []string{"/bin/sh", "-c", s.Shell}
	}
	return append([]string{programs[s.Program].Argv0}, s.Argv...)
}

// Program runs a learner's program by the rules of a lab's exercise.
func Program(ctx context.Context, env machine.Env, asked machine.Spec, l *lab.Lab, p *program.Program, dir record.Dir, rec *record.Run) (*result.Result, error) {
	all, err := Programs(ctx, env, asked, l, []*program.Program{p}, dir, rec)
	return all[0], err
}

// Programs runs programs one after another in one machine, each as Program does.
// The first finds it as it came up; what one leaves behind, the next ones find.
// There is a result for each program, of those that came to their turn.
func Programs(ctx context.Context, env machine.Env, asked machine.Spec, l *lab.Lab, programs []*program.Program, dir record.Dir, rec *record.Run) (all []*result.Result, err error) {
	m, res, err := prepare(ctx, env, asked, l, l.ExerciseAsks())
	res.Exercise = true
	all = []*result.Result{res}
	if err != nil || len(res.Missing) > 0 {
		return all, err
	}
	v, err := boot(ctx, env, m, dir, rec)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, finish(ctx, v, m.Kernel, dir, rec, res)) }()
	if err := missingFiles(v, l, res); err != nil || len(res.Missing) > 0 {
		return all, v.Why(err)
	}
	if err := send(v, programs...); err != nil {
		return all, v.Why(err)
	}
	s, err := begin(v, m.Kernel, l.Exercise.Trace)
	if err != nil {
		return all, v.Why(err)
	}
	defer s.drop()
	for i, p := range programs {
		if i > 0 {
			one := *res
			all = append(all, &one)
		}
		step, err := s.run(lab.ProgramStep, []string{p.Argv0}, time.Duration(l.Exercise.Seconds)*time.Second)
		all[i].Steps = []*result.Step{step}
		if err != nil {
			return all, v.Why(err)
		}
	}
	return all, v.Why(s.end(dir))
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
func finish(ctx context.Context, v *vm.VM, k *kernel.Kernel, dir record.Dir, rec *record.Run, res *result.Result) error {
	for _, rep := range v.Reports() {
		rec.Reports = append(rec.Reports, record.NewCrash(rep))
	}
	err := v.Close()
	if dir.Path == "" {
		return err
	}
	err = errors.Join(err, writeProfile(ctx, k, dir))
	data, eerr := result.Encode(res)
	if eerr != nil {
		return errors.Join(err, eerr)
	}
	return errors.Join(err, dir.WriteFile(record.StacksFile, []byte(Stacks(res))), dir.WriteFile(result.File, data))
}

// writeProfile puts into the record what kernels are compared by. A run that was
// ended has better things to tell than that it was left out.
func writeProfile(ctx context.Context, k *kernel.Kernel, dir record.Dir) error {
	data, err := profile.JSON(ctx, k)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return dir.WriteFile(record.KernelFile, data)
}

// send brings programs into the guest.
func send(v *vm.VM, programs ...*program.Program) error {
	var b program.Bundle
	for _, p := range programs {
		if err := b.AddProgram(p); err != nil {
			return err
		}
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

// buildSteps builds the programs of a lab's steps, by their folders; lacking names
// the compilers that this host does not have.
func buildSteps(ctx context.Context, l *lab.Lab, arch string) (built map[string]*program.Program, lacking map[string]string, remove func(), err error) {
	built, lacking = map[string]*program.Program{}, map[string]string{}
	var all []compile.Built
	remove = func() {
		for _, b := range all {
			b.Close()
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
		b := compile.Step(ctx, compile.Source{FS: src, Shown: path.Join(path.Dir(l.File), s.Program), Name: strings.ReplaceAll(s.Program, "/", "-")}, arch)
		var none *compile.CompilerError
		if errors.As(b.Err, &none) {
			lacking[s.Program] = none.Compiler
			continue
		}
		if b.Err != nil {
			return nil, nil, remove, b.Err
		}
		built[s.Program] = b.Program
		all = append(all, b)
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
