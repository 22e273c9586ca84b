package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/runner"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/schedule"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/vm/accel"
	"labctl/host/vm/agent"
)

// outputFile has the end of what a program printed, in its run record.
const outputFile = "output.txt"

// maxOutput bounds it, in bytes.
const maxOutput = 1 << 20

// matrixRunner runs the cells of one matrix.
type matrixRunner struct {
	a      *app
	o      *matrixRunOptions
	env    machine.Env
	folder *matrix.Folder

	// What several cells need is made once.
	labs    memo[string, *lab.Lab]
	built   memo[built, *builtProgram]
	kernels map[string]error // by kernelKey: why it is not there

	start time.Time

	mu                  sync.Mutex
	total, done, failed int
	before              int // done when this run began
	running             []matrix.Cell
}

// built is work for an architecture, builtProgram what go made of it.
type built struct{ kind, name, arch string }

type builtProgram struct {
	*program.Program
	dir string // where a test is at home
}

func (a *app) newMatrixRunner(folder *matrix.Folder, o *matrixRunOptions) (*matrixRunner, error) {
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	return &matrixRunner{a: a, o: o, env: env, folder: folder, kernels: map[string]error{}}, nil
}

// close gives up what was built.
func (m *matrixRunner) close() {
	for _, p := range m.built.all() {
		if p != nil {
			p.Close()
		}
	}
}

// do runs cells. The error is that of the context, or of the folder.
func (m *matrixRunner) do(ctx context.Context, cells []matrix.Cell) ([]matrix.Result, error) {
	m.start, m.before = time.Now(), m.done
	m.pull(ctx, cells)
	var jobs []schedule.Job
	for _, c := range cells {
		jobs = append(jobs, m.job(ctx, c))
	}
	if m.a.progress.terminal {
		defer ticker(time.Second, m.draw)()
	}
	defer m.a.progress.status("")
	return schedule.Do(ctx, jobs, schedule.Options{
		Budget: m.o.budget(), Retries: m.o.retries, Keep: m.folder.Keep, Tell: m.tell,
		Run: func(cell context.Context, c matrix.Cell, warm func()) matrix.Result { return m.run(ctx, cell, c, warm) },
	})
}

func kernelKey(c matrix.Cell) string {
	t, _ := targets.Find(c.Target) // the plan has looked
	return c.Kernel + "/" + t.Arch
}

// pull brings the kernels here, once each. Of one that does not come the cells say
// why.
func (m *matrixRunner) pull(ctx context.Context, cells []matrix.Cell) {
	for _, c := range cells {
		key := kernelKey(c)
		if _, ok := m.kernels[key]; ok || ctx.Err() != nil {
			continue
		}
		t, _ := targets.Find(c.Target)
		ref, err := kernel.ParseRef(c.Kernel)
		if err == nil {
			_, err = m.env.Cache.Get(ctx, ref, t.Arch, m.env.PullOf(ref, t.Arch))
		}
		m.kernels[key] = err
	}
}

// spec is a cell's machine.
func (m *matrixRunner) spec(c matrix.Cell) machine.Spec {
	t, _ := targets.Find(c.Target)
	s := machine.Spec{Kernel: c.Kernel, CPUs: c.CPUs, MemoryMB: c.MemoryMB, Patience: m.o.patience}
	if t.Board {
		s.Board = t.Name
	} else {
		s.Arch = t.Name
	}
	return s
}

// job says what a cell takes, and what it starts from.
func (m *matrixRunner) job(ctx context.Context, c matrix.Cell) schedule.Job {
	t, _ := targets.Find(c.Target)
	s := m.spec(c)
	if c.Work.Kind == matrix.Lab {
		if l, err := m.lab(c.Work.Name); err == nil {
			s = runner.Spec(l, s)
		}
	} else {
		s.Commands = c.Work.Kind == matrix.GoTest || !strings.Contains(c.Work.Name, "/")
	}
	cpus := cmp.Or(s.CPUs, t.CPUs)
	j := schedule.Job{Cell: c, CPUs: cpus, MemoryMB: cmp.Or(s.MemoryMB, t.MemoryMB) + runner.Overhead}
	if t.TCGThread == "single" {
		v, err := accel.Best(ctx, t.Binary, t.Arch)
		if !t.KVM || err != nil || v.Accel == "tcg" {
			j.CPUs = 1
		}
	}
	if t.Snapshot {
		j.Machine = fmt.Sprintf("%s %s %t %d %d %q", c.Kernel, t.Name, s.Commands, s.CPUs, s.MemoryMB, s.Append)
	}
	return j
}

func (m *matrixRunner) lab(id string) (*lab.Lab, error) {
	return m.labs.get(id, func() (*lab.Lab, error) { return m.a.find(&labFlags{}, id) })
}

// run runs a cell once. What is made for others too is made under the whole's
// context, not under the cell's.
func (m *matrixRunner) run(whole, ctx context.Context, c matrix.Cell, warm func()) matrix.Result {
	if m.o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.o.timeout, errDeadline)
		defer cancel()
	}
	res := matrix.Result{}
	rel, err := m.folder.NewRun(c)
	if err != nil {
		res.Status, res.Reason = matrix.Error, text.Line(err.Error(), 500)
		return res
	}
	res.Record = rel
	out := filepath.Join(m.folder.Path, rel)
	env := m.env
	env.Warm = warm
	env.Say = func(line string) { m.a.say(c.ID() + ": " + line) }
	if err := m.kernels[kernelKey(c)]; err != nil {
		m.notRun(&res, c, out, err)
		return res
	}
	if c.Work.Kind == matrix.Lab {
		m.runLab(ctx, env, c, out, &res)
	} else {
		m.runProgram(whole, ctx, env, c, out, &res)
	}
	return res
}

func newRun(c matrix.Cell, start time.Time) record.Run {
	return record.Run{Name: c.Work.Kind + "-" + plainName(c.Work.Name), Labctl: versionString(), Command: os.Args, Started: start.UTC()}
}

// notRun is the result of a cell that came to no machine, with a record that says
// so.
func (m *matrixRunner) notRun(res *matrix.Result, c matrix.Cell, out string, err error) {
	start := time.Now()
	run := newRun(c, start)
	run.Outcome = outcome(err, nil)
	dir, rerr := record.Create(out, run.Name, start)
	if rerr == nil {
		rerr = dir.WriteRun(&run)
	}
	cellEnded(res, errors.Join(err, rerr))
}

func (m *matrixRunner) runLab(ctx context.Context, env machine.Env, c matrix.Cell, out string, res *matrix.Result) {
	l, err := m.lab(c.Work.Name)
	if err != nil {
		m.notRun(res, c, out, err)
		return
	}
	r := &oneRun{lab: l}
	err = m.a.runLab(ctx, env, m.spec(c), r, out)
	res.Kernel = r.run.Kernel
	if r.report == nil || err != nil {
		cellEnded(res, err)
		return
	}
	res.Status, res.Reason = judged(r.report)
	res.Checks, res.Claims = checksOf(r.report)
}

// runProgram runs a program, or the tests of a package, and writes its record.
func (m *matrixRunner) runProgram(whole, ctx context.Context, env machine.Env, c matrix.Cell, out string, res *matrix.Result) {
	start := time.Now()
	run := newRun(c, start)
	dir, err := record.Create(out, run.Name, start)
	if err != nil {
		cellEnded(res, err)
		return
	}
	said := &lastBytes{max: maxOutput}
	exit, err := m.exec(whole, ctx, env, c, dir, &run, said)
	run.Seconds = time.Since(start).Seconds()
	run.Outcome = outcome(err, nil)
	if err == nil && statusOf(exit) != nil {
		run.Outcome.Kind = "checks"
	}
	output := text.Clean(said.String())
	err = errors.Join(err, dir.WriteFile(outputFile, []byte(output)), dir.WriteRun(&run))
	res.Kernel, res.Output = run.Kernel, matrix.Tail(output)
	switch {
	case err != nil:
		cellEnded(res, err)
	case statusOf(exit) != nil:
		res.Status, res.Reason = matrix.Fail, text.Line(whyFailed(exit, c.Work.Kind, output), 500)
	default:
		res.Status = matrix.Pass
	}
}

// exec runs the cell's program in a machine of its own.
func (m *matrixRunner) exec(whole, ctx context.Context, env machine.Env, c matrix.Cell, dir record.Dir, run *record.Run, said *lastBytes) (exit wire.ExecResult, err error) {
	t, _ := targets.Find(c.Target)
	prog, err := m.program(whole, c.Work, t.Arch)
	if err != nil {
		return exit, err
	}
	spec := m.spec(c)
	spec.Commands = prog.File == "" || prog.Test || prog.Script
	argv := append([]string{c.Work.Name}, c.Work.Args...)
	if prog.Test {
		// As go test calls it.
		argv = append([]string{c.Work.Name, "-test.paniconexit0", "-test.timeout=10m0s"}, c.Work.Args...)
	}
	job, err := newJob(prog.Program, argv, execOptions{cwd: prog.dir})
	if err != nil {
		return exit, err
	}
	mach, err := machine.Prepare(ctx, env, spec)
	if err != nil {
		return exit, err
	}
	v, err := mach.Boot(ctx, env, dir, nil)
	mach.Describe(run, v)
	if err != nil {
		return exit, err
	}
	defer func() {
		for _, rep := range v.Reports() {
			run.Reports = append(run.Reports, record.NewCrash(rep))
		}
		err = errors.Join(err, v.Close())
	}()
	if err := job.bundle.Send(v.Context(), v.Agent()); err != nil {
		return exit, v.Why(err)
	}
	exit, err = v.Agent().Exec(v.Context(), job.params, agent.IO{Stdout: said, Stderr: said})
	if err = job.refused(exit, err); err != nil {
		return exit, v.Why(err)
	}
	if oom := killedByOOM(v, exit); oom != nil {
		fmt.Fprintf(said, "\n%v\n", oom)
	}
	return exit, v.Why(program.Fetch(v.Context(), v.Agent(), job.outputs))
}

// program finds or builds a program, once for an architecture.
func (m *matrixRunner) program(ctx context.Context, w matrix.Work, arch string) (*builtProgram, error) {
	return m.built.get(built{w.Kind, w.Name, arch}, func() (*builtProgram, error) {
		b := &builtProgram{}
		var err error
		if w.Kind == matrix.GoTest {
			b.Program, b.dir, err = program.BuildTest(ctx, w.Name, arch)
		} else {
			b.Program, err = program.Find(ctx, w.Name, arch)
		}
		if err != nil {
			return nil, err
		}
		return b, nil
	})
}

// cellEnded gives a cell whose run came to an error its status.
func cellEnded(res *matrix.Result, err error) {
	res.Reason = text.Line(err.Error(), 500)
	switch code := exitCode(err); {
	case code == exitDeadline, errors.Is(err, probe.ErrDeadline):
		res.Status = matrix.Deadline
	case code == exitCrash:
		res.Status = matrix.Crash
	default:
		res.Status = matrix.Error
	}
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

// tell is for every start and end of a cell.
func (m *matrixRunner) tell(e schedule.Event) {
	m.mu.Lock()
	m.running = e.Running
	line := ""
	if r := e.Ended; r != nil {
		m.done++
		if r.Status.Failed() {
			m.failed++
		}
		line = fmt.Sprintf("%d/%d %s %s %.1f s", m.done, m.total, text.Line(r.Cell.ID(), 120), r.Status, r.Seconds)
		if r.Flaky {
			line += fmt.Sprintf(" (flaky: try %d)", r.Tries)
		}
		if r.Reason != "" {
			line += ": " + text.Line(r.Reason, 160)
		}
	}
	m.mu.Unlock()
	if line != "" {
		m.a.say(line)
	}
	m.draw()
}

// draw shows where the run is on a terminal.
func (m *matrixRunner) draw() {
	m.mu.Lock()
	line := fmt.Sprintf("%d/%d", m.done, m.total)
	if m.failed > 0 {
		line += fmt.Sprintf(", %d failed", m.failed)
	}
	if n := m.done - m.before; n > 0 && m.done < m.total {
		left := time.Since(m.start) / time.Duration(n) * time.Duration(m.total-m.done)
		line += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	var ids []string
	for _, c := range m.running {
		ids = append(ids, text.Line(c.ID(), 60))
	}
	line += ": " + strings.Join(ids, ", ")
	m.mu.Unlock()
	m.a.progress.status(line)
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

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	mu  sync.Mutex
	max int
	buf bytes.Buffer
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if over := l.buf.Len() - l.max; over > 0 {
		l.buf.Next(over)
	}
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
