package plan

import (
	"cmp"

	"labctl/host/matrix"
	"labctl/host/targets"
)

// Costs are what cells are thought to take, in milliseconds of a CPU's time, for
// matrix.Shards. Of a cell that a former run had, that is what it took there; of
// others, what the same work took on the same target with other kernels, else what is
// usual on the target, in proportion. boots reports whether work has a machine of its
// own that is booted for it. former may be nil.
func Costs(cells []matrix.Cell, boots func(matrix.Work) bool, former *matrix.Results) []int {
	usual := func(c matrix.Cell) float64 {
		t, _ := targets.Find(c.Target) // the plan has looked
		if boots(c.Work) || !t.Snapshot {
			return cmp.Or(t.BootSeconds, 1) + t.WarmSeconds
		}
		return cmp.Or(t.WarmSeconds, 1)
	}
	var all, onTarget, onKernels = map[string]*sum{}, map[string]*sum{}, map[string]*sum{}
	ids := map[string]float64{}
	if former != nil {
		for _, r := range former.Results {
			took := cmp.Or(r.CPUSeconds, r.Seconds)
			ids[r.Cell.ID()] = took
			add(onKernels, others(r.Cell), took, 1)
			add(onTarget, r.Cell.Target, took, usual(r.Cell))
			add(all, "", took, usual(r.Cell))
		}
	}
	costs := make([]int, len(cells))
	for i, c := range cells {
		took, ok := ids[c.ID()]
		if !ok {
			took = usual(c)
			switch {
			case onKernels[others(c)] != nil:
				took = onKernels[others(c)].ratio()
			case onTarget[c.Target] != nil:
				took *= onTarget[c.Target].ratio()
			case all[""] != nil:
				took *= all[""].ratio()
			}
		}
		costs[i] = int(min(max(1, took*1000), matrix.MaxCost))
	}
	return costs
}

// others is what a cell has in common with those of other kernels.
func others(c matrix.Cell) string {
	c.Kernel = "*"
	return c.ID()
}

// sum adds up what cells took, and what they were worth.
type sum struct{ took, worth float64 }

func (s *sum) ratio() float64 { return s.took / s.worth }

func add(sums map[string]*sum, key string, took, worth float64) {
	if sums[key] == nil {
		sums[key] = &sum{}
	}
	sums[key].took += took
	sums[key].worth += worth
}
