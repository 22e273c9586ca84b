package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/scratch"
	"labctl/host/session"
	"labctl/host/vm"
)

// programCommand makes c a command that passes a guest program's exit status on, whose
// own failures have statuses that a program seldom has, and which handles signals
// itself.
func (a *app) programCommand(c *cobra.Command, run func(c *cobra.Command, args []string) error) {
	c.RunE = func(c *cobra.Command, args []string) error {
		a.runsProgram = true
		return run(c, args)
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		a.runsProgram = true
		return badFlag(c, err)
	})
}

func badFlag(c *cobra.Command, err error) error {
	return outcome.Inputf("%w (see %s --help)", err, c.CommandPath())
}

// finish reports err, once, and returns the exit status.
func (a *app) finish(err error) int {
	if err != nil && !outcome.Quiet(err) {
		a.report(err)
	}
	if a.runsProgram {
		return outcome.ExecStatus(err)
	}
	return outcome.ExitStatus(err)
}

// report prints an error: one line, and for a guest that died or hung where, and
// what its console said.
func (a *app) report(err error) {
	a.progress.Above(func() { a.print(err) })
}

func (a *app) print(err error) {
	var boot *vm.BootError
	var late *vm.DeadlineError
	var crashed *vm.CrashError
	var dead *vm.DeadTaskError
	var reported *session.ReportedError
	switch {
	case outcome.Of(err) == outcome.Internal:
		fmt.Fprintf(a.stderr, "labctl: internal error, a defect of labctl: %v\n", err)
	case errors.As(err, &reported): // what was reported is said already
		fmt.Fprintf(a.stderr, "labctl: %s\n", reported.Short())
	case errors.As(err, &dead):
		fmt.Fprintf(a.stderr, "labctl: %s\n", dead.Short())
	case scratch.Full(err) != nil: // all that did not find room, in one line
		line, full := strings.ReplaceAll(err.Error(), "\n", "; "), scratch.Full(err).Error()
		if !strings.Contains(line, full) {
			line += ": " + full
		}
		fmt.Fprintf(a.stderr, "labctl: %s\n", line)
	default:
		fmt.Fprintf(a.stderr, "labctl: %v\n", err)
	}
	switch {
	case errors.As(err, &reported):
		a.showCrash(reported.Report, true)
	case errors.As(err, &dead):
		a.showCrash(dead.Report, true)
	case errors.As(err, &crashed):
		a.showCrash(crashed.Report, true)
		what := "the console from the first bad line"
		if crashed.Hidden {
			what = "the kernel's log from the first bad line"
		}
		a.showConsole(what, crashed.Report.Lines, crashed.Log)
		if crashed.Tasks != "" {
			fmt.Fprintf(a.stderr, "all tasks: %s\n", crashed.Tasks)
		}
	case errors.As(err, &late):
		a.showState(late.State)
	case errors.As(err, &boot):
		a.showState(boot.State)
	}
}

// showState prints what was seen of a guest that did not end.
func (a *app) showState(s vm.State) {
	for _, c := range s.CPUs {
		fmt.Fprintf(a.stderr, "  %s\n", c)
	}
	if s.File != "" {
		fmt.Fprintf(a.stderr, "all registers: %s\n", s.File)
	}
	if s.Tasks != "" {
		fmt.Fprintf(a.stderr, "all tasks: %s\n", s.Tasks)
	}
	for i, r := range s.Reports {
		if r.Kind == crash.Oops || i == len(s.Reports)-1 { // of hangs the last one
			a.showCrash(r, false)
		}
	}
	tail := s.Tail
	if slices.ContainsFunc(s.Reports, func(r *crash.Report) bool { return r.Kind == crash.Oops }) {
		tail = nil // most of it the registers of what was shown
	}
	a.showConsole("the console's last lines", tail, s.Log)
}

// showCrash prints what the kernel reported, with its task and stack.
func (a *app) showCrash(r *crash.Report, untitled bool) {
	// If standard error is gone there is nowhere to report that to.
	_ = report.Crash(a.stderr, record.NewCrash(r), report.Options{Style: report.TRACE32, Untitled: untitled})
}

func (a *app) showConsole(what string, lines []string, log string) {
	if len(lines) > 0 && !(len(lines) == 1 && lines[0] == "") {
		fmt.Fprintf(a.stderr, "%s:\n", what)
		for _, l := range lines {
			fmt.Fprintf(a.stderr, "  | %s\n", l)
		}
	} else if lines != nil {
		fmt.Fprintln(a.stderr, "the console said nothing")
	}
	if log != "" {
		fmt.Fprintf(a.stderr, "the whole console: %s\n", log)
	}
}
