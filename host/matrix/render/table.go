package render

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/mattn/go-runewidth"

	"labctl/host/lab/show"
	"labctl/host/matrix"
	"labctl/host/text"
)

const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

// Widths of names in the table, in cells of the terminal.
const (
	minWidth = 40
	maxRow   = 32
	maxHead  = 20
)

// cells counts a terminal's cells, whatever the locale says of ambiguous
// characters.
var cells = runewidth.Condition{StrictEmojiNeutral: true}

// Table shows results on a terminal: a row for each work and a column for each
// kernel on each target, by target where that is too wide; then every failure on
// a line of its own, what is not applicable and why, what was flaky, and the
// sums.
func Table(w io.Writer, r *matrix.Results, o Options) error {
	if o.Width == 0 {
		o.Width = 80
	}
	o.Width = max(o.Width, minWidth)
	all := entries(r)
	n := count(all)
	t := table{Options: o}
	t.grid(newSheet(all))
	t.failures(all, n)
	t.groups("not applicable:", notApplicable(all))
	t.flaky(all)
	t.line("")
	for _, s := range sums(r, n) {
		t.line(s)
	}
	_, err := io.WriteString(w, strings.TrimLeft(t.String(), "\n"))
	return err
}

type table struct {
	Options
	strings.Builder
}

func (t *table) line(s string) { fmt.Fprintln(t, strings.TrimRight(s, " ")) }

func (t *table) grid(s sheet) {
	names := 0
	for _, r := range s.rows {
		names = max(names, cells.StringWidth(r.name))
	}
	names = min(names, maxRow, t.Width-2-maxHead)
	for _, columns := range s.fold(func(c []column) bool { return names+sum(widths(c)) <= t.Width }) {
		t.line("")
		t.heads(columns, names)
		for _, r := range s.rows {
			if r.has(columns) {
				t.row(r, columns, names)
			}
		}
	}
}

// heads names the columns: the targets, each over its columns, and below them
// the kernels.
func (t *table) heads(columns []column, names int) {
	top, bottom := strings.Repeat(" ", names), strings.Repeat(" ", names)
	w := widths(columns)
	for i, start := 0, 0; i < len(columns); i++ {
		bottom += cells.FillRight("  "+head(columns[i].kernel), w[i])
		if i == len(columns)-1 || columns[i+1].target != columns[i].target {
			top += cells.FillRight("  "+head(columns[i].target), sum(w[start:i+1]))
			start = i + 1
		}
	}
	t.line(top)
	t.line(bottom)
}

func (t *table) row(r row, columns []column, names int) {
	line := cells.FillRight(cells.Truncate(r.name, names, "…"), names)
	for i, w := range widths(columns) {
		m := markOf(r.cells[columns[i]])
		line += "  " + t.paint(m, m.plain) + strings.Repeat(" ", w-2-cells.StringWidth(m.plain))
	}
	t.line(line)
}

func (t *table) paint(m mark, s string) string {
	if !t.Colour || m.colour == "" {
		return s
	}
	return m.colour + s + plain
}

// widths are those of columns with the two spaces before each. The last column
// of a target has room for what hangs over of the target's name.
func widths(columns []column) []int {
	out := make([]int, len(columns))
	room := 0
	for i, c := range columns {
		out[i] = 2 + max(1, cells.StringWidth(head(c.kernel)))
		if i == 0 || c.target != columns[i-1].target {
			room = 0
		}
		room += out[i]
		if i == len(columns)-1 || columns[i+1].target != c.target {
			out[i] += max(0, 2+cells.StringWidth(head(c.target))-room)
		}
	}
	return out
}

func sum(all []int) (n int) {
	for _, v := range all {
		n += v
	}
	return n
}

// head is a kernel or target as columns are headed. The end of a long one tells
// more than its start.
func head(s string) string {
	n := cells.StringWidth(s)
	if n <= maxHead {
		return s
	}
	return cells.TruncateLeft(s, n-maxHead+1, "…")
}

// failures gives each failed cell a line, and those that were not run one.
func (t *table) failures(all []entry, n counts) {
	if n.red() == 0 {
		return
	}
	t.line("\nfailed:")
	var absent []string
	for i := range all {
		o := &all[i]
		if o.absent {
			absent = append(absent, o.id())
			continue
		}
		if !o.Status.Failed() {
			continue
		}
		line := fmt.Sprintf("  %s %s  %s", t.paint(markOf(o), markOf(o).plain), o.id(), o.verdict())
		if o.Record != "" {
			line += "  " + text.Line(filepath.Join(t.Dir, o.Record), maxReason)
		}
		t.line(line)
	}
	if len(absent) > 0 {
		t.groups("", []group{{"without a result: the run ended before them", absent}})
	}
}

func (t *table) groups(title string, groups []group) {
	if len(groups) == 0 {
		return
	}
	if title != "" {
		t.line("\n" + title)
	}
	for _, g := range groups {
		m := skipped
		if title == "" {
			m = broken
		}
		for i, l := range show.Wrap(g.reason+":", t.Width-4) {
			if i == 0 {
				t.line("  " + t.paint(m, m.plain) + " " + l)
			} else {
				t.line("    " + l)
			}
		}
		for _, l := range show.Wrap(strings.Join(g.ids, ", "), t.Width-6) {
			t.line("      " + l)
		}
	}
}

func (t *table) flaky(all []entry) {
	title := "\nflaky:"
	for i := range all {
		o := &all[i]
		if !o.Flaky {
			continue
		}
		if title != "" {
			t.line(title)
			title = ""
		}
		t.line("  " + t.paint(flaky, flaky.plain) + " " + o.id() + "  " + flakyLine(o))
	}
}

// flakyLine says what a retry did.
func flakyLine(o *entry) string {
	s := fmt.Sprintf("passed on try %d", o.Tries)
	if r := text.Line(o.Reason, maxReason); r != "" {
		s += "; before: " + r
	}
	return s
}
