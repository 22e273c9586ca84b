package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/scratch"
	"labctl/host/stack"
	"labctl/host/targets"
	"labctl/host/trace"
	"labctl/host/trace/capture"
	"labctl/host/trace/collect"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/folded"
	"labctl/host/trace/export/perfetto"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
	"labctl/host/trace/preset"
	"labctl/host/vm"
)

type traceOptions struct {
	exec     execOptions
	presets  []string
	events   eventFlags
	request  plan.Request
	bufferKB size // of kilobytes
	max      size
	style    string
	raw      bool
	log      bool
	asJSON   bool
	quiet    bool // the program's own output
	sleepers bool
	script   string
	perfetto string
	folded   string
	list     bool
	check    bool
}

func (a *app) traceCmd() *cobra.Command {
	var o traceOptions
	c := &cobra.Command{
		Use:   "trace [flags] [-- PROG [ARGS]]",
		Short: "Run a program in a guest under a trace: its tasks, and the kernel's stacks",
		Long: `Boot a kernel and run one program in it, as exec does, with the kernel's tracing
armed just before it starts and disarmed after it ends. Then print what was
traced, the tree of tasks as they were born and died, and each distinct stack
once with a count.

The program has labctl's standard files. The trace follows on standard output
when the program has ended, from a line "== trace of ..." on; --quiet-prog leaves
the program's output away, and with --json it goes to standard error.

With nothing asked for it is the preset task-creation. Options add to a preset.
Functions go by any name they have had: --func _do_fork traces kernel_clone where
it is called so. What this kernel does not have is listed with the reason.

With --script a shell script arms the trace instead: it runs in the guest before the
program, or alone when there is none, and may write to tracefs by the names that
older kernels had.

Everything is kept in a run record: trace.dat (for trace-cmd and KernelShark),
trace.pftrace (for ui.perfetto.dev), run.json, stacks.txt, console.log, qemu.txt.

The exit status is the program's, as with exec.`,
		Example: `  labctl trace --arch arm64 --kernel 5.10 -- labprobe fork
  labctl trace --func vfs_read,vfs_write --stacks -- ./prog
  labctl trace --event sched:sched_switch --filter 'prev_prio < 100' --pid-only -- ./prog
  labctl trace --kprobe 'do_sys_openat2 dfd filename:ustring' --events -- cat /proc/version
  labctl trace --graph ksys_read -- cat /proc/version
  labctl trace --preset book/4.4.1 -- ls
  labctl trace --script ./clone_debug.sh -- ./prog
  labctl trace --list-presets
  labctl trace --list-presets --check --kernel 5.10 --arch arm64`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.list || o.check {
				return a.listPresets(c.Context(), o, args)
			}
			if err := a.trace(c.Context(), o, args); err != nil {
				return execError{err}
			}
			return nil
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return execError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	programFlags(c, &o.exec)
	f := c.Flags()
	f.Lookup("out").Usage = "folder of the run record (default: labctl-out/TIME-trace-PROG)"
	f.StringSliceVar(&o.presets, "preset", nil, "settings by a name, see --list-presets")
	f.StringSliceVar(&o.request.Functions, "func", nil, "trace calls of these functions; * for several")
	f.StringSliceVar(&o.request.Graph, "graph", nil, "trace these functions with all that they call, and how long it takes; --func then says what is shown")
	f.Var(&o.events, "event", "SYSTEM:EVENT, or a SYSTEM with all its events; may be given again")
	f.Var((*filterFlag)(&o.events), "filter", "record the --event before it only when this holds: 'prev_pid == 1'")
	f.StringArrayVar(&o.request.Probes, "kprobe", nil, "[NAME=]SYMBOL [ARG...]: an event at a kernel function, with arguments by their C names or as in kprobe_events")
	f.BoolVar(&o.request.PIDOnly, "pid-only", false, "record the program and its children alone")
	f.BoolVar(&o.request.Stacks, "stacks", false, "a kernel stack with every event and function")
	f.Var(&o.bufferKB, "buffer", "ring buffer of each CPU: 4M (default: the guest's choice)")
	f.BoolVar(&o.request.Overwrite, "overwrite", false, "when the buffer is full lose the oldest events, not the newest")
	f.StringVar(&o.request.Clock, "clock", "", "trace clock: local, global, mono, boot (default: the kernel's)")
	f.Var(&o.max, "max", "stop recording after this much: 256M (default: 1 GB, less on a slow line)")
	f.BoolVar(&o.request.Hold, "hold", false, "ship nothing before the end: least disturbance, bounded by --buffer")
	f.BoolVar(&o.sleepers, "sleepers", false, "look at the stacks of sleeping tasks, ten times a second")
	f.StringVar(&o.script, "script", "", "a shell script that arms the trace by writing to tracefs, in place of the options above")
	f.StringVar(&o.style, "style", report.TRACE32, "how stacks are printed: "+strings.Join(stackStyles(), ", "))
	f.BoolVar(&o.raw, "raw", false, "show the frames of the tracing machinery that were trimmed, too")
	f.BoolVar(&o.log, "events", false, "print every event, before the tree")
	f.BoolVar(&o.asJSON, "json", false, "print the run record's JSON")
	f.BoolVar(&o.quiet, "quiet-prog", false, "drop the program's output")
	f.StringVar(&o.perfetto, "perfetto", "", "write the trace for ui.perfetto.dev to this file, too")
	f.StringVar(&o.folded, "folded", "", "write folded stacks, for flame graphs, to this file")
	f.BoolVar(&o.list, "list-presets", false, "list the presets")
	f.BoolVar(&o.check, "check", false, "with --list-presets: run each on a kernel and list what could be armed (--preset narrows it)")
	return c
}

func stackStyles() []string {
	return slices.DeleteFunc(slices.Clone(report.Styles), func(s string) bool { return s == report.JSON })
}

// plan makes the request of flags and presets.
func (o *traceOptions) plan() (plan.Request, error) {
	r := o.request
	for _, e := range o.events {
		r.Events = append(r.Events, e)
	}
	r.BufferKB, r.Max = int((o.bufferKB+1023)>>10), int64(o.max)
	for _, name := range o.presets {
		p, ok := preset.All().Find(name)
		if !ok {
			return r, unknown("--preset", name, preset.All().Names())
		}
		r.Add(p)
	}
	if r.Empty() && o.script == "" {
		p, _ := preset.All().Find(preset.Default)
		r.Add(p)
	}
	return r, nil
}

// trace runs one program under a recording.
func (a *app) trace(ctx context.Context, o traceOptions, argv []string) (err error) {
	if len(argv) == 0 && o.script == "" {
		return errors.New("which program? write labctl trace [flags] -- PROG [ARGS]")
	}
	if !slices.Contains(stackStyles(), o.style) {
		return unknown("--style", o.style, stackStyles())
	}
	if o.log && o.asJSON {
		return errors.New("--events and --json: one of them; trace.dat in the record has every event")
	}
	request, err := o.plan()
	if err != nil {
		return err
	}
	if o.script != "" && !o.onlyScript() {
		return errors.New("--script: the script says what is traced: leave out --preset, --func, --event and the like")
	}
	// A request that no kernel could take is told before there is one.
	early := request
	early.Probes = nil // their arguments may be names that the kernel knows
	if _, err := plan.Make(early, plan.Kernel{Arch: "amd64"}); err != nil {
		return err
	}
	if !a.progress.terminal {
		a.progress.quiet = true
	}
	ctx, signals := newRelay(context.WithoutCancel(ctx))
	defer signals.stop()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	limit := &traceLimit{end: end}
	if o.exec.timeout > 0 {
		defer time.AfterFunc(o.exec.timeout, limit.passed).Stop()
	}
	var script *program.Program
	if o.script != "" {
		if script, err = program.FindScript(o.script); err != nil {
			return fmt.Errorf("--script: %w", err)
		}
	}
	if o.exec.spec.Arch == "" && o.exec.spec.Board == "" && len(argv) > 0 {
		if t, ok := targets.Find(program.Arch(argv[0])); ok {
			o.exec.spec.Arch = t.Name
		}
	}
	if err := a.settle(&o.exec.spec); err != nil {
		return err
	}
	tgt, err := machine.FindTarget(o.exec.spec.Arch, o.exec.spec.Board)
	if err != nil {
		return err
	}
	prog := script
	if len(argv) == 0 {
		argv = []string{o.script}
	} else if prog, err = program.Find(ctx, argv[0], tgt.Arch); err != nil {
		return err
	}
	defer prog.Close()
	job, err := newJob(prog, argv, o.exec)
	if err != nil {
		return err
	}
	// labprobe is in every guest, and u-root is not wanted for it.
	o.exec.spec.Commands = prog.File == "" && argv[0] != "labprobe" || prog.Script || script != nil
	r := &traceRun{a: a, o: o, request: request, signals: signals, limit: limit, job: job}
	r.run.Name, r.run.Trace = "trace-"+plainName(argv[0]), &record.Trace{Argv: job.params.Argv, Preset: request.Preset}
	if script != nil {
		if err := r.setScript(script, prog == script); err != nil {
			return err
		}
	}
	err = r.do(ctx)
	if perr := r.print(); err == nil {
		err = perr
	}
	return err
}

// traceLimit is --timeout: it ends the program, when that runs already, so that
// what was recorded until then is had; and else, or when that takes too long, the
// guest.
type traceLimit struct {
	end context.CancelCauseFunc // of the guest

	mu      sync.Mutex
	program context.CancelCauseFunc
	grace   time.Duration
}

// traceGrace is for a recording to be stopped and shipped on a machine that boots
// in two seconds; vm.Patient scales it.
const traceGrace = 20 * time.Second

func (l *traceLimit) passed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.program == nil {
		l.end(errDeadline)
		return
	}
	l.program(errDeadline)
	time.AfterFunc(l.grace, func() { l.end(errDeadline) })
}

// of is the context of the program that runs from now on in a guest whose own is
// ctx.
func (l *traceLimit) of(ctx context.Context, grace time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.program, l.grace = cancel, grace
	return ctx, cancel
}

var notPlain = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// plainName is a program's name as part of a folder's.
func plainName(prog string) string {
	name := strings.Trim(notPlain.ReplaceAllString(path.Base(prog), "-"), "-.")
	if name == "" {
		return "program"
	}
	return name[:min(len(name), 40)]
}

// traceRun is one program under a recording.
type traceRun struct {
	a       *app
	o       traceOptions
	request plan.Request
	signals *relay
	limit   *traceLimit
	job     *job
	script  *job // runs before job, and is job itself where there is no program

	run record.Run
	dir record.Dir
	out *lineEnd // the program's standard output
}

// do boots, runs and records. The record is written however it ends.
func (r *traceRun) do(ctx context.Context) (err error) {
	env, err := r.a.env()
	if err != nil {
		return err
	}
	start := time.Now()
	r.o.exec.spec.Features = features(r.request)
	m, err := machine.Prepare(ctx, env, r.o.exec.spec)
	if err != nil {
		return err
	}
	if r.dir, err = record.Create(r.o.exec.out, r.run.Name, start); err != nil {
		return err
	}
	r.run.Labctl, r.run.Started, r.run.Command = versionString(), start.UTC(), os.Args
	var v *vm.VM
	defer func() {
		if v != nil {
			for _, rep := range v.Reports() {
				r.run.Reports = append(r.run.Reports, record.NewCrash(rep))
			}
		}
		r.run.Seconds = time.Since(start).Seconds()
		r.run.Outcome = outcome(programsOwn(err), nil)
		err = errors.Join(err, r.write())
	}()
	r.a.say(fmt.Sprintf("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel))
	v, err = m.Boot(ctx, env, r.dir, nil)
	m.Describe(&r.run, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()

	ctx = v.Context()
	t := r.run.Trace
	if err := r.job.bundle.Send(ctx, v.Agent()); err != nil {
		return v.Why(err)
	}
	var plan *plan.Plan
	var failed error // of the script; what it has armed is brought out all the same
	if r.script != nil {
		plan, failed, err = r.runScript(v, m.Kernel)
	} else {
		plan, err = r.plan(ctx, v, m.Kernel)
	}
	if err != nil {
		return v.Why(err)
	}
	var res *collect.Result
	res, err = trace.Run(ctx, v, m.Kernel, plan, t, r.o.sleepers, func() (wire.ExecResult, error) {
		switch {
		case failed != nil:
			return wire.ExecResult{}, failed
		case r.job == r.script:
			return *t.Script.Exit, nil
		}
		ctx, cancel := r.limit.of(v.Context(), v.Patient(traceGrace))
		defer cancel(nil)
		stdout, stderr := r.streams()
		return r.a.runSent(ctx, v, r.job, r.signals, stdout, stderr)
	})
	if res != nil {
		defer res.Close()
		err = errors.Join(err, r.read(res.Capture))
	}
	if err != nil {
		return v.Why(err)
	}
	r.a.explainKill(v, *t.Exit)
	status := statusOf(*t.Exit)
	if err := program.Fetch(ctx, v.Agent(), r.job.outputs); err != nil {
		if status != nil {
			r.a.report(v.Why(err))
			return status
		}
		return v.Why(err)
	}
	return status
}

func (r *traceRun) plan(ctx context.Context, v *vm.VM, k *kernel.Kernel) (*plan.Plan, error) {
	look, err := trace.Look(ctx, v, k, r.request)
	if err != nil {
		return nil, err
	}
	p, err := plan.Make(r.request, look)
	if err == nil && p.Params.PIDOnly {
		r.job.params.Instance = plan.Instance
	}
	return p, err
}

// programsOwn takes the end of the program out of an error: it is no fault of
// the run.
func programsOwn(err error) error {
	var status statusError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

// features are what a kernel has to be configured with.
func features(r plan.Request) []string {
	if r.NeedsFunctions() && r.Tracer != "nop" {
		return []string{"trace", "function-trace"}
	}
	return []string{"trace"}
}

// streams is where the program's output goes.
func (r *traceRun) streams() (stdout, stderr io.Writer) {
	stdout, stderr = r.a.stdout, r.a.stderr
	switch {
	case r.o.quiet:
		return io.Discard, io.Discard
	case r.o.asJSON:
		return stderr, stderr
	case !isTerminal(stdout):
		// runSent looks for a terminal by itself.
		r.out = &lineEnd{w: stdout}
		return r.out, stderr
	}
	return stdout, stderr
}

// lineEnd remembers whether what went through ended its last line.
type lineEnd struct {
	w    io.Writer
	open bool
}

func (l *lineEnd) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.open = p[len(p)-1] != '\n'
	}
	return l.w.Write(p)
}

// read decodes what was recorded, and writes the files of it.
func (r *traceRun) read(c *capture.Capture) error {
	var log io.Writer
	if r.o.log {
		log = r.a.stdout
		r.head()
	}
	style, _ := stack.FindStyle(r.o.style)
	err := trace.Read(r.run.Trace, c, log, style)
	if werr := tracedat.WriteFile(r.dir.File(record.DataFile), c); werr != nil {
		return errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	d, err := decode.Open(c)
	if err != nil {
		return err
	}
	files := []struct {
		name  string
		write func(io.Writer) error
	}{{r.dir.File(record.ViewFile), func(w io.Writer) error { return perfetto.Write(w, d) }}}
	if r.o.perfetto != "" {
		files = append(files, files[0])
		files[1].name = r.o.perfetto
	}
	if r.o.folded != "" {
		files = append(files, files[0])
		last := &files[len(files)-1]
		last.name, last.write = r.o.folded, func(w io.Writer) error { return folded.Write(w, d) }
	}
	for _, f := range files {
		// Damage is in the record already.
		var damage *decode.Damage
		if err := writeView(f.name, f.write); err != nil && !errors.As(err, &damage) {
			return err
		}
	}
	return nil
}

// writeView writes a file that has its name only when it is whole.
func writeView(name string, write func(io.Writer) error) error {
	f, err := scratch.Create(path.Dir(name))
	if err != nil {
		return err
	}
	var damage *decode.Damage
	err = write(f)
	if err != nil && !errors.As(err, &damage) {
		f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return errors.Join(err, f.Keep(path.Base(name), 0o644))
}

// write keeps stacks.txt and run.json.
func (r *traceRun) write() error {
	var b strings.Builder
	if t := r.run.Trace.Timeline; t != nil {
		for i := range t.Paths {
			p := &t.Paths[i]
			fmt.Fprintf(&b, "// #%d %s, %d times\n%s\n", i+1, report.Clean(p.Of), p.Count, p.Stack.TRACE32())
		}
	}
	if err := r.dir.WriteFile(record.StacksFile, []byte(b.String())); err != nil {
		return err
	}
	return r.dir.WriteRun(&r.run)
}

// head separates the trace from what the program has written.
func (r *traceRun) head() {
	if r.out != nil && r.out.open {
		fmt.Fprintln(r.a.stdout)
	}
	fmt.Fprintf(r.a.stdout, "== trace of %s\n", report.Clean(strings.Join(r.run.Trace.Argv, " ")))
}

func (r *traceRun) print() error {
	switch {
	case r.run.Kernel.Release == "":
		return nil // nothing was booted
	case r.o.asJSON:
		return r.a.printJSON(&r.run)
	case !r.o.log || r.run.Trace.Timeline == nil:
		r.head()
	}
	if err := report.Trace(r.a.stdout, &r.run, report.Options{Style: r.o.style, Raw: r.o.raw}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.a.stdout, "run record: %s\n", r.dir.Path)
	return err
}
