package matrix

import (
	"fmt"
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
