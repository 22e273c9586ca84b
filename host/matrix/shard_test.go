package matrix

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// measured are the CPU seconds of one run of this matrix on an emulating host, by kernel and
// target, in the order of measuredLabs. The first on amd64 and arm64 made the template, K2
// boots a machine of its own the first time, and boards start from the kernel on each time.
var (
	measuredLabs = []string{"P1", "P9", "C1", "K1", "K2"}
	measured     = map[string]map[string][]float64{
		"6.1": {
			"amd64":   {9.5, 3.4, 2.6, 4.4, 10.4},
			"arm64":   {7.9, 2.7, 2.0, 4.4, 4.7},
			"raspi3b": {6.7, 7.6, 6.1, 9.6, 13.0},
			"raspi2b": {28.5, 32.8, 31.6, 34.0, 28.7},
		},
		"6.12": {
			"amd64":   {2.8, 3.0, 2.4, 5.7, 4.1},
			"arm64":   {2.8, 2.6, 2.2, 3.5, 3.3},
			"raspi3b": {9.6, 10.6, 10.4, 10.5, 7.9},
			"raspi2b": {34.9, 39.0, 32.8, 33.6, 37.4},
		},
	}
)

// boards is a plan of 40 cells with boards, and its costs.
func boards() (plan []Cell, costs []int) {
	for _, k := range []string{"6.1", "6.12"} {
		for _, t := range []string{"amd64", "arm64", "raspi3b", "raspi2b"} {
			for i, l := range measuredLabs {
				plan = append(plan, Cell{Kernel: k, Target: t, Work: Work{Kind: Lab, Name: l}})
				costs = append(costs, int(measured[k][t][i]*1000))
			}
		}
	}
	return plan, costs
}

// slowest is the cost of the heaviest part over the mean.
func slowest(parts [][]int, costs []int) float64 {
	total := 0
	for _, c := range costs {
		total += c
	}
	return float64(heaviest(parts, costs)*len(parts)) / float64(total)
}

func TestShardsBalance(t *testing.T) {
	plan, costs := boards()
	for of := 1; of <= 5; of++ {
		parts := Shards(plan, costs, of)
		byOrder := slowest(Shards(plan, nil, of), costs)
		if got := slowest(parts, costs); got > 1.15 {
			t.Errorf("%d shards: the slowest takes %.2f times the mean; want at most 1.15", of, got)
		} else if got > byOrder || of > 2 && got == byOrder {
			t.Errorf("%d shards: the slowest takes %.2f times the mean, by order it takes %.2f", of, got, byOrder)
		}
		// The work of a warm machine stays together, however much is moved about.
		for _, k := range []string{"6.1", "6.12"} {
			on := map[int]bool{}
			for s, part := range parts {
				for _, i := range part {
					if plan[i].Kernel == k && plan[i].Target == "amd64" {
						on[s] = true
					}
				}
			}
			if len(on) > 3 {
				t.Errorf("%d shards: %s on amd64 is in %d of them", of, k, len(on))
			}
		}
	}
}

// TestShardsWhole: whatever the costs, each cell is in one part, no part is empty, and
// the same plan is always divided in the same way.
func TestShardsWhole(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		plan := planOf(1+r.IntN(4), 1+r.IntN(4), 1+r.IntN(12))
		costs := make([]int, len(plan))
		for i := range costs {
			costs[i] = 1 + r.IntN([]int{1, 3, 1000, MaxCost}[r.IntN(4)])
		}
		of := 1 + r.IntN(len(plan))
		parts := Shards(plan, costs, of)
		var all []int
		for i, part := range parts {
			if len(part) == 0 || !slices.IsSorted(part) {
				t.Fatalf("seed %d: part %d of %d is %v", seed, i+1, of, part)
			}
			all = append(all, part...)
		}
		slices.Sort(all)
		if d := cmp.Diff(count(0, len(plan)), all); len(parts) != of || d != "" {
			t.Fatalf("seed %d: %d parts, want %d; cells (-want +got):\n%s", seed, len(parts), of, d)
		}
		if d := cmp.Diff(parts, Shards(slices.Clone(plan), slices.Clone(costs), of)); d != "" {
			t.Fatalf("seed %d: divided again it is (-first +second):\n%s", seed, d)
		}
		// No part is heavier than the mean by more than a cell, or a tenth.
		total := 0
		for _, c := range costs {
			total += c
		}
		if most, bound := heaviest(parts, costs), total/of+max(slices.Max(costs), total/of/10)+1; most > bound {
			t.Errorf("seed %d: %d shards of %d: the heaviest is %d, want at most %d", seed, of, len(plan), most, bound)
		}
	}
}

func TestShardsOrder(t *testing.T) {
	plan := planOf(2, 1, 3)
	for _, tt := range []struct {
		name  string
		costs []int
		of    int
		want  string
	}{
		{"none", nil, 4, "[[0] [1 2] [3] [4 5]]"},
		{"all the same", []int{7, 7, 7, 7, 7, 7}, 4, "[[0] [1 2] [3] [4 5]]"},
		{"whole", []int{1, 2, 3, 4, 5, 6}, 1, "[[0 1 2 3 4 5]]"},
		{"in order", []int{10, 20, 30, 20, 20, 20}, 2, "[[0 1 2] [3 4 5]]"},
		{"one that is large", []int{1, 1, 90, 1, 1, 1}, 2, "[[2] [0 1 3 4 5]]"},
		{"as many as cells", []int{1, 1, 90, 1, 1, 1}, 6, "[[0] [1] [2] [3] [4] [5]]"},
	} {
		if got := fmt.Sprint(Shards(plan, tt.costs, tt.of)); got != tt.want {
			t.Errorf("%s: Shards = %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestMergeCosts: shards that were divided by costs come together, and those of other
// costs do not.
func TestMergeCosts(t *testing.T) {
	plan, costs := boards()
	var parts []Part
	for i := 1; i <= 4; i++ {
		r := &Results{Schema: Schema, Plan: plan, Costs: costs, Shard: Shard{i, 4}.String()}
		for _, c := range r.Mine() {
			r.Results = append(r.Results, resultOf(plan[c]))
		}
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = Decode(b); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, Part{fmt.Sprint("s", i), r})
	}
	all, err := Merge(parts)
	if err != nil || len(all.Results) != len(plan) {
		t.Fatalf("Merge = %v, %v", all, err)
	}
	other := *parts[1].Results
	other.Costs = slices.Clone(costs)
	other.Costs[0]++
	if _, err := Merge([]Part{parts[0], {"x", &other}}); err == nil || !strings.Contains(err.Error(), "merge s1 with x: their shards were divided by other costs") {
		t.Errorf("Merge of other costs = %v", err)
	}
	for _, bad := range [][]int{{1}, append([]int{0}, costs[1:]...), append([]int{MaxCost + 1}, costs[1:]...)} {
		r := &Results{Schema: Schema, Plan: plan, Costs: bad}
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), "cost") {
			t.Errorf("Decode of %d costs, the first %d = %v", len(bad), bad[0], err)
		}
	}
}

// TestResumeCosts: what was divided by some costs goes on by them.
func TestResumeCosts(t *testing.T) {
	plan, costs := boards()
	dir := t.TempDir()
	first := &Results{Plan: plan, Costs: costs, Shard: "2/4"}
	f, err := Create(dir, first)
	if err != nil {
		t.Fatal(err)
	}
	res := resultOf(plan[first.Mine()[0]])
	if err := f.Keep(&res); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := &Results{Plan: plan, Shard: "2/4"}
	f, done, err := Resume(dir, again, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d := cmp.Diff(first.Mine(), again.Mine()); len(done) != 1 || d != "" {
		t.Errorf("resumed it has %d results, and other cells (-first +resumed):\n%s", len(done), d)
	}
}

// BenchmarkShards divides 10,000 cells.
func BenchmarkShards(b *testing.B) {
	plan := planOf(10, 10, 100)
	r := rand.New(rand.NewPCG(1, 1))
	costs := make([]int, len(plan))
	for i := range costs {
		costs[i] = 1000 + r.IntN(60_000)
	}
	for _, of := range []int{4, 1000} {
		b.Run(fmt.Sprint(of), func(b *testing.B) {
			for b.Loop() {
				Shards(plan, costs, of)
			}
		})
	}
}
