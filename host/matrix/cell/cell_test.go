package cell

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/vm"
)

func TestMemo(t *testing.T) {
	var m memo[int, int]
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			v, err := m.get(i%3, func() (int, error) {
				made.Add(1)
				if i%3 == 2 {
					return 0, errors.New("no")
				}
				return 10 + i%3, nil
			})
			if i%3 == 2 && err == nil || i%3 != 2 && v != 10+i%3 {
				t.Errorf("get(%d) = %d, %v", i%3, v, err)
			}
		})
	}
	wg.Wait()
	all := m.all()
	slices.Sort(all)
	if made.Load() != 3 || !slices.Equal(all, []int{10, 11}) {
		t.Errorf("made %d times, all are %v", made.Load(), all)
	}
}

func TestConclude(t *testing.T) {
	for _, tt := range []struct {
		judged outcome.Kind
		err    error
		want   outcome.Kind
		reason string
	}{
		{outcome.CheckFailed, fmt.Errorf("x: %w", &session.ReportedError{Report: &crash.Report{Kind: crash.Oops, Title: "o"}}), outcome.KernelReported, "x: kernel oops: o"},
		{"", nil, outcome.OK, ""},
		{outcome.NotApplicable, nil, outcome.NotApplicable, ""},
		{outcome.CheckFailed, outcome.Checks(1), outcome.CheckFailed, "1 checks failed"},
		{"", fmt.Errorf("x: %w", outcome.ErrTimeout), outcome.Deadline, "x: deadline: --timeout has passed"},
		{"", &vm.BootError{Phase: vm.PhaseInit, Deadline: true}, outcome.Deadline, "boot: phase init took too long after 0.0 s"},
		{outcome.OK, fmt.Errorf("x: %w", vm.ErrPoweredOff), outcome.GuestCrashed, "x: the guest powered off"},
		{"", &outcome.NotRunError{Name: "x", Errno: 2}, outcome.CannotRun, "x: not found in the guest"},
		{"", errors.New("a\n\x1b[2Jb"), outcome.Internal, "a \ufffd[2Jb"},
	} {
		res := matrix.Result{Status: tt.judged}
		if tt.want == outcome.KernelReported {
			res.Reason = "the checks"
		}
		conclude(&res, tt.err)
		if res.Status != tt.want || res.Reason != tt.reason {
			t.Errorf("judged %q, ended with %v: %q, %q; want %q, %q", tt.judged, tt.err, res.Status, res.Reason, tt.want, tt.reason)
		}
	}
}

func TestWhyFailed(t *testing.T) {
	for _, tt := range []struct {
		exit         wire.ExecResult
		kind, output string
		want         string
	}{
		{wire.ExecResult{Exited: true, Code: 3}, matrix.Program, "one\ntwo\n\n", "exit status 3: two"},
		{wire.ExecResult{Exited: true, Code: 3}, matrix.Program, "", "exit status 3"},
		{wire.ExecResult{Signaled: true, Signal: 11}, matrix.Program, "", "ended by SIGSEGV"},
		{wire.ExecResult{Exited: true, Code: 1}, matrix.GoTest, "=== RUN TestA\n--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/sub (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\n", "TestA, TestB (exit status 1)"},
		{wire.ExecResult{Exited: true, Code: 2}, matrix.GoTest, "panic: no\n", "exit status 2: panic: no"},
	} {
		if got := whyFailed(tt.exit, tt.kind, tt.output); got != tt.want {
			t.Errorf("whyFailed of %q = %q, want %q", tt.output, got, tt.want)
		}
	}
}

func TestUnfinished(t *testing.T) {
	var cells []matrix.Cell
	for i := range 4 {
		cells = append(cells, matrix.Cell{Kernel: "6.12", Target: "arm64", Work: matrix.Work{Kind: matrix.Lab, Name: fmt.Sprint("P", i)}})
	}
	todo, good := unfinished(cells, []matrix.Result{
		{Cell: cells[0], Status: outcome.OK}, {Cell: cells[1], Status: outcome.CheckFailed}, {Cell: cells[3], Status: outcome.NotApplicable},
	})
	if len(todo) != 2 || todo[0].Work.Name != "P1" || todo[1].Work.Name != "P2" || len(good) != 2 {
		t.Errorf("to do %v, good %v; want P1 and P2", todo, good)
	}
}
