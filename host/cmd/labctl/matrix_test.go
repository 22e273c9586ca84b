package main

import (
	"fmt"
	"strings"
	"testing"

	"labctl/host/matrix"
	"labctl/host/outcome"
)

func TestMatrixEnd(t *testing.T) {
	cell := func(name string) matrix.Cell {
		return matrix.Cell{Kernel: "6.12", Target: "arm64", Work: matrix.Work{Kind: matrix.Lab, Name: name}}
	}
	for _, tt := range []struct {
		has  []outcome.Kind
		want int
	}{
		{[]outcome.Kind{outcome.OK, outcome.NotApplicable}, 0},
		{[]outcome.Kind{outcome.OK, outcome.CheckFailed}, 1},
		{[]outcome.Kind{outcome.HostLacks, outcome.CheckFailed}, 3},
		{[]outcome.Kind{outcome.HostLacks, outcome.Deadline}, 5},
		{[]outcome.Kind{outcome.Deadline, outcome.GuestCrashed, outcome.HostLacks}, 4},
	} {
		all := &matrix.Results{}
		for i, s := range tt.has {
			all.Results = append(all.Results, matrix.Result{Cell: cell(fmt.Sprint("P", i)), Status: s, Reason: "\x1b[2Jwhy", Record: "runs/x"})
		}
		err := matrixEnd(all, "out", matrixOutput{asJSON: true})
		if got := outcome.ExitStatus(err); got != tt.want {
			t.Errorf("a matrix with %q ends with %d, want %d", tt.has, got, tt.want)
		}
		if err == nil {
			continue
		}
		msg := err.Error()
		if strings.Contains(msg, "\x1b") || !strings.Contains(msg, "(out/runs/x)") {
			t.Errorf("its error is %q", msg)
		}
		for i, s := range tt.has {
			if strings.Contains(msg, fmt.Sprintf("6.12/arm64/P%d: %s: ", i, s)) != s.Failed() {
				t.Errorf("with %s, its error is %q", s, msg)
			}
		}
	}
}
