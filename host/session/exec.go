package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/image/program"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Stdio is where a program's standard files are on the host. A nil In is an empty
// one.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExecOptions are a program to run and the machine for it.
type ExecOptions struct {
	Options
	program.JobOptions
	Relay *Relay // of signals to the program; nil for none
	// TTY gives the program a terminal, joined to Terminal if that is set: Stdio.In is
	// it then.
	TTY      bool
	Terminal *os.File
	// Debug, when set, has the machine before the program is there. start starts it, in
	// the background, and returns a channel that is closed when it has ended.
	Debug func(ctx context.Context, s *Session, start func() <-chan struct{}) error
}

// Exec runs one program, in a machine of its own unless Options.In is another. The error of a program that ran
// to its end with another status than 0 is an *outcome.StatusError.
func Exec(ctx context.Context, env Env, o ExecOptions, argv []string, std Stdio) (*Session, error) {
	job, closeJob, err := findJob(ctx, env, &o, argv, nil)
	if err != nil {
		return nil, err
	}
	defer closeJob()
	o.Options.Files = &job.Bundle
	return Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		var res wire.ExecResult
		var err error
		if o.Debug != nil {
			return s.debugJob(ctx, job, o, std)
		}
		if o.TTY {
			job.Params.TTY = true
			res, err = s.runTerminal(ctx, job, o.Terminal, std, o.Relay.to)
			o.Relay.to(nil)
		} else {
			res, err = s.runJob(ctx, job, o.Relay, std)
		}
		if err != nil {
			return s.left(err)
		}
		return s.finishJob(ctx, job, res)
	})
}

// findJob finds or builds the program, unless it is prog, and settles the machine's
// architecture by it, where the user has not.
func findJob(ctx context.Context, env Env, o *ExecOptions, argv []string, prog *program.Program) (*program.Job, func() error, error) {
	if err := o.settle(env, argv[0]); err != nil {
		return nil, nil, err
	}
	t, err := machine.FindTarget(o.Spec.Arch, o.Spec.Board)
	if err != nil {
		return nil, nil, err
	}
	if prog == nil {
		prog, err = program.Find(ctx, argv[0], t.Arch)
	}
	if err != nil {
		return nil, nil, stopped(ctx, outcome.Default(outcome.BadInput, err))
	}
	job, err := program.NewJob(prog, argv, o.JobOptions)
	if err != nil {
		prog.Close()
		return nil, nil, err
	}
	env.warn(job.LeftOut())
	if o.Spec.From == "" { // else it is settled
		o.Spec.Commands = prog.Commands()
	}
	if o.In != nil && prog.Commands() && !o.In.Commands && argv[0] != "labprobe" {
		prog.Close()
		return nil, nil, outcome.Inputf("%s: machine %s has no commands of u-root's; use one that labctl up has started", argv[0], o.In.Name)
	}
	if o.Name == "" {
		o.Name = "exec-" + PlainName(argv[0])
	}
	return job, prog.Close, nil
}

// into settles what the machine that the program is to run in has settled.
func (o *ExecOptions) into() error {
	t, ok := targets.Find(o.In.Target)
	if !ok {
		return outcome.Inputf("machine %s is a %q, which this labctl does not know", o.In.Name, o.In.Target)
	}
	if o.Spec.Arch, o.Spec.Board = t.Name, ""; t.Board {
		o.Spec.Arch, o.Spec.Board = "", t.Name
	}
	o.Root = o.In.Workspace()
	return nil
}

// settle chooses the architecture of a machine that nobody has named: that of the
// program, or of the kernel.
func (o *ExecOptions) settle(env Env, prog string) error {
	if o.In != nil {
		return o.into()
	}
	if o.Spec.Arch == "" && o.Spec.Board == "" && o.Spec.From == "" {
		if t, ok := targets.Find(program.Arch(prog)); ok {
			o.Spec.Arch = t.Name
		}
	}
	return machine.Settle(env.Env, &o.Spec)
}

// stopped is the cause of ctx's end when that is why err came about.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// runJob runs a job that was sent, until ctx ends.
func (s *Session) runJob(ctx context.Context, job *program.Job, relay *Relay, std Stdio) (wire.ExecResult, error) {
	io := agent.IO{Stdout: std.Out, Stderr: std.Err, Started: relay.to}
	if std.In != nil && !job.NoInput {
		io.Stdin = std.In
	}
	res, err := job.Run(ctx, s.VM.Agent(), io)
	relay.to(nil)
	return res, err
}

// debugJob runs a job under a debugger, and to its end when that has left.
func (s *Session) debugJob(ctx context.Context, job *program.Job, o ExecOptions, std Stdio) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var res wire.ExecResult
	var err error
	var ended chan struct{}
	start := func() <-chan struct{} {
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			res, err = s.runJob(ctx, job, o.Relay, std)
		}()
		return ended
	}
	derr := o.Debug(ctx, s, start)
	if derr != nil {
		cancel()
	}
	if ended != nil {
		<-ended
	}
	if derr != nil || ended == nil {
		return derr
	}
	if err != nil {
		return s.left(err)
	}
	return s.finishJob(ctx, job, res)
}

// finishJob brings back what the program has written, which may tell why it ended
// as it did, and returns its status as an error.
func (s *Session) finishJob(ctx context.Context, job *program.Job, res wire.ExecResult) error {
	status := s.finished(res)
	left, err := job.Fetch(ctx, s.VM.Agent())
	if left != "" {
		s.env.warn(outcome.Inputf("%s", left))
	}
	if status == nil {
		return err
	}
	if err != nil {
		s.env.warn(s.VM.Why(err))
	}
	return status
}

// finished returns the status of a program as Status does. That of one that was killed
// may come before the console says by what, which is said at the end of the run.
func (s *Session) finished(res wire.ExecResult) error {
	s.program = true
	KilledByOOM(s.VM, res)
	return Status(res)
}

// Status turns a program's end into labctl's: an *outcome.StatusError with 128+N
// for signal N, as shells have it; nil for status 0.
func Status(r wire.ExecResult) error {
	switch {
	case r.Signaled:
		return &outcome.StatusError{Status: 128 + r.Signal}
	case r.Code != 0:
		return &outcome.StatusError{Status: r.Code & 0xff}
	}
	return nil
}

// OOMError is a program that the guest's OOM killer ended.
type OOMError struct{ Victim crash.Task }

func (e *OOMError) Error() string {
	return fmt.Sprintf("%s (pid %d) was killed by the guest's OOM killer; give more memory with --mem", text.Line(e.Victim.Comm, 64), e.Victim.PID)
}

// Outcome is KernelReported.
func (e *OOMError) Outcome() outcome.Kind { return outcome.KernelReported }

// How is OutOfMemory.
func (e *OOMError) How() outcome.How { return outcome.OutOfMemory }

// KilledByOOM is an *OOMError when the guest's kernel has killed a program for want
// of memory, else nil. A shell whose child was killed reports it by its own status.
func KilledByOOM(v *vm.VM, r wire.ExecResult) error {
	pid := r.PID
	switch {
	case r.Signaled && r.Signal == int(syscall.SIGKILL):
	case r.Exited && r.Code == 128+int(syscall.SIGKILL):
		pid = 0
	default:
		return nil
	}
	if k := v.Killed(pid); k != nil {
		return &OOMError{*k.Victim}
	}
	return nil
}

var notPlain = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// PlainName is a program's name as part of a directory's.
func PlainName(prog string) string {
	name := strings.Trim(notPlain.ReplaceAllString(path.Base(prog), "-"), "-.")
	if name == "" {
		return "program"
	}
	return name[:min(len(name), 40)]
}

// errLeft says that the user left the shell by the escape key.
var errLeft = outcome.New(outcome.OK, "left")

// left makes a user's leaving a terminal by the escape key a good end.
func (s *Session) left(err error) error {
	if why := s.VM.Why(err); errors.Is(why, errLeft) {
		return nil
	}
	return err
}

// poweredOff makes a guest that powered off, or restarted, while a user was in it a
// good end.
func (s *Session) poweredOff(err error) error {
	switch err = s.VM.Why(err); {
	case errors.Is(err, vm.ErrPoweredOff):
		s.env.say("the guest powered off")
		return nil
	case errors.Is(err, vm.ErrRestarted):
		s.env.say("the guest restarted its machine, which ends it here")
		return nil
	case errors.Is(err, errLeft):
		return nil
	}
	return err
}
