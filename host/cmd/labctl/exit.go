package main

import (
	"errors"
	"fmt"
	"syscall"

	"labctl/host/crash"
	"labctl/host/image/initramfs"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/vm"
	"labctl/host/vm/qemu"
)

// Exit statuses. They are part of labctl's interface.
const (
	exitOK       = 0
	exitCheck    = 1 // a check fails
	exitInput    = 2 // usage, and input that is not what it should be
	exitHost     = 3 // this host lacks something
	exitCrash    = 4 // the guest crashed or went away
	exitDeadline = 5
)

// checkError says that labctl did its work and the kernel did not show what it
// should.
type checkError struct{ failed int }

func (e checkError) Error() string { return fmt.Sprintf("%d checks failed", e.failed) }

// usageError is a command line that cannot be.
type usageError struct{ error }

// statusError ends labctl with a guest program's own status, and no message.
type statusError struct{ code int }

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Exit statuses of exec, beside the program's own: those of timeout(1), env(1)
// and shells.
const (
	execDeadline = 124
	execFailed   = 125 // labctl itself
	execCrash    = 126 // or the guest cannot execute the program
	execNotFound = 127
)

// execError is an end of exec, whose statuses are others.
type execError struct{ error }

func (e execError) Unwrap() error { return e.error }

// notRunError is a program that the guest could not start.
type notRunError struct {
	name  string
	errno syscall.Errno
}

func (e notRunError) Error() string {
	if e.errno == syscall.ENOENT {
		return e.name + ": not found in the guest"
	}
	return fmt.Sprintf("%s: the guest cannot execute it: %v", e.name, e.errno)
}

// execCode is exitCode for exec.
func execCode(err error) int {
	var (
		status statusError
		signal interrupted
		notRun notRunError
	)
	switch {
	case errors.As(err, &status), errors.As(err, &signal):
		return exitCode(err)
	case errors.As(err, &notRun) && notRun.errno == syscall.ENOENT:
		return execNotFound
	case errors.As(err, &notRun):
		return execCrash
	}
	switch exitCode(err) {
	case exitCrash:
		return execCrash
	case exitDeadline:
		return execDeadline
	}
	return execFailed
}

// exitCode is the one place where outcomes become exit statuses.
func exitCode(err error) int {
	var (
		exec     execError
		status   statusError
		check    checkError
		usage    usageError
		signal   interrupted
		boot     *vm.BootError
		crashed  *vm.CrashError
		late     *vm.DeadlineError
		silent   *vm.AgentError
		log      *vm.LogError
		noQEMU   *qemu.NotFoundError
		qemuExit *qemu.ExitError
		noGo     *initramfs.MissingGoError
		corrupt  *kernel.CorruptError
		many     matrixError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &many):
		return matrixCode(many.status)
	case errors.As(err, &exec):
		return execCode(exec.error)
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &signal):
		return 128 + int(signal.sig)
	case errors.As(err, &check):
		return exitCheck
	case errors.As(err, &crashed), errors.Is(err, vm.ErrPoweredOff), errors.Is(err, vm.ErrReset), errors.As(err, &silent):
		return exitCrash
	case errors.As(err, &boot) && boot.Deadline, errors.As(err, &late), errors.Is(err, errDeadline):
		return exitDeadline
	case errors.As(err, &usage), machine.IsInput(err), errors.As(err, &corrupt),
		errors.Is(err, kernel.ErrNotCached), errors.Is(err, kernel.ErrNotKernel):
		return exitInput
	case errors.As(err, &noQEMU), errors.As(err, &qemuExit), errors.As(err, &noGo),
		errors.Is(err, kernel.ErrHostLacks), errors.As(err, &log), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitHost
	case errors.As(err, &boot): // a guest that came up as something else
		return exitCrash
	}
	return exitInput
}

// matrixCode is the exit status of a matrix by the worst of its cells.
func matrixCode(worst matrix.Status) int {
	switch worst {
	case matrix.Crash:
		return exitCrash
	case matrix.Deadline:
		return exitDeadline
	case matrix.Error:
		return exitHost
	case matrix.Fail:
		return exitCheck
	}
	return exitOK
}

// finish reports err, once, and gives the exit status.
func (a *app) finish(err error) int {
	var status statusError
	if err != nil && !errors.As(err, &status) {
		a.report(err)
	}
	return exitCode(err)
}

// report prints an error: one line, and for a guest that died or hung where, and
// what its console said.
func (a *app) report(err error) {
	fmt.Fprintf(a.stderr, "labctl: %v\n", err)
	var boot *vm.BootError
	var late *vm.DeadlineError
	var crashed *vm.CrashError
	switch {
	case errors.As(err, &crashed):
		a.showCrash(crashed.Report, true)
		a.showConsole("the console from the first bad line", crashed.Report.Lines, crashed.Log)
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
	if n := len(s.Hangs); n > 0 {
		a.showCrash(s.Hangs[n-1], false)
	}
	a.showConsole("the console's last lines", s.Tail, s.Log)
}

// showCrash prints what the kernel reported, with its task and stack.
func (a *app) showCrash(r *crash.Report, untitled bool) {
	// A standard error that is gone takes no word of that either.
	_ = report.Crash(a.stderr, record.NewCrash(r), report.Options{Style: report.TRACE32, Untitled: untitled})
}

func (a *app) showConsole(what string, lines []string, log string) {
	if len(lines) > 0 && !(len(lines) == 1 && lines[0] == "") {
		fmt.Fprintf(a.stderr, "%s:\n", what)
		for _, l := range lines {
			fmt.Fprintf(a.stderr, "  | %s\n", l)
		}
	} else {
		fmt.Fprintln(a.stderr, "the console said nothing")
	}
	if log != "" {
		fmt.Fprintf(a.stderr, "the whole console: %s\n", log)
	}
}
