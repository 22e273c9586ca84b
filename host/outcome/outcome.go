// Package outcome names how a run of labctl ended, and why: one type for run.json,
// matrix cells, reports, gradebooks and the exit status.
//
// An error says which outcome it is by a method Outcome() Kind, on itself or on an
// error that it wraps; Of finds it. So the package that makes an error classifies
// it, once, and everything above reads the same word. An error that nobody has
// classified is Internal: a defect of labctl.
package outcome

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
)

// Kind is how a run, a cell of a matrix or a graded exercise ended. It is part of
// the schemas of records.
type Kind string

const (
	OK             Kind = "ok"
	NotApplicable  Kind = "not applicable"  // this kernel or machine cannot show it
	CheckFailed    Kind = "check failed"    // the kernel did not show what it should, or a program or test failed
	Tampered       Kind = "tampered"        // the evidence was bent: no check can be believed
	KernelReported Kind = "kernel reported" // the kernel lived on, and reported a fault of its own
	CannotRun      Kind = "cannot run"      // the guest cannot execute the program
	BadInput       Kind = "bad input"       // usage, or a file that is not what it should be
	HostLacks      Kind = "host lacks"      // QEMU, disk space, a compiler, a permission
	Internal       Kind = "internal"        // nobody has classified the error: a defect of labctl
	Deadline       Kind = "deadline"
	GuestCrashed   Kind = "guest crashed" // or powered off, was reset, does not answer any more
	Interrupted    Kind = "interrupted"   // by a signal to labctl
)

// row says what an outcome means to a caller of labctl.
type row struct {
	kind Kind
	exit int // exit status of labctl
	exec int // of labctl exec and trace, whose other statuses are the program's

	verdict bool // the work came to its end, whatever that says of the kernel
}

// table has all kinds, from good to bad: of several outcomes the last one is the
// outcome of the whole. The statuses of exec are those of timeout(1), env(1) and
// shells; 70 is EX_SOFTWARE of sysexits.h. Interrupted is 128+N for signal N: see
// SignalError.
var table = []row{
	{OK, 0, 0, true},
	{NotApplicable, 0, 0, true},
	{CheckFailed, 1, 1, true},
	{Tampered, 1, 1, true},
	{KernelReported, 4, 126, true},
	{CannotRun, 2, 126, false},
	{BadInput, 2, 125, false},
	{HostLacks, 3, 125, false},
	{Internal, 70, 125, false},
	{Deadline, 5, 124, false},
	{GuestCrashed, 4, 126, false},
	{Interrupted, 130, 130, false},
}

// execNotFound is the status of exec for a program that the guest does not have.
const execNotFound = 127

// Kinds lists all outcomes from good to bad.
func Kinds() []Kind {
	kinds := make([]Kind, len(table))
	for i, r := range table {
		kinds[i] = r.kind
	}
	return kinds
}

// Known reports whether k is one of Kinds.
func (k Kind) Known() bool { return slices.Contains(Kinds(), k) }

// Failed reports whether an outcome is a failure: anything but OK and NotApplicable.
func (k Kind) Failed() bool { return k != OK && k != NotApplicable }

// Broken says that the work did not come to a verdict, as against a check that does
// not hold: what JUnit calls an error, as against a failure.
func (k Kind) Broken() bool { return !table[k.severity()].verdict }

// ExitStatus is labctl's exit status for an outcome.
func (k Kind) ExitStatus() int { return table[k.severity()].exit }

// ExecStatus is the exit status of labctl exec for an outcome.
func (k Kind) ExecStatus() int { return table[k.severity()].exec }

// severity is the row of an outcome, that of Internal for one that is not known.
func (k Kind) severity() int {
	i := slices.IndexFunc(table, func(r row) bool { return r.kind == k })
	if i < 0 {
		return Internal.severity()
	}
	return i
}

// Worst is the outcome of a whole whose parts ended as kinds; OK when there are
// none.
func Worst(kinds ...Kind) Kind {
	worst := OK
	for _, k := range kinds {
		if k.severity() > worst.severity() {
			worst = k
		}
	}
	return worst
}

// How is a finer word for an outcome. Those of a CrashError of host/vm are the
// kinds of host/crash: "panic", "oops" and so on.
type How string

const (
	NotBooted   How = "boot" // the guest did not come up
	Refused     How = "QEMU refused"
	Died        How = "QEMU died"
	PoweredOff  How = "powered off"
	Restarted   How = "restarted" // the kernel said that it restarts the machine
	Reset       How = "reset"     // without a word, as by a triple fault
	Silent      How = "agent silent"
	LinkDamaged How = "link damaged" // what came from the guest does not make sense
	NoCompile   How = "does not compile"
	NoSource    How = "no source"
	TooSlow     How = "too slow"
	TooLoud     How = "prints too much"
	ProbeFailed How = "probe failed"
	OutOfMemory How = "out of memory" // in the guest, which killed a program for it
)

// Classified is an error that knows its outcome.
type Classified interface {
	error
	Outcome() Kind
}

// Detailed is a Classified error that has a finer word for it, too.
type Detailed interface {
	Classified
	How() How
}

// Of is the outcome of a run that ended with err. The outermost error that is
// Classified decides; of errors that are joined, the worst.
func Of(err error) Kind {
	k, _ := Decisive(err)
	return k
}

// HowOf is the finer word of the error that decides, "" when it has none.
func HowOf(err error) How {
	if _, err = Decisive(err); err == nil {
		return ""
	}
	var d Detailed
	if errors.As(err, &d) {
		return d.How()
	}
	return ""
}

// Decisive is Of with the error that decides, err itself when nobody has classified
// it. What else a record says of an outcome is in that error, or in one that it
// wraps.
func Decisive(err error) (Kind, error) {
	if err == nil {
		return OK, nil
	}
	if k, ok, e := find(err); ok {
		return k, e
	}
	return Internal, err
}

// find is Decisive for errors that may not be classified.
func find(err error) (_ Kind, classified bool, decisive error) {
	if c, ok := err.(Classified); ok {
		return c.Outcome(), true, err
	}
	switch w := err.(type) {
	case interface{ WrappedErrors() []error }: // go-multierror, whose Unwrap gives one after the other
		return findWorst(w.WrappedErrors())
	case interface{ Unwrap() error }:
		if inner := w.Unwrap(); inner != nil {
			return find(inner)
		}
	case interface{ Unwrap() []error }:
		return findWorst(w.Unwrap())
	}
	k, ok := ofSystem(err)
	return k, ok, err
}

func findWorst(errs []error) (worst Kind, found bool, decisive error) {
	for _, e := range errs {
		if k, ok, e := find(e); ok && (!found || k.severity() > worst.severity()) {
			worst, found, decisive = k, true, e
		}
	}
	return worst, found, decisive
}

// ofSystem classifies errors of the standard library that have one meaning
// wherever they come from.
func ofSystem(err error) (Kind, bool) {
	switch err {
	case context.DeadlineExceeded:
		return Deadline, true
	case context.Canceled:
		return Interrupted, true
	case exec.ErrNotFound: // a program
		return HostLacks, true
	}
	if errno, ok := err.(syscall.Errno); ok && slices.Contains(hostErrnos, errno) {
		return HostLacks, true
	}
	return Internal, false
}

// hostErrnos are the errors of system calls that are the host's, whatever labctl
// was at: no space, no permission, no memory, a broken disk. Others, ENOENT first,
// mean something only to who made the call.
var hostErrnos = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.EIO,
	syscall.EACCES, syscall.EPERM, syscall.ENOMEM, syscall.EAGAIN,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOSYS, syscall.EOPNOTSUPP,
	syscall.EBADF, // labctl was started without one of its standard files
}

// classified gives an error an outcome.
type classified struct {
	kind Kind
	error
}

func (e *classified) Outcome() Kind { return e.kind }
func (e *classified) Unwrap() error { return e.error }

// As gives err the outcome k, nil if err is nil.
func As(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &classified{k, err}
}

// Default gives err the outcome k if nothing in it is classified: for calls whose
// failure means one thing unless they say otherwise.
func Default(k Kind, err error) error {
	if err == nil {
		return nil
	}
	if _, ok, _ := find(err); ok {
		return err
	}
	return &classified{k, err}
}

// OrElse is Default for all that a function returns:
//
//	defer outcome.OrElse(outcome.BadInput, &err)
func OrElse(k Kind, err *error) { *err = Default(k, *err) }

// New makes an error with an outcome, for sentinels.
func New(k Kind, text string) error { return &classified{k, errors.New(text)} }

// Errorf is fmt.Errorf with an outcome, whatever is wrapped.
func Errorf(k Kind, format string, args ...any) error {
	return &classified{k, fmt.Errorf(format, args...)}
}

// Inputf is an error in what the user gave: one line with what is wrong, where,
// and what to do.
func Inputf(format string, args ...any) error { return Errorf(BadInput, format, args...) }

// Hostf is something that this host lacks, with the remedy.
func Hostf(format string, args ...any) error { return Errorf(HostLacks, format, args...) }

// ChecksError says that labctl did its work and the kernel did not show what it
// should.
type ChecksError struct{ Failed int }

func (e *ChecksError) Error() string { return fmt.Sprintf("%d checks failed", e.Failed) }

// Outcome is CheckFailed.
func (e *ChecksError) Outcome() Kind { return CheckFailed }

// TamperedError says by what the evidence of a run was bent.
type TamperedError struct{ Seen []string }

func (e *TamperedError) Error() string {
	if len(e.Seen) == 0 {
		return "the evidence was bent"
	}
	more := ""
	if n := len(e.Seen) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return "the evidence was bent: " + e.Seen[0] + more
}

// Outcome is Tampered.
func (e *TamperedError) Outcome() Kind { return Tampered }

// Checks is a *ChecksError, or nil when failed is 0.
func Checks(failed int) error {
	if failed == 0 {
		return nil
	}
	return &ChecksError{failed}
}

// StatusError ends labctl with a status of its own choice: that of a program that
// ran to its end in the guest. There is nothing to say about it.
type StatusError struct{ Status int }

func (e *StatusError) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

// Outcome is OK: that the program fails is for its caller to know.
func (e *StatusError) Outcome() Kind { return OK }

// SignalError is a signal that ended labctl.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return "interrupted (" + e.Signal.String() + ")" }

// Outcome is Interrupted.
func (e *SignalError) Outcome() Kind { return Interrupted }

// NotRunError is a program that the guest could not start.
type NotRunError struct {
	Name  string
	Errno syscall.Errno
}

func (e *NotRunError) Error() string {
	if e.Errno == syscall.ENOENT {
		return e.Name + ": not found in the guest"
	}
	return fmt.Sprintf("%s: the guest cannot execute it: %v", e.Name, e.Errno)
}

// Outcome is CannotRun.
func (e *NotRunError) Outcome() Kind { return CannotRun }

// ErrTimeout is the cause of a context that a --timeout ended.
var ErrTimeout = New(Deadline, "deadline: --timeout has passed")

// Quiet says that err ends labctl without a message.
func Quiet(err error) bool {
	var status *StatusError
	return errors.As(err, &status)
}

// ExitStatus is the exit status of a command that ended with err.
func ExitStatus(err error) int { return exitStatus(err, Kind.ExitStatus) }

// ExecStatus is ExitStatus for commands whose status is a program's.
func ExecStatus(err error) int {
	var notRun *NotRunError
	if Of(err) == CannotRun && errors.As(err, &notRun) && notRun.Errno == syscall.ENOENT {
		return execNotFound
	}
	return exitStatus(err, Kind.ExecStatus)
}

func exitStatus(err error, of func(Kind) int) int {
	var status *StatusError
	var signal *SignalError
	switch k := Of(err); {
	case errors.As(err, &status):
		return status.Status
	case k == Interrupted && errors.As(err, &signal):
		return 128 + int(signal.Signal)
	default:
		return of(k)
	}
}
