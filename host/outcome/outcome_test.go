package outcome

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/hashicorp/go-multierror"
)

func TestOf(t *testing.T) {
	crash := New(GuestCrashed, "panic")
	many := multierror.Append(nil, fmt.Errorf("lab P1: %w", Inputf("bad")), fmt.Errorf("lab P2: %w", crash))
	for _, tt := range []struct {
		name       string
		err        error
		want       Kind
		exit, exec int
	}{
		{"none", nil, OK, 0, 0},
		{"unclassified", errors.New("x"), Internal, 70, 125},
		{"a program's own status", fmt.Errorf("x: %w", &StatusError{7}), OK, 7, 7},
		{"checks", Checks(2), CheckFailed, 1, 1},
		{"bent evidence", fmt.Errorf("lab P1: %w", &TamperedError{[]string{"tracing_on"}}), Tampered, 1, 1},
		{"no checks", Checks(0), OK, 0, 0},
		{"input", fmt.Errorf("read plan: %w", Inputf("line 3")), BadInput, 2, 125},
		{"host", Hostf("no QEMU"), HostLacks, 3, 125},
		{"deadline", ErrTimeout, Deadline, 5, 124},
		{"a context's deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), Deadline, 5, 124},
		{"crash", crash, GuestCrashed, 4, 126},
		{"a signal", &SignalError{syscall.SIGTERM}, Interrupted, 143, 143},
		{"cancelled by nobody", context.Canceled, Interrupted, 130, 130},
		{"not found in the guest", &NotRunError{"x", syscall.ENOENT}, CannotRun, 2, 127},
		{"not executable in the guest", &NotRunError{"x", syscall.ENOEXEC}, CannotRun, 2, 126},
		{"disk full", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, HostLacks, 3, 125},
		{"no permission", &os.SyscallError{Syscall: "mkdir", Err: syscall.EACCES}, HostLacks, 3, 125},
		{"a file that is not there", &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, Internal, 70, 125},
		{"the outermost decides", As(GuestCrashed, fmt.Errorf("agent: %w", ErrTimeout)), GuestCrashed, 4, 126},
		{"the worst of joined ones", errors.Join(Hostf("disk"), crash, errors.New("x")), GuestCrashed, 4, 126},
		{"joined, one not classified", errors.Join(errors.New("x"), Inputf("y")), BadInput, 2, 125},
		{"of several", many, GuestCrashed, 4, 126},
		{"two wrapped", fmt.Errorf("%w: %w", crash, ErrTimeout), GuestCrashed, 4, 126},
		{"a default", Default(BadInput, errors.New("x")), BadInput, 2, 125},
		{"a default that is not needed", Default(BadInput, crash), GuestCrashed, 4, 126},
	} {
		if got := Of(tt.err); got != tt.want {
			t.Errorf("%s: Of(%v) = %q, want %q", tt.name, tt.err, got, tt.want)
		}
		if got := ExitStatus(tt.err); got != tt.exit {
			t.Errorf("%s: ExitStatus(%v) = %d, want %d", tt.name, tt.err, got, tt.exit)
		}
		if got := ExecStatus(tt.err); got != tt.exec {
			t.Errorf("%s: ExecStatus(%v) = %d, want %d", tt.name, tt.err, got, tt.exec)
		}
	}
}

func TestNil(t *testing.T) {
	if err := As(BadInput, nil); err != nil {
		t.Errorf("As(nil) = %v, want nil", err)
	}
	if err := Default(BadInput, nil); err != nil {
		t.Errorf("Default(nil) = %v, want nil", err)
	}
}

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		kinds []Kind
		want  Kind
	}{
		{nil, OK},
		{[]Kind{NotApplicable, OK}, NotApplicable},
		{[]Kind{CheckFailed, HostLacks, OK}, HostLacks},
		{[]Kind{Deadline, GuestCrashed, CheckFailed}, GuestCrashed},
		{[]Kind{CheckFailed, "nonsense"}, "nonsense"},
	} {
		if got := Worst(tt.kinds...); got != tt.want {
			t.Errorf("Worst(%v) = %q, want %q", tt.kinds, got, tt.want)
		}
	}
	if Kind("nonsense").Known() || !CheckFailed.Known() {
		t.Error("Known tells nonsense from check failed wrongly")
	}
	for _, k := range Kinds() {
		if k.Failed() != (k.ExitStatus() != 0) {
			t.Errorf("%q: Failed is %v, and the exit status %d", k, k.Failed(), k.ExitStatus())
		}
	}
}
