// Package cell runs the cells of a matrix, each in a machine of its own, with a
// record of its own. What starts when is host/matrix/schedule's to say.
package cell

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/grade"
	"labctl/host/lab/judge"
	"labctl/host/lab/runner"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/schedule"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/vm/accel"
	"labctl/host/vm/agent"
)

// outputFile has the end of what a program printed, in its run record.
const outputFile = "output.txt"

// maxOutput bounds it, in bytes.
const maxOutput = 1 << 20

// Runner runs cells. Its fields are set before the first call.
type Runner struct {
	Env session.Env
	// Spec is what all machines have; a cell's kernel, target, CPUs and memory go
	// into it.
	Spec machine.Spec
	// Timeout ends a cell after this long, boot included; 0 is no limit.
	Timeout time.Duration
	// FailOn says which reports of a kernel's make its cell fail.
	FailOn record.FailOn
	// Lab finds a lab by its id.
	Lab judge.FindLab
	// Submission finds a submission of an exercise by its name. done gives it up.
	Submission func(name string) (s grade.Submission, done func())
	// Record makes the place for a cell's record: the directory, which is not there
	// yet, and what the result calls it.
	Record func(matrix.Cell) (dir, name string, err error)

	// What several cells need is made once.
	labs    memo[string, *lab.Lab]
	built   memo[built, *builtProgram]
	kernels map[string]error // by kernelKey: why it is not there
}

// built is work for an architecture, builtProgram what go made of it.
type built struct{ kind, name, arch string }

type builtProgram struct {
	*program.Program
	dir string // where a test runs on the host
}

// Close gives up what was built.
func (r *Runner) Close() {
	for _, p := range r.built.all() {
		if p != nil {
			p.Close()
		}
	}
}

// Do pulls the kernels of cells and runs the cells, as o says; o.Run is Do's own.
// The error is that of the context, or of o.Keep.
func (r *Runner) Do(ctx context.Context, cells []matrix.Cell, o schedule.Options) ([]matrix.Result, error) {
	r.pull(ctx, cells)
	var jobs []schedule.Job
	for _, c := range cells {
		jobs = append(jobs, r.job(ctx, c))
	}
	o.Run = func(cell context.Context, c matrix.Cell, warm func()) matrix.Result { return r.run(ctx, cell, c, warm) }
	return schedule.Do(ctx, jobs, o)
}

// Check says of the first kernel of cells that cannot come, not by a pull either,
// why that is so.
func (r *Runner) Check(cells []matrix.Cell) error {
	for _, c := range cells {
		t, _ := targets.Find(c.Target)
		ref, err := kernel.ParseRef(c.Kernel)
		if err == nil {
			if _, err = r.Env.Cache.Find(ref, t.Arch); errors.Is(err, kernel.ErrNotCached) {
				err = nil // it is pulled
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func kernelKey(c matrix.Cell) string {
	t, _ := targets.Find(c.Target) // the plan has looked
	return c.Kernel + "/" + t.Arch
}

// pull brings the kernels here, once each. Of one that does not come the cells say
// why.
func (r *Runner) pull(ctx context.Context, cells []matrix.Cell) {
	if r.kernels == nil {
		r.kernels = map[string]error{}
	}
	for _, c := range cells {
		key := kernelKey(c)
		if _, ok := r.kernels[key]; ok || ctx.Err() != nil {
			continue
		}
		t, _ := targets.Find(c.Target)
		ref, err := kernel.ParseRef(c.Kernel)
		if err == nil {
			_, err = r.Env.Cache.Get(ctx, ref, t.Arch, r.Env.PullOf(ref, t.Arch))
		}
		r.kernels[key] = err
	}
}

// spec is a cell's machine.
func (r *Runner) spec(c matrix.Cell) machine.Spec {
	t, _ := targets.Find(c.Target)
	s := r.Spec
	s.Kernel, s.CPUs, s.MemoryMB, s.Arch, s.Board, s.Append = c.Kernel, c.CPUs, c.MemoryMB, "", "", c.Append
	if t.Board {
		s.Board = t.Name
	} else {
		s.Arch = t.Name
	}
	return s
}

// job says what a cell takes, and what it starts from.
func (r *Runner) job(ctx context.Context, c matrix.Cell) schedule.Job {
	t, _ := targets.Find(c.Target)
	s := r.spec(c)
	switch c.Work.Kind {
	case matrix.Lab, matrix.Exercise:
		if l, err := r.lab(c.Work.Name); err == nil {
			s = runner.Spec(l, s)
		}
	case matrix.GoTest, matrix.Program:
		s.Commands = c.Work.Kind == matrix.GoTest || !strings.Contains(c.Work.Name, "/")
	}
	cpus := cmp.Or(s.CPUs, t.CPUs)
	j := schedule.Job{Cell: c, CPUs: cpus, MemoryMB: cmp.Or(s.MemoryMB, t.MemoryMB) + schedule.Overhead}
	if t.TCGThread == "single" {
		v, err := accel.Best(ctx, t.Binary, t.Arch)
		if !t.KVM || err != nil || v.Accel == "tcg" {
			j.CPUs = 1
		}
	}
	if t.Snapshot && !s.Cold {
		j.Machine = fmt.Sprintf("%s %s %t %d %d %d %q", c.Kernel, t.Name, s.Commands, s.CPUs, s.MemoryMB, s.Nodes, s.Append)
	}
	return j
}

func (r *Runner) lab(id string) (*lab.Lab, error) {
	return r.labs.get(id, func() (*lab.Lab, error) { return r.Lab(id) })
}

// run runs a cell once. What is made for others too is made under the whole's
// context, not under the cell's.
func (r *Runner) run(whole, ctx context.Context, c matrix.Cell, warm func()) matrix.Result {
	res := matrix.Result{}
	env := r.Env.For(c.ID())
	env.Env.Warm = warm
	dir, name, err := r.Record(c)
	if err == nil {
		res.Record = name
		o := session.Options{
			Name: c.Work.Kind + "-" + session.PlainName(c.Work.Name), Out: dir, Spec: r.spec(c),
			Timeout: r.Timeout, FailOn: r.FailOn, Unprepared: true,
		}
		if missing := r.kernels[kernelKey(c)]; missing != nil {
			o.Before = func(context.Context, *machine.Spec) error { return missing }
		}
		switch c.Work.Kind {
		case matrix.Lab:
			err = r.runLab(ctx, env, o, c, &res)
		case matrix.Exercise:
			err = r.runExercise(ctx, env, o, c, &res)
		case matrix.Probes:
			err = r.runProbes(ctx, env, o, c, &res)
		default:
			err = r.runProgram(whole, ctx, env, o, c, &res)
		}
	}
	conclude(&res, err)
	return res
}

// conclude gives a cell whose run ended with err its outcome. What a lab was judged
// to be stands where the run has none of its own.
func conclude(res *matrix.Result, err error) {
	k := outcome.Of(err)
	if k != outcome.OK {
		res.Status = k
	}
	if k == outcome.KernelReported { // the error has that of a lab's checks, too
		res.Reason = ""
	}
	res.Status = cmp.Or(res.Status, outcome.OK)
	if err != nil {
		res.Reason = cmp.Or(res.Reason, text.Line(err.Error(), 500))
	}
}

func (r *Runner) runLab(ctx context.Context, env session.Env, o session.Options, c matrix.Cell, res *matrix.Result) error {
	l, err := r.lab(c.Work.Name)
	if err != nil {
		return err
	}
	ran, err := runner.Lab(ctx, env, o, l)
	res.Took(&ran.Session.Run)
	if ran.Report != nil {
		res.Status, res.Reason = verdict(ran.Report)
		res.Checks, res.Claims = checks(ran.Report)
	}
	return err
}

// runExercise grades a submission. Whatever its program does is in the result; the
// error is one of the host's.
func (r *Runner) runExercise(ctx context.Context, env session.Env, o session.Options, c matrix.Cell, res *matrix.Result) error {
	l, err := r.lab(c.Work.Name)
	if err != nil {
		return err
	}
	s, done := r.Submission(c.Work.Args[0])
	defer done()
	g, err := grade.One(ctx, env, o, l, s)
	res.Took(&g.Run)
	if err != nil {
		return err
	}
	Graded(res, g)
	return nil
}

// Graded fills in what a submission's grade says.
func Graded(res *matrix.Result, g *grade.Grade) {
	res.Status, res.How, res.Reason, res.Output = g.Outcome, g.How, text.Line(g.Message, 500), matrix.Tail(g.Output)
	if g.How == outcome.NoCompile { // the compiler's words: the first line, and all
		res.Reason, _, _ = strings.Cut(g.Message, "\n")
		res.Reason, res.Output = text.Line(res.Reason, 500), matrix.Tail(g.Message)
	}
	if g.Report != nil {
		res.Checks, _ = checks(g.Report)
	}
}

func (r *Runner) runProbes(ctx context.Context, env session.Env, o session.Options, c matrix.Cell, res *matrix.Result) error {
	po := session.ProbeOptions{Options: o, Names: strings.Split(c.Work.Name, ",")}
	if len(c.Work.Args) > 0 {
		po.Params = json.RawMessage(c.Work.Args[0])
	}
	s, err := session.Probes(ctx, env, po)
	res.Took(&s.Run)
	return err
}

// runProgram runs a program, or the tests of a package.
func (r *Runner) runProgram(whole, ctx context.Context, env session.Env, o session.Options, c matrix.Cell, res *matrix.Result) error {
	said := &bounded.Tail{Max: maxOutput}
	var job *program.Job
	o.Files = new(program.Bundle)
	before := o.Before
	o.Before = func(ctx context.Context, spec *machine.Spec) (err error) {
		if before != nil {
			if err := before(ctx, spec); err != nil {
				return err
			}
		}
		if job, spec.Commands, err = r.jobOf(whole, c); err != nil {
			return err
		}
		*o.Files = job.Bundle
		if left := job.LeftOut(); left != nil && env.Warn != nil {
			env.Warn(left)
		}
		return nil
	}
	o.Write = func(s *session.Session, err error) error {
		return errors.Join(err, s.Dir.WriteFile(outputFile, []byte(text.Clean(said.String()))))
	}
	s, err := session.Run(ctx, env, o, func(ctx context.Context, s *session.Session) error {
		exit, err := job.Run(ctx, s.VM.Agent(), agent.IO{Stdout: said, Stderr: said})
		if err != nil {
			return err
		}
		if oom := session.KilledByOOM(s.VM, exit); oom != nil {
			fmt.Fprintf(said, "\n%v\n", oom)
		}
		left, err := job.Fetch(ctx, s.VM.Agent())
		if err != nil {
			return err
		}
		if left != "" {
			fmt.Fprintf(said, "\n%s\n", left)
		}
		if session.Status(exit) != nil {
			return outcome.New(outcome.CheckFailed, text.Line(whyFailed(exit, c.Work.Kind, text.Clean(said.String())), 500))
		}
		return nil
	})
	res.Took(&s.Run)
	res.Output = matrix.Tail(text.Clean(said.String()))
	return err
}

// jobOf plans the run of a cell's program, and reports whether that wants the guest to
// have commands.
func (r *Runner) jobOf(ctx context.Context, c matrix.Cell) (job *program.Job, commands bool, err error) {
	t, _ := targets.Find(c.Target)
	prog, err := r.program(ctx, c.Work, t.Arch)
	if err != nil {
		return nil, false, err
	}
	argv := append([]string{c.Work.Name}, c.Work.Args...)
	if prog.Test {
		// As go test calls it.
		argv = append([]string{c.Work.Name, "-test.paniconexit0", "-test.timeout=10m0s"}, c.Work.Args...)
	}
	job, err = program.NewJob(prog.Program, argv, program.JobOptions{Cwd: prog.dir, Files: c.Work.Files})
	return job, prog.Commands(), err
}

// program finds or builds a program, once for an architecture.
func (r *Runner) program(ctx context.Context, w matrix.Work, arch string) (*builtProgram, error) {
	return r.built.get(built{w.Kind, w.Name, arch}, func() (*builtProgram, error) {
		b := &builtProgram{}
		var err error
		if w.Kind == matrix.GoTest {
			b.Program, b.dir, err = program.BuildTest(ctx, w.Name, arch)
		} else {
			b.Program, err = program.Find(ctx, w.Name, arch)
		}
		if err != nil {
			return nil, outcome.Default(outcome.BadInput, err)
		}
		return b, nil
	})
}

// failedTest is how a Go test says what fails (testing, T.report).
var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// whyFailed is one line on a program that did not end well.
func whyFailed(r wire.ExecResult, kind, output string) string {
	how := fmt.Sprintf("exit status %d", r.Code)
	if r.Signaled {
		how = "ended by " + unix.SignalName(syscall.Signal(r.Signal))
	}
	if kind == matrix.GoTest {
		var names []string
		for _, f := range failedTest.FindAllStringSubmatch(output, 20) {
			names = append(names, f[1])
		}
		if len(names) > 0 {
			return strings.Join(names, ", ") + " (" + how + ")"
		}
	}
	if last := lastLine(output); last != "" {
		how += ": " + last
	}
	return how
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// memo makes a value once for each key. Others that want it wait.
type memo[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]func() (V, error)
}

func (m *memo[K, V]) get(key K, make func() (V, error)) (V, error) {
	m.mu.Lock()
	if m.values == nil {
		m.values = map[K]func() (V, error){}
	}
	once, ok := m.values[key]
	if !ok {
		once = sync.OnceValues(make)
		m.values[key] = once
	}
	m.mu.Unlock()
	return once()
}

// all are the values there are, errors left out.
func (m *memo[K, V]) all() (out []V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, once := range m.values {
		if v, err := once(); err == nil {
			out = append(out, v)
		}
	}
	return out
}
