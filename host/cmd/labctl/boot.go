package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/image/program"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
)

type bootOptions struct {
	spec    machine.Spec
	job     program.JobOptions
	line    string
	console bool
	out     string
	timeout time.Duration
	failOn  record.FailOn
}

func (a *app) bootCmd() *cobra.Command {
	var o bootOptions
	c := &cobra.Command{
		Use:   "boot",
		Short: "Boot a kernel to a shell",
		Long: `Boot a kernel and open a shell in it, with the commands of busybox and of u-root. On
a terminal the shell is interactive, with line editing, history, completion by Tab and
jobs (Ctrl-Z, fg, bg); exit or Ctrl-D leaves, Ctrl-A x from anywhere, Ctrl-A a sends
Ctrl-A. Elsewhere it reads its commands from standard input. --cmd runs one line.

Names of functions and events that a command writes to tracefs, and that this kernel
has by another name, are changed, which is said: echo _do_fork > set_ftrace_filter.

The exit status is the shell's, 128+N if signal N ended it. If the shell could not
be run to its end it is labctl's own: 2 bad input, 3 this host lacks
something, 4 the guest crashed or its kernel reported what --fail-on names, 5
deadline. Whatever the kernel reports is a line on standard error.`,
		Example: `  labctl boot --arch arm64
  labctl boot --arch arm64 --kernel 5.10 --cmd 'cat /proc/version'
  labctl boot --module ext4,loop --file disk.img --get disk.img
  echo 'uname -a' | labctl boot --board raspi3b`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.boot(c.Context(), o, c.Flags().Changed("cmd"))
		},
	}
	machineFlags(c, &o.spec)
	jobFlags(c, &o.job)
	f := c.Flags()
	f.StringVar(&o.line, "cmd", "", "run this line in the guest's shell and leave with its exit status")
	f.BoolVar(&o.console, "console", false, "show the kernel's console on standard error")
	f.StringVar(&o.out, "out", "", "keep a run record in this directory: run.json, console.log, qemu.txt")
	timeFlag(f, &o.timeout, "timeout", "end the guest after this long, boot included")
	failOnFlag(c, &o.failOn)
	return c
}

func (a *app) boot(ctx context.Context, o bootOptions, oneLine bool) error {
	env, err := a.env()
	if err != nil {
		return err
	}
	so := session.ShellOptions{
		Options:    session.Options{Name: "boot", Out: o.out, Keep: session.KeepTrouble, Spec: o.spec, Timeout: o.timeout, FailOn: o.failOn},
		JobOptions: o.job,
		Line:       o.line, OneLine: oneLine,
	}
	if o.console {
		so.Console = text.NewWriter(a.stderr)
	}
	return a.shell(ctx, env, so)
}

// shell opens a shell on the terminal, or runs what standard input has.
func (a *app) shell(ctx context.Context, env session.Env, o session.ShellOptions) error {
	std := a.stdio()
	if in, ok := a.stdin.(*os.File); ok && isTerminal(in) {
		std.In = nil
		if isTerminal(a.stdout) {
			o.Terminal, std.Out = in, a.stdout
		}
	}
	_, err := session.Shell(ctx, env, o, std)
	return err
}
