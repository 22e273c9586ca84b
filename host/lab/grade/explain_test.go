package grade

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/host/crash"
	"labctl/host/image/initramfs"
	"labctl/host/lab/compile"
	"labctl/host/lab/runner"
	"labctl/host/outcome"
	"labctl/host/vm"
)

// TestExplain: what is a learner's doing is a grade, all else an error.
func TestExplain(t *testing.T) {
	died := &vm.CrashError{Report: &crash.Report{Kind: crash.Oops, Title: "x"}}
	late := &runner.DeadlineError{What: "step program", After: time.Second}
	for _, tt := range []struct {
		name string
		err  error
		of   []outcome.Kind
		want Grade // zero: the error comes back
	}{
		{"no program", &compile.Error{Where: "mine", Output: "x.go:1: no\nx.go:2: no"}, builds, Grade{Outcome: outcome.BadInput, How: outcome.NoCompile, Message: "x.go:1: no\nx.go:2: no"}},
		{"no compiler", &initramfs.MissingGoError{Reason: "none"}, builds, Grade{}},
		{"a build without an end", outcome.Errorf(outcome.Deadline, "too long"), builds, Grade{Outcome: outcome.Deadline, Message: "too long"}},
		{"a program without an end", &vm.DeadlineError{Cause: late, After: time.Second}, runs, Grade{
			Outcome: outcome.Deadline, How: outcome.TooSlow, Message: "step program: it did not end in 1s (the guest is up for 1.0 s)",
		}},
		{"a crash", fmt.Errorf("x: %w", died), runs, Grade{Outcome: outcome.GuestCrashed, How: "oops", Message: "kernel oops: x"}},
		{"too much", &runner.FloodError{Step: "program"}, runs, Grade{Outcome: outcome.CheckFailed, How: outcome.TooLoud, Message: "step program: it prints more than 1024 KB"}},
		{"a kernel that is not there", outcome.Inputf("--kernel: no"), runs, Grade{}},
		{"a full disk", outcome.Hostf("no space"), runs, Grade{}},
		{"a defect", errors.New("x"), runs, Grade{}},
	} {
		var g Grade
		err := g.explain(t.Context(), tt.err, tt.of)
		if back := tt.want.Outcome == ""; !cmp.Equal(g, tt.want) || back != (err == tt.err) {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, g, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(outcome.Inputf("stop"))
	var g Grade
	if err := g.explain(ctx, died, runs); err != context.Cause(ctx) || !cmp.Equal(g, Grade{}) {
		t.Errorf("after its end: %+v, %v; want the context's cause", g, err)
	}
}
