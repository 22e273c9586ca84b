package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/machine"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// shell is the guest's own, guest/shell.
const shell = "/bin/sh"

type bootOptions struct {
	spec    machine.Spec
	line    string
	console bool
	out     string
	timeout time.Duration
}

func (a *app) bootCmd() *cobra.Command {
	var o bootOptions
	c := &cobra.Command{
		Use:   "boot",
		Short: "Boot a kernel to a shell",
		Long: `Boot a kernel and open a shell in it, with u-root's commands. On a terminal the
shell is interactive, with line editing, history and completion by Tab; exit or
Ctrl-D leaves, Ctrl-A x from anywhere, Ctrl-A a sends Ctrl-A. Elsewhere it reads
its commands from standard input. --cmd runs one line.

The exit status is the shell's, 128+N when signal N ended it. When the shell
could not be run to its end it is labctl's own: 2 bad input, 3 this host lacks
something, 4 the guest crashed, 5 deadline.`,
		Example: `  labctl boot --arch arm64
  labctl boot --arch arm64 --kernel 5.10 --cmd 'cat /proc/version'
  echo 'uname -a' | labctl boot --board raspi3b`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.boot(c.Context(), o, c.Flags().Changed("cmd"))
		},
	}
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.StringVar(&o.line, "cmd", "", "run this line in the guest's shell and leave with its exit status")
	f.BoolVar(&o.console, "console", false, "show the kernel's console on standard error")
	f.StringVar(&o.out, "out", "", "keep console.log and qemu.txt in this folder")
	f.DurationVar(&o.timeout, "timeout", 0, "end the guest after this long, boot included")
	return c
}

func (a *app) boot(ctx context.Context, o bootOptions, oneLine bool) (err error) {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errDeadline)
		defer cancel()
	}
	env, err := a.env()
	if err != nil {
		return err
	}
	o.spec.Commands = true
	if o.console {
		o.spec.Cold = true // a machine that was saved has said it all
	}
	m, err := machine.Prepare(ctx, env, o.spec)
	if err != nil {
		return err
	}
	dir, keep, err := a.logs(&env, o.out, "boot")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keep(err)) }()
	var console io.Writer
	if o.console {
		console = text.NewWriter(a.stderr)
	}
	a.say(fmt.Sprintf("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel))
	v, err := m.Boot(ctx, env, dir, console)
	if err != nil {
		return err
	}
	defer func() {
		// A program's own status hides no trouble of the host's.
		if cerr := v.Close(); cerr != nil && err != nil {
			a.report(cerr)
		} else if cerr != nil {
			err = cerr
		}
	}()
	a.say(fmt.Sprintf("%s is up in %.1f s", v.Hello().Release, v.BootTime().Seconds()))

	p := wire.ExecParams{Argv: []string{shell}, Dir: "/"}
	if oneLine {
		p.Argv = append(p.Argv, "-c", o.line)
	}
	in, isFile := a.stdin.(*os.File)
	tty := !oneLine && isFile && isTerminal(a.stdin) && isTerminal(a.stdout)
	var res wire.ExecResult
	if tty {
		res, err = a.interactive(v, p, in)
	} else {
		std := agent.IO{Stdout: a.stdout, Stderr: a.stderr}
		if isTerminal(a.stdout) {
			std.Stdout = text.NewWriter(a.stdout)
		}
		if isTerminal(a.stderr) {
			std.Stderr = text.NewWriter(a.stderr)
		}
		if a.stdin != nil && !isTerminal(a.stdin) {
			std.Stdin = a.stdin
		}
		res, err = v.Agent().Exec(v.Context(), p, std)
	}
	err = v.Why(err)
	switch {
	case errors.Is(err, vm.ErrPoweredOff):
		a.say("the guest powered off")
		return nil
	case errors.Is(err, errLeft):
		return nil
	case err != nil:
		return err
	}
	a.explainKill(v, res)
	return statusOf(res)
}

// oomError is a program that the guest's OOM killer ended.
type oomError struct{ victim crash.Task }

func (e oomError) Error() string {
	return fmt.Sprintf("%s (pid %d) was killed by the guest's OOM killer; give more memory with --mem", text.Line(e.victim.Comm, 64), e.victim.PID)
}

// explainKill tells a user whose program got SIGKILL when the guest's kernel
// sent it.
func (a *app) explainKill(v *vm.VM, r wire.ExecResult) {
	if err := killedByOOM(v, r); err != nil {
		fmt.Fprintf(a.stderr, "labctl: %v\n", err)
	}
}

// killedByOOM is an oomError or nil. A shell whose child was killed tells of it
// by its own status.
func killedByOOM(v *vm.VM, r wire.ExecResult) error {
	pid := r.PID
	switch {
	case r.Signaled && r.Signal == int(syscall.SIGKILL):
	case r.Exited && r.Code == 128+int(syscall.SIGKILL):
		pid = 0
	default:
		return nil
	}
	if k := v.Killed(pid); k != nil {
		return oomError{*k.Victim}
	}
	return nil
}

// statusOf turns a program's end into labctl's: 128+N for a signal, as shells do.
func statusOf(r wire.ExecResult) error {
	switch {
	case r.Signaled:
		return statusError{128 + r.Signal}
	case r.Code != 0:
		return statusError{r.Code & 0xff}
	}
	return nil
}

// errLeft says that the user left the shell by the escape key.
var errLeft = errors.New("left")

// interactive runs p on a terminal of the guest's, joined to ours.
func (a *app) interactive(v *vm.VM, p wire.ExecParams, in *os.File) (wire.ExecResult, error) {
	fd := int(in.Fd())
	p.TTY = true
	p.Cols, p.Rows, _ = term.GetSize(fd)
	if t := os.Getenv("TERM"); t != "" {
		p.Env = append(p.Env, "TERM="+t)
	}
	a.say("Ctrl-A x leaves")
	old, err := term.MakeRaw(fd)
	if err != nil {
		return wire.ExecResult{}, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	defer term.Restore(fd, old)

	ctx, leave := context.WithCancelCause(v.Context())
	defer leave(nil)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	res, err := v.Agent().Exec(ctx, p, agent.IO{
		Stdin:  &escapeReader{r: in, leave: func() { leave(errLeft) }},
		Stdout: a.stdout,
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
	fmt.Fprint(a.stdout, "\r\n")
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
