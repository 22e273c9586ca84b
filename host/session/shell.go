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
	"labctl/host/vm/agent"
)

// GuestShell is the guest's own shell, guest/shell.
const GuestShell = "/bin/sh"

// ShellOptions are a shell in a machine of its own.
type ShellOptions struct {
	Options
	// Line is run in place of reading commands, when OneLine is set.
	Line    string
	OneLine bool
	// Terminal, when set, is joined to one of the guest's: Stdio.In is it.
	Terminal *os.File
	// Ready is called when the machine is up, before the shell.
	Ready func(context.Context, *Session) error
}

// Shell boots a machine and runs a shell in it. The error of a shell that ended
// with another status than 0 is an *outcome.StatusError.
func Shell(ctx context.Context, env Env, o ShellOptions, std Stdio) (*Session, error) {
	o.Spec.Commands = true
	o.Waits = !o.OneLine
	if o.Console != nil {
		o.Spec.Cold = true // a machine that was saved has said it all
	}
	return Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		s.env.say("%s is up in %.1f s", s.VM.Hello().Release, s.VM.BootTime().Seconds())
		if o.Ready != nil {
			if err := o.Ready(ctx, s); err != nil {
				return err
			}
		}
		// A book's commands have the names of the kernel that it was written for.
		p := wire.ExecParams{Argv: []string{GuestShell, "--trace-names"}, Dir: "/"}
		if o.OneLine {
			p.Argv = append(p.Argv, "-c", o.Line)
		}
		var res wire.ExecResult
		var err error
		if o.Terminal != nil && !o.OneLine {
			res, err = s.interactive(ctx, p, o.Terminal, std.Out)
		} else {
			res, err = s.VM.Agent().Exec(ctx, p, agent.IO{Stdin: std.In, Stdout: std.Out, Stderr: std.Err})
		}
		if err != nil {
			return s.poweredOff(err)
		}
		return s.finished(res)
	})
}

// interactive runs p on a terminal of the guest's, joined to ours.
func (s *Session) interactive(ctx context.Context, p wire.ExecParams, in *os.File, out io.Writer) (wire.ExecResult, error) {
	fd := int(in.Fd())
	p.TTY = true
	p.Cols, p.Rows, _ = term.GetSize(fd)
	if t := os.Getenv("TERM"); t != "" {
		p.Env = append(p.Env, "TERM="+t)
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
	res, err := s.VM.Agent().Exec(ctx, p, agent.IO{
		Stdin:  &escapeReader{r: in, leave: func() { leave(errLeft) }},
		Stdout: out,
		Started: func(call *agent.Call) {
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
	fmt.Fprint(out, "\r\n")
	return res, err
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
