package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/outcome"
)

// TestTraceLimit: a deadline ends the program first, so that its trace is had,
// and the guest when that does not help or there is no program yet.
func TestTraceLimit(t *testing.T) {
	guest, end := context.WithCancelCause(t.Context())
	l := &traceLimit{end: end}
	l.passed()
	if !errors.Is(context.Cause(guest), outcome.ErrTimeout) {
		t.Errorf("before the program: the guest's end is %v, want the deadline", context.Cause(guest))
	}

	guest, end = context.WithCancelCause(t.Context())
	l = &traceLimit{end: end}
	program, cancel := l.of(guest, time.Hour)
	defer cancel(nil)
	l.passed()
	if !errors.Is(context.Cause(program), outcome.ErrTimeout) || guest.Err() != nil {
		t.Errorf("under the program: its end is %v, the guest's %v; want the deadline, none", context.Cause(program), guest.Err())
	}

	guest, end = context.WithCancelCause(t.Context())
	l = &traceLimit{end: end}
	_, cancel = l.of(guest, 0)
	defer cancel(nil)
	l.passed()
	<-guest.Done()
	if !errors.Is(context.Cause(guest), outcome.ErrTimeout) {
		t.Errorf("after the grace: the guest's end is %v, want the deadline", context.Cause(guest))
	}
}

// TestNoKill: a program that ended otherwise is not asked about.
func TestNoKill(t *testing.T) {
	for _, r := range []wire.ExecResult{{Exited: true}, {Exited: true, Code: 9}, {Signaled: true, Signal: 15}} {
		if err := KilledByOOM(nil, r); err != nil {
			t.Errorf("KilledByOOM(%+v) = %v, want nil", r, err)
		}
	}
}

func TestPlainName(t *testing.T) {
	for prog, want := range map[string]string{"./cmd/x": "x", "/bin/ls": "ls", "a b;c": "a-b-c", "...": "program", "example.com/x/...": "program", "名": "program"} {
		if got := PlainName(prog); got != want {
			t.Errorf("PlainName(%q) = %q, want %q", prog, got, want)
		}
	}
}
