package session

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/vm/agent"
)

// GuestShell is the guest's own shell, guest/shell.
const GuestShell = "/bin/sh"

// ShellOptions are a shell in a machine of its own.
type ShellOptions struct {
	Options
	program.JobOptions
	// Line is run in place of reading commands, when OneLine is set.
	Line    string
	OneLine bool
	// Terminal, when set, is joined to one of the guest's: Stdio.In is it.
	Terminal *os.File
	// Screen, when set, is a terminal elsewhere, such as in a browser: the guest's is of
	// its size, and Stdio has its keys and what it shows.
	Screen *Screen
	// Ready is called when the machine is up, before the shell.
	Ready func(context.Context, *Session) error
}

// Screen is a terminal that is no file of this process.
type Screen struct {
	Rows, Cols int
	Resized    <-chan [2]int // rows and columns; may be nil
}

// Shell runs a shell, in a machine of its own unless Options.In is another. The error of
// a shell that ended with another status than 0 is an *outcome.StatusError.
func Shell(ctx context.Context, env Env, o ShellOptions, std Stdio) (*Session, error) {
	// A book's commands have the names of the kernel that it was written for.
	argv := []string{GuestShell, "--trace-names"}
	if o.OneLine {
		argv = append(argv, "-c", o.Line)
	}
	job, err := program.NewJob(&program.Program{Argv0: GuestShell}, argv, o.JobOptions)
	if err != nil {
		return nil, err
	}
	env.warn(job.LeftOut())
	o.Spec.Commands = true
	o.Waits = !o.OneLine
	if o.Console != nil {
		o.Spec.Cold = true // a machine that was saved has said it all
	}
	o.Options.Files = &job.Bundle
	return Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		if o.In == nil {
			s.env.say("%s is up in %.1f s", s.VM.Hello().Release, s.VM.BootTime().Seconds())
		}
		if o.Ready != nil {
			if err := o.Ready(ctx, s); err != nil {
				return err
			}
		}
		var res wire.ExecResult
		var err error
		if o.Screen != nil {
			res, err = s.runScreen(ctx, job, o.Screen, std)
		} else if o.Terminal != nil && !o.OneLine {
			job.Params.TTY = true
			res, err = s.runTerminal(ctx, job, o.Terminal, std, nil)
		} else {
			res, err = job.Run(ctx, s.VM.Agent(), agent.IO{Stdin: std.In, Stdout: std.Out, Stderr: std.Err})
		}
		if err != nil {
			return s.poweredOff(err)
		}
		return s.finishJob(ctx, job, res)
	})
}

// runTerminal runs a job on a terminal of the guest's, joined to ours if there is one:
// its size is ours then, and every key goes to it but the escape key. started may be
// nil.
func (s *Session) runTerminal(ctx context.Context, job *program.Job, in *os.File, std Stdio, started func(*agent.Call)) (wire.ExecResult, error) {
	if in == nil {
		io := agent.IO{Stdin: std.In, Stdout: std.Out, Started: started}
		return job.Run(ctx, s.VM.Agent(), io)
	}
	fd := int(in.Fd())
	job.Params.Cols, job.Params.Rows, _ = term.GetSize(fd)
	if t := os.Getenv("TERM"); t != "" {
		job.Params.Env = append(job.Params.Env, "TERM="+t)
	}
	s.env.say("Ctrl-A x leaves")
	old, err := term.MakeRaw(fd)
	if err != nil {
		return wire.ExecResult{}, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	defer term.Restore(fd, old)

	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	res, err := job.Run(ctx, s.VM.Agent(), agent.IO{
		Stdin:  &escapeReader{r: in, leave: func() { leave(errLeft) }},
		Stdout: std.Out,
		Started: func(call *agent.Call) {
			if started != nil {
				started(call)
			}
			go func() {
				for {
					select {
					case <-resized:
						if cols, rows, err := term.GetSize(fd); err == nil {
							call.Control(wire.Control{Rows: rows, Cols: cols})
						}
					case <-ctx.Done():
						return
					}
				}
			}()
		},
	})
	fmt.Fprint(std.Out, "\r\n")
	return res, err
}

// runScreen runs a job on a terminal of the guest's, joined to one elsewhere.
func (s *Session) runScreen(ctx context.Context, job *program.Job, on *Screen, std Stdio) (wire.ExecResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	job.Params.TTY, job.Params.Rows, job.Params.Cols = true, on.Rows, on.Cols
	job.Params.Env = append(job.Params.Env, "TERM=xterm-256color")
	return job.Run(ctx, s.VM.Agent(), agent.IO{Stdin: std.In, Stdout: std.Out, Started: func(call *agent.Call) {
		go func() {
			for {
				select {
				case size := <-on.Resized:
					call.Control(wire.Control{Rows: size[0], Cols: size[1]})
				case <-ctx.Done():
					return
				}
			}
		}()
	}})
}

// escapeKey is Ctrl-A, as in QEMU's own -nographic and in screen.
const escapeKey = 0x01

// escapeReader passes keys on and acts on escapeKey x.
type escapeReader struct {
	r       io.Reader
	leave   func()
	escaped bool
}

func (e *escapeReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := e.r.Read(p)
		out := 0
		for _, k := range p[:n] {
			switch {
			case e.escaped && (k == 'x' || k == 'X'):
				e.leave()
				return out, io.EOF
			case e.escaped:
				e.escaped = false
				if k == 'a' || k == escapeKey {
					k = escapeKey
				}
			case k == escapeKey:
				e.escaped = true
				continue
			}
			p[out] = k
			out++
		}
		if out > 0 || err != nil {
			return out, err
		}
	}
}
