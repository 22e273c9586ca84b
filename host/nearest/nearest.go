// Package nearest tells a user who mistyped a name which one was meant.
package nearest

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Unknown is the error for a name that is not among the known ones, in one line:
//
//	lab "P99" is not known, did you mean P9? (known: P1, P2, P9)
//
// what is said before the name, as "lab" or "--style". The outcome is BadInput.
func Unknown(what, got string, known []string) error {
	list := "there is none"
	if len(known) > 0 {
		list = "known: " + strings.Join(known, ", ")
	}
	return outcome.Inputf("%s %q is not known%s (%s)", what, text.Line(got, maxName), Hint(got, known), list)
}

// maxName is how many bytes of a name that nobody knows are shown.
const maxName = 80

// Hint is the clause ", did you mean P9?", and empty when no name is near.
func Hint(got string, known []string) string {
	if near := Name(got, known); near != "" {
		return fmt.Sprintf(", did you mean %s?", near)
	}
	return ""
}

// Name is the known name that got is most likely a slip of, or "" when
// none is near: a third of its characters may differ, so that a name of one or two
// is a slip of none. Of two that are as near, the one of the same length wins.
func Name(got string, known []string) string {
	limit, n := len(got)/3, utf8.RuneCountInString(got)
	best, bestCost := "", 2*limit+2
	for _, k := range known {
		// A kernel knows a hundred thousand names: most are told by their length.
		if d := utf8.RuneCountInString(k) - n; d > limit || -d > limit {
			continue
		}
		cost := 2 * editDistance(got, k)
		if len(k) != len(got) {
			cost++
		}
		if cost < bestCost {
			best, bestCost = k, cost
		}
	}
	return best
}

// editDistance counts the single characters to insert, delete or replace, and
// the neighbours to swap, to turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	var before, prev []int
	cur := make([]int, len(rb)+1)
	for j := range cur {
		cur[j] = j
	}
	for i := range ra {
		before, prev = prev, slices.Clone(cur)
		cur[0] = i + 1
		for j := range rb {
			cost := 1
			if ra[i] == rb[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j+1]+1, cur[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && ra[i] == rb[j-1] && ra[i-1] == rb[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
	}
	return cur[len(rb)]
}
