package plan

import (
	"fmt"
	"testing"

	"labctl/host/matrix"
)

func TestCosts(t *testing.T) {
	c := func(kernel, target, work string) matrix.Cell {
		return matrix.Cell{Kernel: kernel, Target: target, Work: matrix.Work{Kind: matrix.Lab, Name: work}}
	}
	boots := func(w matrix.Work) bool { return w.Name == "K2" }
	cells := []matrix.Cell{c("6.1", "amd64", "P1"), c("6.1", "amd64", "K2"), c("6.1", "raspi2b", "P1"), c("6.12", "amd64", "P9")}
	got := Costs(cells, boots, nil)
	if !(got[0] < got[1] && got[1] < got[2] && got[0] == got[3] && got[0] > 0) {
		t.Errorf("built-in costs %v; want a warm cell below one that boots, and that below a board's", got)
	}
	ran := func(cell matrix.Cell, cpu, wall float64) matrix.Result {
		return matrix.Result{Cell: cell, CPUSeconds: cpu, Seconds: wall}
	}
	former := &matrix.Results{Results: []matrix.Result{
		ran(c("6.1", "amd64", "P1"), 7, 99),                                       // itself
		ran(c("5.10", "amd64", "K2"), 20, 1), ran(c("7.2", "amd64", "K2"), 40, 1), // on other kernels
		ran(c("6.1", "amd64", "P2"), 0, 5), // before CPU time was counted
	}}
	// P9 is worth a P1, of which the former ones on the target took 72 s for what is
	// usually 2+2+2·8 s.
	unit := 72. / float64(got[0]*2+got[1]*2) * 1000
	if got, want := fmt.Sprint(Costs(cells, boots, former)), fmt.Sprint([]int{7000, 30000, int(unit * float64(got[2])), int(unit * float64(got[3]))}); got != want {
		t.Errorf("costs by a former run: %s, want %s", got, want)
	}
	// Costs that no run can have are bounded, as matrix.json wants them.
	former.Results[0].CPUSeconds = 1e12
	if got := Costs(cells[:1], boots, former)[0]; got != matrix.MaxCost {
		t.Errorf("cost of an endless cell = %d, want %d", got, matrix.MaxCost)
	}
}

// BenchmarkCosts plans 10,000 cells with the costs of a former run, and divides them.
func BenchmarkCosts(b *testing.B) {
	k := known
	k.Labs = nil
	for i := range 1000 {
		k.Labs = append(k.Labs, fmt.Sprintf("P%d", i))
	}
	in := []byte("kernels: [5.10, 6.1, 6.12, 7.2, debian:trixie]\ntargets: [amd64, raspi2b]\nwork: [{labs: 'P*'}]\n")
	former := &matrix.Results{}
	for b.Loop() {
		s, err := Parse(in, "p.yaml")
		if err != nil {
			b.Fatal(err)
		}
		cells, err := s.Cells(k)
		if err != nil || len(cells) != 10_000 {
			b.Fatal(len(cells), err)
		}
		if former.Results == nil {
			for i, c := range cells {
				former.Results = append(former.Results, matrix.Result{Cell: c, CPUSeconds: float64(1 + i%60)})
			}
		}
		costs := Costs(cells, func(matrix.Work) bool { return false }, former)
		if parts := matrix.Shards(cells, costs, 100); len(parts) != 100 {
			b.Fatal(len(parts))
		}
	}
}
