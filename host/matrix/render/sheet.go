package render

import (
	"slices"

	"labctl/host/outcome"
	"labctl/host/text"
)

// sheet is outcomes as rows of work and columns of kernels on targets.
type sheet struct {
	rows    []row
	columns []column // those of one target side by side, in the plan's order
	of      map[column][]*entry
}

// column is one kernel on one target.
type column struct{ kernel, target string }

type row struct {
	name  string
	cells map[column]*entry // the worst, where there are several; nil where there is none
}

func newSheet(all []entry) sheet {
	s := sheet{of: map[column][]*entry{}}
	at := map[string]int{}
	var targets []string
	for i := range all {
		o := &all[i]
		c := column{text.Line(o.Cell.Kernel, 120), text.Line(o.Cell.Target, 40)}
		if s.of[c] == nil {
			s.columns = append(s.columns, c)
		}
		s.of[c] = append(s.of[c], o)
		if !slices.Contains(targets, c.target) {
			targets = append(targets, c.target)
		}
		k := workKey(o.Cell.Work)
		if _, ok := at[k]; !ok {
			at[k] = len(s.rows)
			s.rows = append(s.rows, row{workName(o.Cell.Work), map[column]*entry{}})
		}
		cells := s.rows[at[k]].cells
		if old := cells[c]; old == nil || outcome.Worst(old.Status, o.Status) != old.Status {
			cells[c] = o
		}
	}
	slices.SortStableFunc(s.columns, func(a, b column) int {
		return slices.Index(targets, a.target) - slices.Index(targets, b.target)
	})
	return s
}

// fold parts the columns so that fits holds of every part: all in one, else by
// target, else as many of a target as there is room for.
func (s *sheet) fold(fits func([]column) bool) [][]column {
	if len(s.columns) == 0 || fits(s.columns) {
		return [][]column{s.columns}
	}
	var parts [][]column
	for start, i := 0, 1; i <= len(s.columns); i++ {
		if i == len(s.columns) || s.columns[i].target != s.columns[start].target || !fits(s.columns[start:i+1]) {
			parts = append(parts, s.columns[start:i])
			start = i
		}
	}
	return parts
}

// has reports whether a row has anything in these columns.
func (r *row) has(columns []column) bool {
	return slices.ContainsFunc(columns, func(c column) bool { return r.cells[c] != nil })
}

// mark is a cell in one character, for people.
type mark struct{ plain, emoji, colour string }

var (
	none    = mark{" ", " ", ""}
	passed  = mark{"✓", "✅", green}
	flaky   = mark{"✓", "⚠️", yellow}
	failed  = mark{"✗", "❌", red}
	broken  = mark{"!", "💥", red}
	skipped = mark{"–", "➖", dim}
)

func markOf(o *entry) mark {
	switch {
	case o == nil:
		return none
	case o.Status == outcome.NotApplicable:
		return skipped
	case o.broken():
		return broken
	case o.Status.Failed():
		return failed
	case o.Flaky:
		return flaky
	}
	return passed
}
