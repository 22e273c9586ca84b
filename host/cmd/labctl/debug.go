package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labctl/host/bounded"
	"labctl/host/debug"
	"labctl/host/debug/command"
	"labctl/host/machine"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/session"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/vm"
)

// debugOptions are the flags of labctl debug.
type debugOptions struct {
	breaks    []string
	task      string
	pid       int
	count     int
	cond      string
	scripts   []string
	do        []string
	json      bool
	style     string
	timeout   time.Duration
	out       string
	debuginfo string
	spec      machine.Spec
}

func (a *app) debugCmd() *cobra.Command {
	var o debugOptions
	c := &cobra.Command{
		Use:   "debug [NAME | [flags] -- PROG [ARGS]]",
		Short: "Stop a running machine at functions, step it, and look at what stands there",
		Long: `Debug the kernel of a running machine from outside. The guest stands still from the
start and wherever a breakpoint is met; it runs on when the session ends. Names, types and
stacks come from the kernel's image: no debug information is needed.

With PROG a machine is started, and PROG in it when the guest goes on for the first time;
PROG is as for exec. The session ends with it.

Commands are read from the terminal, or from standard input; with -x and --do from files
and from the command line. They have labctl's own words and those of TRACE32, with their
abbreviations: "break kernel_clone task sh" is "Break.Set kernel_clone /TASK sh" and "b.s
kernel_clone /task sh". help lists them.

--break sets a breakpoint, to which --task, --pid, --if and --count belong, and lets the
guest run to it. A function is found by any of the names that it has had: do_fork,
_do_fork and kernel_clone are one.

Ctrl-C stops a guest that runs. A log of the session is kept in labctl-out.`,
		Example: `  labctl debug lab
  labctl debug lab --break kernel_clone --task sh
  labctl debug lab --break do_exit --do 'stack; print current->comm; finish'
  labctl debug lab --do 'watch task_struct.__state of 152; go; stack'
  labctl debug lab -x steps.cmm --json
  labctl debug --arch arm64 --break kernel_clone -- ./prog`,
		ValidArgsFunction: machineNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			names := args
			var argv []string
			if n := c.ArgsLenAtDash(); n >= 0 {
				names, argv = args[:n], args[n:]
			}
			if err := atMostOne("a machine's name, or a program after --")(c, names); err != nil {
				return err
			}
			name := ""
			if len(names) > 0 {
				name = names[0]
			}
			if len(argv) == 0 {
				for _, f := range settled {
					if c.Flags().Changed(f) {
						return outcome.Inputf("--%s is for a machine that is started: give a program after --, or start one with labctl up", f)
					}
				}
			} else if name != "" {
				return outcome.Inputf("debug takes a running machine (%s) or a program after --, not both", text.Line(name, 40))
			}
			return a.debug(c.Context(), o, name, argv)
		},
	}
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.StringArrayVarP(&o.breaks, "break", "b", nil, "stop at this function, symbol+offset or address, and go")
	f.StringVar(&o.task, "task", "", "stop for tasks of this name only")
	f.IntVar(&o.pid, "pid", 0, "stop for this process or task only")
	f.StringVar(&o.cond, "if", "", "stop under this condition only: args->flags & CLONE_VM")
	f.IntVar(&o.count, "count", 0, "stop the N-th time")
	f.StringArrayVarP(&o.scripts, "exec", "x", nil, "do the commands of this file")
	f.StringArrayVar(&o.do, "do", nil, "do these commands, separated by semicolons")
	f.BoolVar(&o.json, "json", false, "print stops and output as JSON, a line each")
	f.StringVar(&o.style, "style", stack.Styles[0].Name, "form of stacks: "+strings.Join(stackStyles(), ", "))
	timeFlag(f, &o.timeout, "timeout", "end the session after this long")
	f.StringVar(&o.out, "out", "", "keep the record in this directory (default: labctl-out/TIME-debug)")
	f.StringVar(&o.debuginfo, "debuginfo", "", "vmlinux with BTF or DWARF of a kernel that was built without BTF")
	return c
}

// line is a command and where it comes from.
type line struct{ text, from string }

// maxScript limits a file of commands, in bytes.
const maxScript = 1 << 20

// lines are the commands that the flags have. more says that others follow, from standard
// input.
func (o *debugOptions) lines() (lines []line, more bool, err error) {
	options := ""
	if o.task != "" {
		options += fmt.Sprintf(" task %q", o.task)
	}
	if o.pid != 0 {
		options += fmt.Sprintf(" pid %d", o.pid)
	}
	if o.count != 0 {
		options += fmt.Sprintf(" count %d", o.count)
	}
	if o.cond != "" {
		options += " if " + o.cond
	}
	if options != "" && len(o.breaks) == 0 {
		return nil, false, outcome.Inputf("--task, --pid, --if and --count are for --break")
	}
	for _, b := range o.breaks {
		lines = append(lines, line{"break " + b + options, "--break " + b})
	}
	if len(o.breaks) > 0 {
		lines = append(lines, line{"go", "--break"})
	}
	for _, name := range o.scripts {
		data, err := bounded.ReadFile(name, maxScript)
		if err != nil {
			return nil, false, outcome.Default(outcome.BadInput, err)
		}
		for i, l := range strings.Split(string(data), "\n") {
			lines = append(lines, line{strings.TrimSuffix(l, "\r"), fmt.Sprintf("%s:%d", name, i+1)})
		}
	}
	for _, d := range o.do {
		for _, l := range command.SplitLine(d) {
			lines = append(lines, line{l, "--do"})
		}
	}
	// What is wrong in them is told before a guest is stopped.
	for _, l := range lines {
		if _, err := command.Parse(l.text); err != nil {
			return nil, false, fmt.Errorf("%s: %w", l.from, err)
		}
	}
	return lines, len(o.scripts)+len(o.do) == 0, nil
}

// debug is the command debug: of a machine that runs, or of a program's own.
func (a *app) debug(ctx context.Context, o debugOptions, name string, argv []string) error {
	lines, more, err := o.lines()
	if err != nil {
		return err
	}
	style, ok := stack.FindStyle(o.style)
	if !ok {
		return nearest.Unknown("--style", o.style, slices.DeleteFunc(styleNames(), func(n string) bool { return n == "json" }))
	}
	env, err := a.env()
	if err != nil {
		return err
	}
	ctx, signals := a.debugSignals(ctx, o.timeout)
	defer signals.stop()
	p := &prompt{app: a, env: env, signals: signals, base: ctx, lines: lines, more: more,
		o: debug.Options{JSON: o.json, Style: style}}
	defer p.leaveCheckpoints()
	so := session.Options{Name: "debug", Out: o.out, Keep: session.KeepRecord, FailOn: record.FailOnNone}
	if len(argv) > 0 {
		so.Spec, so.Waits = o.spec, true
		_, err = session.Exec(ctx, env, session.ExecOptions{Options: so, Debug: func(ctx context.Context, s *session.Session, start func() <-chan struct{}) error {
			p.name = s.Machine.Target.Name
			g, err := a.ownGuest(ctx, s)
			if err != nil {
				return err
			}
			defer g.Close()
			p.o.Save = func(ctx context.Context, as string) error { return s.Machine.Save(ctx, s.VM, as) }
			return p.session(ctx, s, s.VM, g, start)
		}}, argv, session.Stdio{Out: cleanFor(a.stdout), Err: cleanFor(a.stderr)})
		return err
	}
	m, err := registry.Find(ctx, name)
	if err != nil {
		return err
	}
	defer m.Close()
	so.In, so.Apart = m, true
	_, err = session.Run(ctx, env, so, func(ctx context.Context, s *session.Session) error {
		p.name = m.Name
		g, err := a.guest(ctx, m, o.debuginfo)
		if err != nil {
			return err
		}
		defer g.Close()
		p.o.Save = m.Save
		return p.session(ctx, s, m, g, nil)
	})
	return err
}

// session opens a debugger and does its commands.
func (p *prompt) session(ctx context.Context, s *session.Session, i vm.Inspector, g *outside.Guest, start func() <-chan struct{}) error {
	log, err := os.Create(s.Dir.File(record.DebugFile))
	if err != nil {
		return outcome.Default(outcome.HostLacks, err)
	}
	defer log.Close()
	p.app.say("log of this session: " + log.Name())
	p.log, p.o.Out, p.o.Back = log, io.MultiWriter(cleanFor(p.app.stdout), log), p.back
	if p.d, err = debug.Open(ctx, i, g, p.o); err != nil {
		return err
	}
	if start != nil { // it is under way, and gets on when the guest does
		ended := start()
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-ended:
				if !p.away.Load() {
					cancel(errProgramEnded)
				}
			case <-ctx.Done():
			}
		}()
	}
	err = p.run(ctx)
	if errors.Is(err, errProgramEnded) {
		err = nil
	}
	if cerr := p.d.Close(); !p.d.Ended() { // else there is nothing to let run
		err = errors.Join(err, cerr)
	}
	return err
}

// errProgramEnded ends the session of a program's own machine.
var errProgramEnded = outcome.New(outcome.OK, "the program has ended")

// returned is a machine that a session has gone back to.
type returned struct {
	vm    *vm.VM
	guest *outside.Guest
	save  func(context.Context, string) error
}

// back starts a machine from a checkpoint, which stands still, for as long as the session
// needs it.
func (p *prompt) back(ctx context.Context, name string) (vm.Inspector, *outside.Guest, error) {
	ready, end := make(chan returned), make(chan struct{})
	failed := make(chan error, 1)
	o := session.Options{Name: "debug-back", Keep: session.KeepNothing, FailOn: record.FailOnNone, Waits: true, Spec: machine.Spec{From: name, Held: true}}
	stay := p.base // not only for as long as the command
	go func() {
		_, err := session.Run(stay, p.env, o, func(ctx context.Context, s *session.Session) error {
			g, err := p.app.ownGuest(ctx, s)
			if err != nil {
				return err
			}
			defer g.Close()
			select {
			case ready <- returned{s.VM, g, func(ctx context.Context, as string) error { return s.Machine.Save(ctx, s.VM, as) }}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			<-end
			return nil
		})
		failed <- err
	}()
	select {
	case r := <-ready:
		p.checkpoints = append(p.checkpoints, func() {
			close(end)
			<-failed // how a machine ends that is thrown away is nobody's concern
		})
		p.d.SetSave(r.save)
		p.away.Store(true)
		return r.vm, r.guest, nil
	case err := <-failed:
		if err == nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
}

// leaveCheckpoints ends the machines that the session has gone back to.
func (p *prompt) leaveCheckpoints() {
	for _, end := range p.checkpoints {
		end()
	}
}

// debugSignals are the signals of a debugger: SIGINT stops a guest that runs, others end
// the session.
type debugSignals struct {
	ints chan os.Signal
	ends chan os.Signal
	done chan struct{}
}

func (a *app) debugSignals(ctx context.Context, timeout time.Duration) (context.Context, *debugSignals) {
	s := &debugSignals{ints: make(chan os.Signal, 1), ends: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(s.ends, syscall.SIGTERM, syscall.SIGHUP)
	if isTerminal(a.stdin) {
		signal.Notify(s.ints, syscall.SIGINT)
	} else {
		signal.Notify(s.ends, syscall.SIGINT)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var expired <-chan time.Time
	if timeout > 0 {
		expired = time.After(timeout)
	}
	go func() {
		select {
		case sig := <-s.ends:
			cancel(&outcome.SignalError{Signal: sig.(syscall.Signal)})
		case <-expired:
			cancel(outcome.ErrTimeout)
		case <-s.done:
			cancel(nil)
		}
	}()
	return ctx, s
}

func (s *debugSignals) stop() {
	signal.Stop(s.ints)
	signal.Stop(s.ends)
	close(s.done)
}

// errInterrupted is the cause of a command's end by Ctrl-C.
var errInterrupted = outcome.New(outcome.OK, "interrupted")

// prompt reads commands and has them done.
type prompt struct {
	app     *app
	env     session.Env
	o       debug.Options
	d       *debug.Session
	log     io.Writer
	signals *debugSignals
	name    string // of the machine

	lines []line // the commands of the flags
	more  bool   // those of standard input follow

	base        context.Context // of the whole session
	away        atomic.Bool     // it has another machine than it began with
	checkpoints []func()        // end the machines that the session has gone back to
}

// run does the commands.
func (p *prompt) run(ctx context.Context) error {
	interactive := p.more && isTerminal(p.app.stdin)
	for _, l := range p.lines {
		err := p.do(ctx, l.text)
		switch {
		case err == nil:
		case errors.Is(err, debug.ErrQuit):
			return nil
		case interactive && p.goesOn(ctx, err):
			p.app.report(err)
		case outcome.Of(err) == outcome.BadInput:
			return fmt.Errorf("%s: %w", l.from, err)
		default:
			return err
		}
	}
	switch {
	case !p.more:
		return nil
	case interactive:
		return p.interact(ctx)
	}
	return p.script(ctx)
}

// goesOn reports whether an interactive session goes on after an error.
func (p *prompt) goesOn(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !outcome.Quiet(err) && outcome.Of(err) != outcome.Internal
}

// do does one command. Ctrl-C ends it.
func (p *prompt) do(ctx context.Context, text string) error {
	fmt.Fprintf(p.log, "%s> %s\n", p.name, strings.TrimSpace(text))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	select {
	case <-p.signals.ints: // from before
	default:
	}
	go func() {
		select {
		case <-p.signals.ints:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	err := p.d.Do(ctx, text)
	if errors.Is(err, errInterrupted) {
		return nil
	}
	if err != nil && !errors.Is(err, debug.ErrQuit) {
		fmt.Fprintf(p.log, "%v\n", err)
	}
	return err
}

// script reads commands from standard input that is no terminal.
func (p *prompt) script(ctx context.Context) error {
	data, err := bounded.ReadAll(p.app.stdin, maxScript)
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	for i, l := range bytes.Split(data, []byte("\n")) {
		err := p.do(ctx, string(l))
		if errors.Is(err, debug.ErrQuit) {
			return nil
		}
		if outcome.Of(err) == outcome.BadInput {
			return fmt.Errorf("standard input:%d: %w", i+1, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// interact reads commands from the terminal, with history and completion.
func (p *prompt) interact(ctx context.Context) error {
	in, _ := p.app.stdin.(*os.File)
	typed := &keys{from: in}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{typed, p.app.stdout}, p.name+"> ")
	t.AutoCompleteCallback = func(l string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return p.complete(t, l, pos)
	}
	last := ""
	for ctx.Err() == nil {
		fd := int(in.Fd())
		old, err := term.MakeRaw(fd)
		if err != nil {
			return outcome.Default(outcome.HostLacks, fmt.Errorf("set the terminal to raw mode: %w", err))
		}
		if w, h, err := term.GetSize(fd); err == nil && w > 0 {
			_ = t.SetSize(w, h)
		}
		l, err := t.ReadLine()
		term.Restore(fd, old)
		if errors.Is(err, io.EOF) { // Ctrl-D
			fmt.Fprintln(p.app.stdout)
			return nil
		}
		if err != nil {
			return outcome.Default(outcome.HostLacks, err)
		}
		if typed.interrupted {
			typed.interrupted = false
			continue
		}
		if strings.TrimSpace(l) == "" {
			l = repeatable(last) // as gdb does
		}
		last = l
		switch err := p.do(ctx, l); {
		case err == nil:
		case errors.Is(err, debug.ErrQuit):
			return nil
		case p.goesOn(ctx, err):
			p.app.report(err)
		default:
			return err
		}
	}
	return context.Cause(ctx)
}

// keys is a terminal on which Ctrl-C gives a line up, as in other debuggers: it may have
// been meant for a guest that has just stopped.
type keys struct {
	from        io.Reader
	left        []byte
	interrupted bool
}

func (k *keys) Read(p []byte) (int, error) {
	if len(k.left) == 0 {
		b := make([]byte, 256)
		n, err := k.from.Read(b)
		if err != nil {
			return 0, err
		}
		for _, c := range b[:n] {
			if c == 3 { // go to the line's end, erase it, and enter it
				k.interrupted = true
				k.left = append(k.left, 5, 21, '\r')
				continue
			}
			k.left = append(k.left, c)
		}
	}
	n := copy(p, k.left)
	k.left = k.left[n:]
	return n, nil
}

// repeatable is a command that an empty line repeats, "" if that is none.
func repeatable(l string) string {
	if c, err := command.Parse(l); err == nil && c != nil {
		switch c.Name {
		case "step", "next", "go":
			return l
		}
	}
	return ""
}

// complete completes the word before the cursor as far as it goes, and shows what there is
// where that is not the end.
func (p *prompt) complete(t *term.Terminal, l string, pos int) (string, int, bool) {
	start := strings.LastIndexAny(l[:pos], " \t") + 1
	found := p.d.Complete(l[:start], l[start:pos])
	if len(found) == 0 {
		return l, pos, true
	}
	common := found[0]
	for _, f := range found[1:] {
		for !strings.HasPrefix(f, common) {
			common = common[:len(common)-1]
		}
	}
	if len(found) == 1 {
		common += " "
	} else if len(common) <= pos-start {
		fmt.Fprintln(t, text.Line(strings.Join(found[:min(len(found), 40)], "  "), 2000))
	}
	if len(common) < pos-start {
		return l, pos, true
	}
	return l[:start] + common + l[pos:], start + len(common), true
}
