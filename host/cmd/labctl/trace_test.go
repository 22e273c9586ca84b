package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"labctl/host/trace/plan"
)

// TestTraceLimit: a deadline ends the program first, so that its trace is had,
// and the guest when that does not help or there is no program yet.
func TestTraceLimit(t *testing.T) {
	guest, end := context.WithCancelCause(t.Context())
	l := &traceLimit{end: end}
	l.passed()
	if !errors.Is(context.Cause(guest), errDeadline) {
		t.Errorf("before the program: the guest's end is %v, want the deadline", context.Cause(guest))
	}

	guest, end = context.WithCancelCause(t.Context())
	l = &traceLimit{end: end}
	program, cancel := l.of(guest, time.Hour)
	defer cancel(nil)
	l.passed()
	if !errors.Is(context.Cause(program), errDeadline) || guest.Err() != nil {
		t.Errorf("under the program: its end is %v, the guest's %v; want the deadline, none", context.Cause(program), guest.Err())
	}

	guest, end = context.WithCancelCause(t.Context())
	l = &traceLimit{end: end}
	_, cancel = l.of(guest, 0)
	defer cancel(nil)
	l.passed()
	<-guest.Done()
	if !errors.Is(context.Cause(guest), errDeadline) {
		t.Errorf("after the grace: the guest's end is %v, want the deadline", context.Cause(guest))
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"1": 1, "512K": 512 << 10, "64M": 64 << 20, "2g": 2 << 30, "4MB": 4 << 20} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("Set(%q) = %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "0", "1.5M", "4Q", "MK", "9223372036854775807K", "0x10"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) = %d, want an error", text, s)
		}
	}
}

func TestEventFlags(t *testing.T) {
	var e eventFlags
	f := (*filterFlag)(&e)
	if err := f.Set("x"); err == nil {
		t.Error("a filter before any event: no error")
	}
	for _, step := range []error{e.Set("a:b,c"), f.Set("pid == 1"), e.Set("d"), f.Set("x > 2")} {
		if step != nil {
			t.Fatal(step)
		}
	}
	want := []plan.Event{{Name: "a:b"}, {Name: "c", Filter: "pid == 1"}, {Name: "d", Filter: "x > 2"}}
	for i, w := range want {
		if i >= len(e) || e[i] != w {
			t.Fatalf("events %v, want %v", e, want)
		}
	}
	for _, bad := range []string{"again", "", "a\nb"} {
		if err := f.Set(bad); err == nil {
			t.Errorf("filter %q: no error", bad)
		}
	}
}

func TestPlainName(t *testing.T) {
	for prog, want := range map[string]string{"./cmd/x": "x", "/bin/ls": "ls", "a b;c": "a-b-c", "...": "program", "example.com/x/...": "program", "名": "program"} {
		if got := plainName(prog); got != want {
			t.Errorf("plainName(%q) = %q, want %q", prog, got, want)
		}
	}
}
