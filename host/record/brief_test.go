package record

import (
	"strings"
	"testing"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/stack"
)

func TestBrief(t *testing.T) {
	s := &stack.Stack{Frames: []stack.Frame{{Name: "f.isra.0"}, {Name: "g"}}}
	for _, tt := range []struct {
		name string
		c    Crash
		want string
	}{
		{"an oops", Crash{Kind: "oops", Title: "BUG: x", Task: &Task{Comm: "a b", PID: 7, CPU: 1}, Stack: s}, "kernel oops: BUG: x (task a b:7, in f.isra.0)"},
		{"a title alone", Crash{Kind: "halt", Title: "reboot: System halted"}, "kernel halt: reboot: System halted"},
		{"a CPU alone", Crash{Kind: "hard lockup", Title: "x", Task: &Task{CPU: 3}, Stack: s}, "kernel hard lockup: x (in f.isra.0)"},
		{"again and again", Crash{Kind: "stall", Title: "x", Count: 3}, "kernel stall: x (3 times)"},
		{"a victim", Crash{Kind: "oom", Title: "x", Task: &Task{Comm: "a", PID: 7}, Victim: &Task{Comm: "b", PID: 8}, Stack: s}, "kernel oom: x (task b:8)"},
		{"hostile", Crash{Kind: "warning", Title: "a\nlabctl: b\x1b[2J", Task: &Task{Comm: "\x1b", PID: 1}}, "kernel warning: a labctl: b\ufffd[2J (task \ufffd:1)"},
	} {
		if got := tt.c.Brief().String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	long := Crash{Kind: "warning", Title: strings.Repeat("x", 5000)}
	if b := long.Brief(); len(b.Title) > maxBrief+len("…") {
		t.Errorf("a title of %d bytes is %d", len(long.Title), len(b.Title))
	}
}

func TestFailOn(t *testing.T) {
	kinds := []crash.Kind{crash.Warning, crash.OOM, crash.HungTask, crash.Stall, crash.SoftLockup, crash.HardLockup, "a kind to come", crash.Oops, crash.Panic}
	for _, tt := range []struct {
		value FailOn
		from  int // the first of kinds that fails
	}{
		{"warn", 0}, {"bug", 2}, {"oops", 7}, {"", 7}, {"none", len(kinds)},
	} {
		for i, k := range kinds {
			if got, want := tt.value.Fails(k), i >= tt.from; got != want {
				t.Errorf("--fail-on %q: a report of kind %q fails: %t, want %t", tt.value, k, got, want)
			}
		}
	}
	var f FailOn
	if err := f.Set("warn"); err != nil || f != FailOnWarn || f.String() != "warn" {
		t.Errorf("Set(warn) = %v, %q", err, f)
	}
	if err := f.Set("opps"); err == nil || outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), `"opps" is not known, did you mean oops?`) || f != FailOnWarn {
		t.Errorf("Set(opps) = %v (%s), %q; want bad input with the known ones", err, outcome.Of(err), f)
	}
}
