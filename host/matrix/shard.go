package matrix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/outcome"
)

// Shard is one part of a plan: Index, from 1, of Of parts. The zero Shard is the
// whole plan.
type Shard struct{ Index, Of int }

// ParseShard reads "2/5"; empty is the whole plan.
func ParseShard(s string) (Shard, error) {
	if s == "" {
		return Shard{}, nil
	}
	index, of, ok := strings.Cut(s, "/")
	var sh Shard
	var err error
	if sh.Index, err = strconv.Atoi(index); ok && err == nil {
		sh.Of, err = strconv.Atoi(of)
	}
	if !ok || err != nil || sh.String() != s {
		return Shard{}, outcome.Inputf("shard %q: write it as 2/5, the second of five", clip(s))
	}
	if sh.Index < 1 || sh.Of < sh.Index {
		return Shard{}, outcome.Inputf("shard %s: out of range; want 1/%d to %d/%d", s, max(1, sh.Of), max(1, sh.Of), max(1, sh.Of))
	}
	return sh, nil
}

func (s Shard) String() string {
	if s == (Shard{}) {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Index, s.Of)
}

// Fits reports whether a plan of so many cells has something for every shard.
func (s Shard) Fits(cells int) error {
	if s.Of > cells {
		return outcome.Inputf("shard %s: the plan has %d cells, so at most %d shards", s, cells, cells)
	}
	return nil
}

// Range is the shard's part of a plan of so many cells, from and up to but
// without. Parts follow each other in the plan's order, and none has more than
// one cell more than another. It depends on nothing but these numbers, so it is
// the same everywhere; and as the cells of one kernel on one target stand side by
// side in a plan, of all of those no more than Of-1 are torn apart.
func (s Shard) Range(cells int) (from, to int) {
	if s == (Shard{}) {
		return 0, cells
	}
	return (s.Index - 1) * cells / s.Of, s.Index * cells / s.Of
}

// Shards divides a plan among so many: of each shard the places of its cells in the
// plan, ascending. It depends on nothing but the plan and its costs, in milliseconds
// each, so it is the same everywhere. Without costs, or if they are all the same, the
// parts are those of Range; else none costs much more than another. The order of the
// plan is kept if that is possible, as cells of one kernel on one target share a
// template; else what is moved about is as many of those together as is possible.
func Shards(plan []Cell, costs []int, of int) [][]int {
	of = max(1, of)
	if len(costs) == 0 || slices.Max(costs) == slices.Min(costs) {
		parts := make([][]int, of)
		for i := range parts {
			from, to := Shard{i + 1, of}.Range(len(plan))
			parts[i] = count(from, to)
		}
		return parts
	}
	total := 0
	for _, c := range costs {
		total += c
	}
	inOrder := cut(costs, total, of)
	if heaviest(inOrder, costs)*of*100 <= total*105 {
		return inOrder
	}
	packed := pack(plan, costs, total, of)
	if heaviest(packed, costs) < heaviest(inOrder, costs) {
		return packed
	}
	return inOrder
}

// Mine are the cells of r's shard, by their places in the plan.
func (r *Results) Mine() []int {
	sh := mustShard(r.Shard)
	if sh == (Shard{}) {
		return count(0, len(r.Plan))
	}
	return Shards(r.Plan, r.Costs, sh.Of)[sh.Index-1]
}

// count are the numbers from and up to but without.
func count(from, to int) []int {
	all := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func heaviest(parts [][]int, costs []int) (most int) {
	for _, part := range parts {
		sum := 0
		for _, i := range part {
			sum += costs[i]
		}
		most = max(most, sum)
	}
	return most
}

// cut cuts a plan in its order, at the cells that are nearest to equal shares. No
// part is empty.
func cut(costs []int, total, of int) (parts [][]int) {
	n, from, sum := len(costs), 0, 0
	for i := 1; i <= of; i++ {
		to := from
		for to < n-(of-i) && (to == from || i == of || (2*sum+costs[to])*of <= 2*i*total) {
			sum += costs[to]
			to++
		}
		parts, from = append(parts, count(from, to)), to
	}
	return parts
}

// pack gives what costs most to whichever part has least so far. It moves single
// cells where they cost a tenth of a share, else as many of one kernel on one target
// as that buys.
func pack(plan []Cell, costs []int, total, of int) [][]int {
	type unit struct{ from, to, cost int }
	var units []unit
	for i := range plan {
		if n := len(units); n > 0 {
			u := &units[n-1]
			same := plan[u.from].Kernel == plan[i].Kernel && plan[u.from].Target == plan[i].Target
			if same && (u.cost+costs[i])*of*10 <= total {
				u.to, u.cost = i+1, u.cost+costs[i]
				continue
			}
		}
		units = append(units, unit{i, i + 1, costs[i]})
	}
	if len(units) < of {
		units = units[:0]
		for i := range plan {
			units = append(units, unit{i, i + 1, costs[i]})
		}
	}
	slices.SortStableFunc(units, func(a, b unit) int { return b.cost - a.cost })
	parts, loads := make([][]int, of), make([]int, of)
	for _, u := range units {
		least := 0
		for i := range loads {
			if loads[i] < loads[least] {
				least = i
			}
		}
		loads[least] += u.cost
		parts[least] = append(parts[least], count(u.from, u.to)...)
	}
	for _, part := range parts {
		slices.Sort(part)
	}
	return parts
}
