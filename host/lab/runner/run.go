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
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Spec is the machine that a lab needs, on top of what the user asks for. CPUs and memory
// that the user has named stay as they are, whether they are enough or not: see tooSmall.
func Spec(l *lab.Lab, asked machine.Spec) machine.Spec {
	asked.Features = append(asked.Features, "trace")
	asked.Commands = asked.Commands || l.Commands()
	asked.Append = append(append([]string(nil), l.Needs.Append...), asked.Append...)
	if l.Needs.NUMANodes > 1 {
		asked.Nodes = max(asked.Nodes, l.Needs.NUMANodes)
	}
	// What the machine has anyhow is no wish: one template serves more labs.
	t, err := machine.FindTarget(asked.Arch, asked.Board)
	if asked.CPUs == 0 && (err != nil || l.Needs.CPUs > t.CPUs) {
		asked.CPUs = l.Needs.CPUs
	}
	if asked.MemoryMB == 0 && (err != nil || l.Needs.MemoryMB > t.MemoryMB) {
		asked.MemoryMB = l.Needs.MemoryMB
	}
	return asked
}

// minMemoryMB is for a lab that asks for no memory: a distribution's kernel, its initramfs
// and the trace. With 64 MB they panic while they boot.
const minMemoryMB = 128

// tooSmall says what a lab needs and the user does not give it.
func tooSmall(n lab.Needs, asked machine.Spec) (why []string) {
	if asked.CPUs != 0 && asked.CPUs < n.CPUs {
		why = append(why, fmt.Sprintf("it needs %d CPUs, --smp gives it %d", n.CPUs, asked.CPUs))
	}
	if least := max(n.MemoryMB, minMemoryMB, n.NUMANodes*machine.MinNodeMB); asked.MemoryMB != 0 && asked.MemoryMB < least {
		why = append(why, fmt.Sprintf("it needs %d MB of memory, --mem gives it %d", least, asked.MemoryMB))
	}
	return why
}

// Run is a lab, or a program by the rules of its exercise, run in one machine.
type Run struct {
	*session.Session
	Lab    *lab.Lab
	Result *result.Result
	Report *judge.Report // nil when there is nothing to judge, because of the run's error
}

// Judged is the run as its record has it.
func (r *Run) Judged() *judge.Run {
	return &judge.Run{Dir: r.Dir, Record: r.Session.Run, Lab: r.Lab, Result: r.Result, Report: r.Report}
}

// Lab runs all steps of a lab and judges what the kernel showed. The error is an
// *outcome.ChecksError when a check fails. A lab that cannot run on this machine is
// no error: see Result.Missing. The Run is never nil.
func Lab(ctx context.Context, env session.Env, o session.Options, l *lab.Lab) (*Run, error) {
	return Watched(ctx, env, o, l, nil)
}

// Watch is told of the step that begins, "" when all have run and the trace is read,
// and of what is known by then. It must not keep the result.
type Watch func(step string, r *result.Result)

// Watched is Lab for those who want to see it go on.
func Watched(ctx context.Context, env session.Env, o session.Options, l *lab.Lab, watch Watch) (*Run, error) {
	r := newRun(l, l.Asks())
	if r.watch = watch; watch == nil {
		r.watch = func(string, *result.Result) {}
	}
	var programs map[string]*program.Program
	var lacking map[string]string
	o.Files = new(program.Bundle)
	return r.run(ctx, env, o, func(ctx context.Context) (done func(), err error) {
		if programs, lacking, done, err = buildSteps(ctx, l, r.arch); err != nil {
			return done, err
		}
		var all []*program.Program
		for _, name := range slices.Sorted(maps.Keys(programs)) { // the same archive each time
			all = append(all, programs[name])
		}
		return done, add(o.Files, all...)
	}, func(ctx context.Context, s *session.Session) error {
		return r.steps(s, programs, lacking)
	})
}

// Program runs a learner's program by the rules of a lab's exercise and judges it
// as Lab does.
func Program(ctx context.Context, env session.Env, o session.Options, l *lab.Lab, p *program.Program) (*Run, error) {
	r := newRun(l, l.ExerciseAsks())
	r.Result.Exercise = true
	o.Files = new(program.Bundle)
	if err := add(o.Files, p); err != nil {
		return &r.Run, err
	}
	return r.run(ctx, env, o, nil, func(_ context.Context, s *session.Session) error {
		_, err := r.programs(s, []Attempt{{Program: p}})
		return err
	})
}

// Attempt is a program to be judged, and its arguments, which a learner's has none of.
type Attempt struct {
	*program.Program
	Args []string
}

// Programs runs programs one after another in one machine, each as Program does,
// and keeps no record. The first finds the machine as it came up; what one leaves
// behind, the next ones find. There is a result for each program, of those that
// came to their turn.
func Programs(ctx context.Context, env session.Env, o session.Options, l *lab.Lab, programs []Attempt) (all []*result.Result, err error) {
	r := newRun(l, l.ExerciseAsks())
	r.Result.Exercise = true
	r.unjudged = true
	all = []*result.Result{r.Result}
	var files []*program.Program
	for _, p := range programs {
		files = append(files, p.Program)
	}
	o.Files = new(program.Bundle)
	if err := add(o.Files, files...); err != nil {
		return all, err
	}
	_, err = r.run(ctx, env, o, nil, func(_ context.Context, s *session.Session) (err error) {
		all, err = r.programs(s, programs)
		return err
	})
	return all, err
}

// run is a run as it goes on.
type run struct {
	Run
	asks     expr.Asks
	arch     string // GOARCH of the guest
	unjudged bool
	watch    Watch
}

func newRun(l *lab.Lab, asks expr.Asks) *run {
	return &run{Run: Run{Session: new(session.Session), Lab: l, Result: &result.Result{Lab: l.ID, SHA256: l.SHA256}}, asks: asks}
}

// run boots a machine for the lab, where it can run there, and has work done in it.
// build is called before the boot.
func (r *run) run(ctx context.Context, env session.Env, o session.Options,
	build func(context.Context) (done func(), err error), work func(context.Context, *session.Session) error) (_ *Run, err error) {
	t, err := machine.FindTarget(o.Spec.Arch, o.Spec.Board)
	if err != nil {
		return &r.Run, err
	}
	asked := o.Spec
	o.Spec = Spec(r.Lab, asked)
	small := tooSmall(r.Lab.Needs, asked)
	if t.Fixed || len(small) > 0 {
		// A board has what it has; whether that is enough is for Missing to say.
		o.Spec.CPUs, o.Spec.MemoryMB, o.Spec.Nodes = asked.CPUs, asked.MemoryMB, asked.Nodes
	}
	o.Prepared = func(ctx context.Context, s *session.Session) (err error) {
		m := s.Machine
		r.arch = m.Target.Arch
		if r.Result.Kernel, err = facts.Of(ctx, m.Kernel, m.Target, r.asks); err != nil {
			return err
		}
		r.Result.Missing = append(facts.Missing(r.Lab.Needs, &r.Result.Kernel, m.Target), small...)
		if x := r.Lab.Exercise; r.Result.Exercise && x.Exprs() != nil {
			v, err := x.Exprs().Eval(expr.Input{Kernel: &r.Result.Kernel})
			if err != nil {
				return fmt.Errorf("exercise.when: %w", err)
			}
			if !v.True {
				r.Result.Missing = append(r.Result.Missing, x.WhyNot.In("en"))
			}
		}
		if len(r.Result.Missing) > 0 {
			return session.ErrNoBoot
		}
		return nil
	}
	done := func() {}
	defer func() { done() }()
	if build != nil {
		prepared := o.Prepared
		o.Prepared = func(ctx context.Context, s *session.Session) (err error) {
			if err := prepared(ctx, s); err != nil {
				return err
			}
			done, err = build(ctx)
			return err
		}
	}
	o.Write = func(s *session.Session, err error) error { return r.write(ctx, s, err) }
	r.Session, err = session.Run(ctx, env, o, func(ctx context.Context, s *session.Session) error {
		if err := missingFiles(s.VM, r.Lab, r.Result); err != nil || len(r.Result.Missing) > 0 {
			return err
		}
		return work(ctx, s)
	})
	return &r.Run, err
}

// steps runs the steps of the lab under one trace.
func (r *run) steps(s *session.Session, programs map[string]*program.Program, lacking map[string]string) error {
	var probes []string
	for _, step := range r.Lab.Steps {
		probes = append(probes, step.Probe)
	}
	calls, err := probe.Lacks(s.VM.Context(), s.Machine.Kernel, probes)
	if err != nil {
		return err
	}
	t, err := begin(s.VM, s.Machine.Kernel, r.Lab.Trace)
	if err != nil {
		return err
	}
	defer t.drop()
	for _, step := range r.Lab.Steps {
		r.watch(step.ID, r.Result)
		if c := lacking[step.Program]; c != "" {
			r.Result.Steps = append(r.Result.Steps, &result.Step{ID: step.ID, NoCompiler: c})
			continue
		}
		if call := calls[step.Probe]; call != "" {
			r.Result.Steps = append(r.Result.Steps, &result.Step{ID: step.ID, NoCall: call})
			continue
		}
		var done *result.Step
		if argv := argvOf(step, programs); step.Program == "" {
			done, err = t.run(step.ID, argv, stepDeadline, step.Outside)
		} else {
			privileges := r.Lab.Needs.Privileges
			if step.Privileges != nil {
				privileges = step.Privileges
			}
			done, err = t.judge(step.ID, argv, stepDeadline, privileges, step.Outside)
		}
		r.Result.Steps = append(r.Result.Steps, done)
		switch {
		case err != nil:
		case step.Probe == "":
			programData(done)
		case done.Exit == 0:
			err = probeResult(done, step.Probe)
		}
		if err != nil {
			return err
		}
	}
	r.watch("", r.Result)
	err = t.end(recordOf(s))
	r.Result.Kernel.SkippedFrames, r.Result.Kernel.WrongStates = t.skipped, t.wrongStates
	return err
}

// programs runs programs under one trace.
func (r *run) programs(s *session.Session, programs []Attempt) (all []*result.Result, err error) {
	all = []*result.Result{r.Result}
	t, err := begin(s.VM, s.Machine.Kernel, r.Lab.Exercise.Trace)
	if err != nil {
		return all, err
	}
	defer t.drop()
	for i, p := range programs {
		if i > 0 {
			one := *r.Result
			all = append(all, &one)
		}
		step, err := t.judge(lab.ProgramStep, append([]string{p.Argv0}, p.Args...), time.Duration(r.Lab.Exercise.Seconds)*time.Second, r.Lab.Needs.Privileges, r.Lab.Exercise.Outside)
		all[i].Steps = []*result.Step{step}
		if err != nil {
			return all, err
		}
	}
	err = t.end(recordOf(s))
	for _, one := range all {
		one.Kernel.SkippedFrames, one.Kernel.WrongStates = t.skipped, t.wrongStates
	}
	return all, err
}

// recordOf is the record's directory, the zero Dir when nothing is kept.
func recordOf(s *session.Session) record.Dir {
	if !s.Recorded() {
		return record.Dir{}
	}
	return s.Dir
}

// write judges the run and writes the record's files.
func (r *run) write(ctx context.Context, s *session.Session, err error) error {
	if err != nil {
		r.Result.Unfinished = text.Line(err.Error(), 300)
	}
	if s.Recorded() && (s.VM != nil || len(r.Result.Missing) > 0) {
		err = errors.Join(err, r.writeFiles(ctx, s))
	}
	if err != nil || r.unjudged {
		return err
	}
	if r.Report, err = judge.Judge(r.Lab, r.Result); err != nil {
		return err
	}
	if len(r.Report.Tampered) > 0 {
		return &outcome.TamperedError{Seen: r.Report.Tampered}
	}
	return outcome.Checks(r.Report.Failed())
}

func (r *run) writeFiles(ctx context.Context, s *session.Session) error {
	data, err := result.Encode(r.Result)
	if err != nil {
		return err
	}
	if seen := r.Result.Outside(); seen != "" {
		err = s.Dir.WriteFile(record.OutsideFile, []byte(seen))
	}
	return errors.Join(err, writeProfile(ctx, s.Machine.Kernel, s.Dir),
		s.Dir.WriteFile(record.StacksFile, []byte(r.Result.Stacks())), s.Dir.WriteFile(result.File, data))
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

// Arch is the GOARCH that programs for this machine are built for.
func Arch(asked machine.Spec) (string, error) {
	t, err := machine.FindTarget(asked.Arch, asked.Board)
	return t.Arch, err
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

// add adds programs to the files for a guest, each once.
func add(b *program.Bundle, programs ...*program.Program) error {
	for i, p := range programs {
		if slices.Contains(programs[:i], p) {
			continue
		}
		if err := b.AddProgram(p); err != nil {
			return err
		}
	}
	return nil
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

// buildSteps builds the programs of a lab's steps, by their directories; lacking names
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
