package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/guest/wire"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/report"
	"labctl/host/session"
	"labctl/host/stack"
	"labctl/host/trace/plan"
	"labctl/host/trace/preset"
)

type traceOptions struct {
	program  programFlags
	presets  []string
	events   eventFlags
	request  plan.Request
	bufferKB size // of kilobytes
	max      size
	style    string
	raw      bool
	log      bool
	live     bool
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
traced, the tree of tasks with their creation and exit, and each distinct stack once
with a count.

The program has labctl's standard files. The trace follows on standard output
when the program has ended, from a line "== trace of ..." on; --quiet-prog drops
the program's output, and with --json it goes to standard error.

The default is the preset task-creation. Options add to a preset. A function can be
given by any name that it has had: --func _do_fork traces kernel_clone where it is
called that. What this kernel does not have is listed with the reason.

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
  labctl trace --kernel 7.2 --fprobe kernel_clone --fprobe 'do_filp_open $retval dfd' --events -- ls /nosuch
  labctl trace --graph ksys_read -- cat /proc/version
  labctl trace --wakeup --pid-only -- ./prog
  labctl trace --hist 'sched:sched_waking key=comm,common_stacktrace' -- ./prog
  labctl trace --kernel 7.2 --graph kernel_clone --args --returns --events -- labprobe fork
  labctl trace --preset book/4.4.1 -- ls
  labctl trace --in lab -- ./prog
  labctl trace --live --in lab --event sched:sched_process_exec -- sleep 100
  labctl trace --live --json --event signal -- ./prog | jq .event
  labctl trace --script ./clone_debug.sh -- ./prog
  labctl trace convert someones-trace.dat --to firefox
  labctl trace --list-presets
  labctl trace --list-presets --check --kernel 5.10 --arch arm64`,
	}
	a.programCommand(c, func(c *cobra.Command, args []string) error {
		if err := o.program.in.find(c); err != nil {
			return err
		}
		defer o.program.in.close()
		return a.trace(c.Context(), o, args)
	})
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.list || o.check {
			return a.listPresets(c.Context(), o, args)
		}
		return run(c, args)
	}
	c.AddCommand(a.traceConvertCmd(), a.traceStatsCmd())
	o.program.flags(c)
	f := c.Flags()
	f.Lookup("out").Usage = "directory of the run record (default: labctl-out/TIME-trace-PROG)"
	f.StringSliceVar(&o.presets, "preset", nil, "settings by a name, see --list-presets")
	f.StringSliceVar(&o.request.Functions, "func", nil, "trace calls of these functions; * for several")
	f.StringSliceVar(&o.request.Graph, "graph", nil, "trace these functions with all that they call, and how long it takes; --func then says what is shown")
	f.Var(&o.events, "event", "SYSTEM:EVENT, or a SYSTEM with all its events; may be given again")
	f.Var((*filterFlag)(&o.events), "filter", "record the --event before it only when this holds: 'prev_pid == 1'")
	f.BoolVar(&o.request.Wakeup, "wakeup", false, "how long tasks wait from their wake-up to their run: a table, and the longest (kernels with SYNTH_EVENTS measure it themselves)")
	f.StringArrayVar(&o.request.Hists, "hist", nil, "'SYSTEM:EVENT key=FIELD [val=...] [sort=...] [size=N] [if FILTER]': a table of counts that the kernel makes of an event (kernels with HIST_TRIGGERS); may be given again")
	f.StringArrayVar(&o.request.Probes, "kprobe", nil, "[NAME=]SYMBOL [ARG...]: an event at a kernel function, with arguments by their C names or as in kprobe_events")
	f.StringArrayVar(&o.request.Fprobes, "fprobe", nil, "[NAME=]SYMBOL [ARG...]: an event where a kernel function returns, with what it returns (kernels with FPROBE_EVENTS)")
	f.BoolVar(&o.request.Args, "args", false, "with --func or --graph: what the functions are called with, as registers have it (kernels with FUNCTION_TRACE_ARGS)")
	f.BoolVar(&o.request.Returns, "returns", false, "with --graph: what the functions return (kernels with FUNCTION_GRAPH_RETVAL)")
	f.BoolVar(&o.request.PIDOnly, "pid-only", false, "record the program and its children alone")
	f.BoolVar(&o.request.Stacks, "stacks", false, "a kernel stack with every event and function")
	f.Var(&o.bufferKB, "buffer", "ring buffer of each CPU: 4M (default: the guest's choice)")
	f.BoolVar(&o.request.Overwrite, "overwrite", false, "when the buffer is full lose the oldest events, not the newest")
	f.StringVar(&o.request.Clock, "clock", "", "trace clock: local, global, mono, boot (default: the kernel's)")
	f.Var(&o.max, "max", fmt.Sprintf("stop recording after this much: 1G (default: %d MB, less on a slow line)", wire.MaxPages>>20))
	f.BoolVar(&o.request.Hold, "hold", false, "ship nothing before the end: least disturbance, bounded by --buffer")
	f.BoolVar(&o.sleepers, "sleepers", false, "look at the stacks of sleeping tasks, ten times a second")
	f.StringVar(&o.script, "script", "", "a shell script that arms the trace by writing to tracefs, in place of the options above")
	f.StringVar(&o.style, "style", report.TRACE32, "how stacks are printed: "+strings.Join(stackStyles(), ", "))
	f.BoolVar(&o.raw, "raw", false, "show the frames of the tracing machinery that were trimmed, too")
	f.BoolVar(&o.log, "events", false, "print every event, before the tree")
	f.BoolVar(&o.live, "live", false, "print every event as it comes, and the tree at the end; the program's output goes to standard error")
	f.BoolVar(&o.asJSON, "json", false, "print the run record's JSON; with --live one object for each event")
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

// ask makes the request of flags and presets.
func (o *traceOptions) ask() (plan.Request, error) {
	r := o.request
	for _, e := range o.events {
		r.Events = append(r.Events, e)
	}
	r.BufferKB, r.Max = int((o.bufferKB+1023)>>10), int64(o.max)
	for _, name := range o.presets {
		p, ok := preset.All().Find(name)
		if !ok {
			return r, nearest.Unknown("--preset", name, preset.All().Names())
		}
		r.Add(p)
	}
	if r.Empty() && o.script == "" {
		p, _ := preset.All().Find(preset.Default)
		r.Add(p)
	}
	return r, nil
}

// onlyScript says that nothing beside --script asks for something to be traced, or
// for another buffer than the script's.
func (o *traceOptions) onlyScript() bool {
	r := o.request
	return r.Empty() && len(o.presets)+len(o.events) == 0 && !r.Stacks && !r.Args && !r.Returns && !r.PIDOnly && !r.Overwrite && o.bufferKB == 0 && r.Clock == ""
}

// refuse says what cannot be before anything is run.
func (o *traceOptions) refuse(argv []string) error {
	switch {
	case len(argv) == 0 && o.script == "":
		return outcome.Inputf("which program? write labctl trace [flags] -- PROG [ARGS]")
	case !slices.Contains(stackStyles(), o.style):
		return nearest.Unknown("--style", o.style, stackStyles())
	case o.live && o.log:
		return outcome.Inputf("--live prints every event: leave out --events")
	case o.live && o.request.Hold:
		return outcome.Inputf("--live and --hold: one of them; what is held cannot be shown")
	case o.live && o.script != "":
		return outcome.Inputf("--live and --script: one of them; what a script has armed is brought out at the end")
	case o.log && o.asJSON:
		return outcome.Inputf("--events and --json: one of them; trace.dat in the record has every event")
	case o.script != "" && !o.onlyScript():
		return outcome.Inputf("--script: the script says what is traced: leave out --preset, --func, --event and the like")
	}
	return nil
}

// trace runs one program under a trace.
func (a *app) trace(ctx context.Context, o traceOptions, argv []string) error {
	request, err := o.ask()
	if err != nil {
		return err
	}
	if err := o.refuse(argv); err != nil {
		return err
	}
	if err := cmp.Or(checkOutput("--perfetto", o.perfetto), checkOutput("--folded", o.folded)); err != nil {
		return err
	}
	a.quietUnlessTerminal()
	env, err := a.env()
	if err != nil {
		return err
	}
	ctx, relay := session.NewRelay(ctx)
	defer relay.Stop()
	page := &tracePage{w: a.stdout, argv: argv}
	if len(argv) == 0 {
		page.argv = []string{o.script}
	}
	to := session.TraceOptions{
		ExecOptions: o.program.options(session.KeepRecord, relay),
		Request:     request, Script: o.script, Sleepers: o.sleepers,
		Perfetto: o.perfetto, Folded: o.folded,
	}
	to.Style, _ = stack.FindStyle(o.style)
	if o.log {
		to.Log = page
	}
	var live liveTrace
	if o.live {
		defer live.begin(a.stdout, &to, o.asJSON)()
	}
	s, err := session.Trace(ctx, env, to, argv, a.traced(&o, page))
	if s != nil && !live.closed.Load() && !(o.live && o.asJSON) {
		if perr := a.printTrace(&o, s, page); err == nil {
			err = perr
		}
	}
	return err
}

// traced is where a traced program's output goes.
func (a *app) traced(o *traceOptions, page *tracePage) session.Stdio {
	std := a.stdio()
	switch {
	case o.quiet:
		std.Out, std.Err = io.Discard, io.Discard
	case o.asJSON, o.live:
		std.Out = std.Err
	case !isTerminal(a.stdout):
		std.Out = programOutput{page}
	}
	return std
}

// tracePage is what is printed of a trace: written to, it has the events. A head
// separates it from what the program has written.
type tracePage struct {
	w      io.Writer
	argv   []string
	open   bool // the program has not ended its last line
	headed bool
}

// programOutput passes a program's output on and remembers whether it ended its
// last line.
type programOutput struct{ *tracePage }

func (p programOutput) Write(b []byte) (int, error) {
	if len(b) > 0 {
		p.open = b[len(b)-1] != '\n'
	}
	return p.w.Write(b)
}

func (p *tracePage) Write(b []byte) (int, error) {
	if err := p.head(); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

func (p *tracePage) head() error {
	if p.headed {
		return nil
	}
	p.headed = true
	if p.open {
		fmt.Fprintln(p.w)
	}
	_, err := fmt.Fprintf(p.w, "== trace of %s\n", report.Clean(strings.Join(p.argv, " ")))
	return err
}

func (a *app) printTrace(o *traceOptions, s *session.Session, page *tracePage) error {
	switch {
	case !s.Booted():
		return nil
	case !o.asJSON && s.Run.Trace != nil && s.Run.Trace.Armed == nil && s.Run.Trace.Script == nil:
		return nil // nothing was traced; the error says why
	case o.asJSON:
		return a.printJSON(&s.Run)
	}
	if s.Run.Trace != nil {
		page.argv = s.Run.Trace.Argv
	}
	if err := page.head(); err != nil {
		return err
	}
	if err := report.Trace(a.stdout, &s.Run, report.Options{Style: o.style, Raw: o.raw}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "run record: %s\n", s.Dir.Path)
	return err
}
