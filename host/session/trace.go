package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace"
	"labctl/host/trace/capture"
	"labctl/host/trace/collect"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/folded"
	"labctl/host/trace/export/perfetto"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
)

// TraceOptions are a program to run, and what to trace while it runs.
type TraceOptions struct {
	ExecOptions
	Request plan.Request
	// Script is the name of a shell script on the host that arms the trace in
	// place of Request, which has the bounds alone then.
	Script   string
	Sleepers bool // look at the stacks of sleeping tasks, too

	Live Live // is shown every event as it comes; nil for none

	Log      io.Writer // gets every event, in the order of time; nil for none
	Style    stack.Style
	Perfetto string // files to write the trace to, beside the record's; empty for none
	Folded   string
}

// Live makes what shows a trace as it comes. It tells failed when nobody looks any more.
type Live func(failed func(error)) collect.Follower

// Trace runs one program under a trace. Run.Trace of the Session has what was
// traced. The error of a program that ran to its end with another status than 0 is
// an *outcome.StatusError. Without a program, argv being empty, the script is what
// is run.
func Trace(ctx context.Context, env Env, o TraceOptions, argv []string, std Stdio) (*Session, error) {
	// A request that no kernel could take is refused before there is one.
	if err := plan.Check(o.Request); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if o.In != nil && o.Script != "" {
		return nil, outcome.Inputf("--script: what a script arms stays armed; run it in a machine of its own, without --in")
	}
	r := &traceRun{o: o, std: std, limit: &traceLimit{end: end}}
	if o.Timeout > 0 {
		defer time.AfterFunc(o.Timeout, r.limit.passed).Stop()
		r.o.Timeout = 0
	}
	done, err := r.find(ctx, env, argv)
	if err != nil {
		return nil, stopped(ctx, err)
	}
	defer done()
	ro := &r.o.Options
	ro.Spec.Features = append(ro.Spec.Features, features(o.Request)...)
	ro.Write, ro.Files = r.write, &r.job.Bundle
	return Run(ctx, env, *ro, func(ctx context.Context, s *Session) error {
		r.s = s
		s.Run.Trace = r.trace
		return r.work(ctx)
	})
}

// traceRun is one program under a trace.
type traceRun struct {
	o      TraceOptions
	std    Stdio
	limit  *traceLimit
	job    *program.Job
	script *program.Job // runs before job, and is job itself where there is no program
	trace  *record.Trace
	s      *Session
}

// find finds the program and the script.
func (r *traceRun) find(ctx context.Context, env Env, argv []string) (done func(), err error) {
	var script *program.Program
	if r.o.Script != "" {
		if script, err = program.FindScript(r.o.Script); err != nil {
			return nil, outcome.Default(outcome.BadInput, fmt.Errorf("--script: %w", err))
		}
	}
	alone := len(argv) == 0
	var prog *program.Program // to be found by its name
	if alone {
		argv, prog = []string{r.o.Script}, script
	}
	r.o.Name = "trace-" + PlainName(argv[0])
	job, closeJob, err := findJob(ctx, env, &r.o.ExecOptions, argv, prog)
	if err != nil {
		return nil, err
	}
	r.job = job
	// labprobe is in every guest, and u-root is not wanted for it.
	r.o.Spec.Commands = r.o.Spec.Commands && argv[0] != "labprobe" || script != nil
	r.trace = &record.Trace{Argv: job.Params.Argv, Preset: r.o.Request.Preset}
	if script != nil {
		err = r.addScript(script, alone)
	}
	return func() { closeJob() }, err
}

// addScript has a script run before the program, or alone.
func (r *traceRun) addScript(script *program.Program, alone bool) error {
	r.trace.Script = &record.Script{Name: filepath.Base(r.o.Script)}
	if alone {
		r.script = r.job
		r.job.Params.Argv, r.trace.Argv = trace.ScriptCommand(script.Argv0), []string{r.trace.Script.Name}
		return nil
	}
	// The program may be called the same.
	script.Argv0 = path.Join(path.Dir(script.Argv0), "script", path.Base(script.Argv0))
	params := wire.ExecParams{Argv: trace.ScriptCommand(script.Argv0), Dir: r.job.Params.Dir, Env: r.job.Params.Env}
	r.script = &program.Job{Name: r.o.Script, NoInput: true, Params: params}
	return outcome.Default(outcome.BadInput, r.job.Bundle.AddProgram(script))
}

// features are what a kernel has to be configured with.
func features(r plan.Request) []string {
	if r.NeedsFunctions() && r.Tracer != "nop" {
		return []string{"trace", "function-trace"}
	}
	return []string{"trace"}
}

// work sends the program, arms the trace, runs and reads.
func (r *traceRun) work(ctx context.Context) error {
	s, t := r.s, r.trace
	var p *plan.Plan
	var err, failed error // failed: of the script; what it has armed is brought out all the same
	if r.script != nil {
		p, failed, err = r.runScript(ctx)
	} else {
		p, err = r.plan(ctx)
	}
	if err != nil {
		return err
	}
	var live collect.Follower
	if r.o.Live != nil {
		live = r.o.Live(r.limit.leave)
	}
	res, err := trace.Run(ctx, s.VM, s.Machine.Kernel, p, t, r.o.Sleepers, live, func() (wire.ExecResult, error) {
		switch {
		case failed != nil:
			return wire.ExecResult{}, failed
		case r.job == r.script:
			return *t.Script.Exit, nil
		}
		return r.run(ctx, r.job)
	})
	if res != nil {
		defer res.Close()
		err = errors.Join(err, r.read(res))
	}
	if err != nil {
		return err
	}
	return s.finishJob(ctx, r.job, *t.Exit)
}

func (r *traceRun) plan(ctx context.Context) (*plan.Plan, error) {
	look, err := trace.Look(ctx, r.s.VM, r.s.Machine.Kernel, r.o.Request)
	if err != nil {
		return nil, err
	}
	p, err := plan.Make(r.o.Request, look)
	if err == nil {
		err = p.Nothing(r.o.Request, look.Names)
	}
	if err == nil && r.o.In != nil {
		// Others may trace in the same machine.
		p.Params.Instance += "_" + path.Base(r.o.In.Workspace())
	}
	if err == nil && p.Params.PIDOnly {
		r.job.Params.Instance = p.Params.Instance
	}
	return p, outcome.Default(outcome.BadInput, err)
}

// run runs the program, or the script, under the limit of time.
func (r *traceRun) run(ctx context.Context, job *program.Job) (wire.ExecResult, error) {
	ctx, cancel := r.limit.of(ctx, r.s.VM.Patient(traceGrace))
	defer cancel(nil)
	return r.s.runJob(ctx, job, r.o.Relay, r.std)
}

// runScript runs the script and plans the capture of what it has armed. failed
// is why it did not come to its end.
func (r *traceRun) runScript(ctx context.Context) (p *plan.Plan, failed, err error) {
	t := r.trace
	failed = trace.Script(ctx, r.s.VM, t.Script, func() (wire.ExecResult, error) { return r.run(ctx, r.script) })
	if failed != nil && ctx.Err() != nil {
		return nil, nil, failed
	}
	look, err := trace.Look(ctx, r.s.VM, r.s.Machine.Kernel, plan.Request{})
	if err != nil {
		return nil, nil, err
	}
	if p, err = plan.Scripted(t.Script.Names, look); err != nil {
		return nil, nil, err
	}
	p.Params.Max = r.o.Request.Max
	p.Params.Hold = r.o.Request.Hold
	if r.script == r.job {
		// It has traced what it was to trace: all is in the buffers.
		p.Params.Hold, p.Params.Probes, p.Params.Events = true, nil, nil
	}
	return p, failed, nil
}

// read decodes what was traced, and writes the files of it.
func (r *traceRun) read(res *collect.Result) error {
	err := trace.Read(r.trace, res.Capture, r.o.Log, r.o.Style)
	if r.s.Recorded() {
		if werr := tracedat.WriteFile(r.s.Dir.File(record.DataFile), res.Capture); werr != nil {
			return errors.Join(err, werr)
		}
	}
	if err != nil {
		return err
	}
	return r.export(res.Capture)
}

// export writes the trace in the forms of other tools.
func (r *traceRun) export(c *capture.Capture) error {
	d, err := decode.Open(c)
	if err != nil {
		return err
	}
	forPerfetto := func(w io.Writer) error { return perfetto.Write(w, d) }
	var files []view
	if r.s.Recorded() {
		files = append(files, view{r.s.Dir.File(record.ViewFile), forPerfetto})
	}
	if r.o.Perfetto != "" {
		files = append(files, view{r.o.Perfetto, forPerfetto})
	}
	if r.o.Folded != "" {
		files = append(files, view{r.o.Folded, func(w io.Writer) error { return folded.Write(w, d) }})
	}
	for _, f := range files {
		if err := f.save(); err != nil {
			return err
		}
	}
	return nil
}

// view is a file made of a trace.
type view struct {
	name  string
	write func(io.Writer) error
}

// save writes the file, which has its name only when it is whole. Damage of the
// trace is in the record already.
func (v view) save() error {
	f, err := scratch.Create(path.Dir(v.name))
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	var damage *decode.Damage
	if err := v.write(f); err != nil && !errors.As(err, &damage) {
		f.Close()
		return fmt.Errorf("write %s: %w", v.name, err)
	}
	return f.Keep(path.Base(v.name), 0o644)
}

// write keeps the stacks.
func (r *traceRun) write(s *Session, err error) error {
	if !s.Recorded() {
		return err
	}
	var b strings.Builder
	if t := r.trace.Timeline; t != nil {
		for i := range t.Paths {
			p := &t.Paths[i]
			fmt.Fprintf(&b, "// #%d %s, %d times\n%s\n", i+1, text.Clean(p.Of), p.Count, p.Stack.TRACE32())
		}
	}
	return s.add(err, s.Dir.WriteFile(record.StacksFile, []byte(b.String())))
}

// traceLimit is a limit of time: it ends the program, when that runs already, so
// that what was traced until then is had; and else, or when that takes too long,
// the guest.
type traceLimit struct {
	end context.CancelCauseFunc // of the guest

	mu      sync.Mutex
	program context.CancelCauseFunc
	grace   time.Duration
	left    error // why nobody wants the program
}

// traceGrace is for a trace to be stopped and shipped on a machine that boots in
// two seconds; vm.Patient scales it.
const traceGrace = 20 * time.Second

func (l *traceLimit) passed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.program == nil {
		l.end(outcome.ErrTimeout)
		return
	}
	l.program(outcome.ErrTimeout)
	time.AfterFunc(l.grace, func() { l.end(outcome.ErrTimeout) })
}

// leave ends the program for another reason.
func (l *traceLimit) leave(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.program == nil {
		l.left = why
		return
	}
	l.program(why)
}

// of is the context of the program that runs from now on in a guest whose own is
// ctx.
func (l *traceLimit) of(ctx context.Context, grace time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.program, l.grace = cancel, grace
	if l.left != nil { // before the program began
		cancel(l.left)
	}
	return ctx, cancel
}
