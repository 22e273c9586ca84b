package render

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"labctl/host/matrix"
	"labctl/host/text"
	"labctl/host/ui/table"
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
	t := summary{Options: o}
	t.grid(newSheet(all))
	t.failures(all, n)
	t.reports(all)
	t.groups("not applicable:", notApplicable(all))
	t.flaky(all)
	t.line("")
	for _, s := range sums(r, n) {
		t.line(s)
	}
	_, err := io.WriteString(w, strings.TrimLeft(t.String(), "\n"))
	return err
}

type summary struct {
	Options
	strings.Builder
}

func (t *summary) line(s string) { fmt.Fprintln(t, strings.TrimRight(s, " ")) }

func (t *summary) grid(s sheet) {
	names := 0
	for _, r := range s.rows {
		names = max(names, table.Width(r.name))
	}
	names = min(names, maxRow, t.Width-2-maxHead)
	fits := func(c []column) bool { return columns(c, names).Natural() <= t.Width }
	for _, part := range s.fold(fits) {
		out := columns(part, names)
		for _, r := range s.rows {
			if !r.has(part) {
				continue
			}
			row := []any{r.name}
			for _, c := range part {
				m := markOf(r.cells[c])
				row = append(row, t.paint(m, m.plain))
			}
			out.Row(row...)
		}
		t.line("\n" + strings.TrimRight(out.String(), "\n"))
	}
}

// columns is a table with the names of rows first and a column for each kernel,
// under the name of its target.
func columns(all []column, names int) *table.Table {
	t := table.New(0, "")
	t.Columns[0] = table.Column{Min: names, Max: names}
	t.Groups = []table.Group{{Columns: 1}}
	for i, c := range all {
		t.Columns = append(t.Columns, table.Column{Min: 1})
		t.Head = append(t.Head, table.Text{S: table.CutLeft(c.kernel, maxHead)})
		if i == 0 || c.target != all[i-1].target {
			t.Groups = append(t.Groups, table.Group{Name: table.CutLeft(c.target, maxHead)})
		}
		t.Groups[len(t.Groups)-1].Columns++
	}
	return t
}

func (t *summary) paint(m mark, s string) string {
	if !t.Colour || m.colour == "" {
		return s
	}
	return m.colour + s + plain
}

// failures gives each failed cell a line, and those that were not run one.
func (t *summary) failures(all []entry, n counts) {
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

// reports gives a line to everything that the kernels reported.
func (t *summary) reports(all []entry) {
	title := "\nthe kernel reported:"
	for i := range all {
		o := &all[i]
		for _, l := range o.reports() {
			if title != "" {
				t.line(title)
				title = ""
			}
			t.line("  " + o.id() + "  " + l)
		}
	}
}

func (t *summary) groups(title string, groups []group) {
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
		for i, l := range table.Wrap(g.reason+":", t.Width-4, "") {
			if i == 0 {
				t.line("  " + t.paint(m, m.plain) + " " + l)
			} else {
				t.line("    " + l)
			}
		}
		for _, l := range table.Wrap(strings.Join(g.ids, ", "), t.Width-6, "") {
			t.line("      " + l)
		}
	}
}

func (t *summary) flaky(all []entry) {
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
