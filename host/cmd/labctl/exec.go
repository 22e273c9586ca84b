package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/image/program"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
)

// programFlags are the flags of commands that run one program.
type programFlags struct {
	in      inFlag
	spec    machine.Spec
	job     program.JobOptions
	out     string
	timeout time.Duration
	failOn  record.FailOn
}

// jobFlags are the flags for what a program, or a shell, has in the guest.
func jobFlags(c *cobra.Command, o *program.JobOptions) {
	f := c.Flags()
	f.StringArrayVar(&o.Env, "env", nil, "K=V for the program's environment, or K for this one's value; may be given again")
	f.StringArrayVar(&o.Files, "file", nil, "HOST[:GUEST]: a file or directory that the guest gets; may be given again")
	f.StringArrayVar(&o.Gets, "get", nil, "GUEST[:HOST]: a file or directory to bring back; may be given again")
	f.StringVar(&o.Dir, "dir", "", "run in this directory of the guest; relative GUEST paths are below it")
}

func (o *programFlags) flags(c *cobra.Command) {
	machineFlags(c, &o.spec)
	jobFlags(c, &o.job)
	o.in.flag(c)
	f := c.Flags()
	f.SetInterspersed(false) // what follows PROG is PROG's
	f.StringVar(&o.out, "out", "", "keep a run record in this directory: run.json, console.log, qemu.txt")
	timeFlag(f, &o.timeout, "timeout", "end the guest after this long, boot included")
	failOnFlag(c, &o.failOn)
}

// options are those of a session.
func (o *programFlags) options(keep session.Keep, relay *session.Relay) session.ExecOptions {
	return session.ExecOptions{
		Options:    session.Options{In: o.in.machine, Out: o.out, Keep: keep, Spec: o.spec, Timeout: o.timeout, FailOn: o.failOn},
		JobOptions: o.job,
		Relay:      relay,
	}
}

func (a *app) execCmd() *cobra.Command {
	var o programFlags
	var tty bool
	c := &cobra.Command{
		Use:   "exec [flags] -- PROG [ARGS]",
		Short: "Run a program in a guest",
		Long: `Boot a kernel, run one program in it, and pass on its standard files and its
exit status. PROG is one of

  ./prog              a static program for Linux
  ./cmd/x, ./x.go     a directory with Go source, a Go file, or the path of a
  example.com/x       package: built for the guest, without cgo
  ./x.sh              a shell script, by its name or its first line
  ls                  a command of the guest: busybox's, u-root's

A Go test binary (x.test, as passed by go test -exec) runs in a copy of its working
directory with testdata and the files next to it, at most 64 MB; testdata and go.mod
of the parent directories, up to the module's, are copied too. Profiles that its flags
name (-test.coverprofile and the like) are copied back, and so are inputs that fuzzing
found (-test.fuzz).

Paths of this host do not exist in the guest. A test that looks for files where its
source was (runtime.Caller) finds them with --file "$PWD:$PWD".

--tty gives PROG a terminal, as vi, top and shells want: its keys and its size are
those of this one, and Ctrl-A x leaves. Where labctl has no terminal, the guest's has
80 columns and 24 lines. Its output and errors are one stream then.

The first Ctrl-C, or SIGTERM, SIGHUP, SIGQUIT, goes to the program; the next
one ends the guest.

--in runs PROG in a machine that labctl up keeps, in a directory of its own, which is
removed afterwards; several may run there at once. A program that was there before is
not sent again, and starts in a fraction of the time.

What the kernel reports meanwhile (a WARNING, an oops, a stall, an OOM kill) is
a line on standard error. An oops, or what --fail-on names, fails the run, even
when PROG ends with 0. When a task of PROG's dies in an oops and the others do
nothing but wait, PROG is ended after some seconds (--fail-on none: it is not).

The exit status is the program's, 128+N when signal N ended it. 124: --timeout
has passed; 125: labctl could not run it; 126: the guest crashed, cannot execute
PROG, or its kernel has reported what --fail-on names; 127: no such program in
the guest.`,
		Example: `  labctl exec --arch arm64 -- ./hello
  labctl exec --kernel 5.10 -- ./cmd/server -v
  labctl exec --arch arm64 --file input.bin --get output.bin -- ./convert input.bin output.bin
  labctl exec --tty -- top -H
  labctl exec --module dummy,ext4 -- ./netlink.test
  labctl exec --fail-on warn -- ./stress
  labctl exec --in lab -- ./hello
  GOARCH=arm64 go test -exec 'labctl exec --' ./...`,
	}
	a.programCommand(c, func(c *cobra.Command, args []string) error {
		if err := o.in.find(c); err != nil {
			return err
		}
		defer o.in.close()
		return a.exec(c.Context(), o, tty, args)
	})
	o.flags(c)
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give PROG a terminal: this one, else one of 80 columns and 24 lines")
	return c
}

// exec runs one program. The signals of its time are its own to handle, so that
// the first can be the program's.
func (a *app) exec(ctx context.Context, o programFlags, tty bool, argv []string) error {
	if len(argv) == 0 {
		return outcome.Inputf("which program? write labctl exec [flags] -- PROG [ARGS]")
	}
	a.quietUnlessTerminal()
	env, err := a.env()
	if err != nil {
		return err
	}
	ctx, relay := session.NewRelay(ctx)
	defer relay.Stop()
	eo, std := o.options(session.KeepTrouble, relay), a.stdio()
	if tty {
		eo.TTY, std.Out = true, a.stdout // what a terminal gets is the program's to say
		if in, ok := a.stdin.(*os.File); ok && isTerminal(in) && isTerminal(a.stdout) {
			eo.Terminal = in
		}
	}
	_, err = session.Exec(ctx, env, eo, argv, std)
	return err
}

// quietUnlessTerminal keeps progress out of what a program writes.
func (a *app) quietUnlessTerminal() {
	if !a.progress.Terminal {
		a.progress.Quiet = true
	}
}

// stdio are labctl's own standard files, for a program of the guest. What goes to
// a terminal is cleaned.
func (a *app) stdio() session.Stdio {
	return session.Stdio{In: a.stdin, Out: cleanFor(a.stdout), Err: cleanFor(a.stderr)}
}

func cleanFor(w io.Writer) io.Writer {
	if isTerminal(w) {
		return text.NewWriter(w)
	}
	return w
}
