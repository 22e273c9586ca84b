// Package table lays rows out in columns, for a terminal of some width or for a
// file. Widths are in cells of a terminal, of which a wide character takes two.
package table

import (
	"fmt"
	"io"
	"strings"
)

// Column is how a column is laid out. The zero value is as wide as its widest cell,
// which is aligned to the left.
type Column struct {
	Right bool // aligned to the right
	Wrap  bool // may be made narrower than its cells, which then take more lines
	Min   int  // cells
	Max   int  // cells; what is longer is cut; 0 for no bound
}

// Group is a name above neighbouring columns.
type Group struct {
	Name    string
	Columns int
}

// Cell is what stands in a row's column. Text is one.
type Cell interface {
	Width() int               // on one line
	Longest() int             // width of the longest word
	Lines(cells int) []string // broken into lines of at most so many cells, on one line for 0
}

// Table is rows of cells. Rows may be shorter than others. Cells must be clean: no
// line breaks and no control characters but colours.
type Table struct {
	Columns []Column
	Groups  []Group
	Head    []Cell
	Rows    [][]Cell

	// Width is that of the terminal. Columns that may wrap are made narrower to fit
	// it, the widest first, down to the longest word and then to Narrowest. With 0
	// nothing is wrapped, so that each row stays one line for other programs.
	Width     int
	Narrowest int
	Indent    int    // spaces before each line
	Between   string // columns; two spaces if empty
	Rule      bool   // a line below Head, crossed by Between's bars
}

// New makes a table with the names of its columns. The last one may wrap.
func New(width int, head ...string) *Table {
	t := &Table{Width: width, Narrowest: 20, Columns: make([]Column, len(head))}
	if len(head) > 0 {
		t.Columns[len(head)-1].Wrap = true
	}
	for _, h := range head {
		t.Head = append(t.Head, Text{S: h})
	}
	return t
}

// Row adds a row. A cell that is no Cell is printed as fmt.Print does.
func (t *Table) Row(cells ...any) {
	row := make([]Cell, len(cells))
	for i, c := range cells {
		if cell, ok := c.(Cell); ok {
			row[i] = cell
		} else {
			row[i] = Text{S: fmt.Sprint(c)}
		}
	}
	t.Rows = append(t.Rows, row)
}

// Write prints the table.
func (t *Table) Write(w io.Writer) error {
	_, err := io.WriteString(w, t.String())
	return err
}

// Natural is the width of the table when nothing is wrapped.
func (t *Table) Natural() int { return t.sum(t.natural()) }

func (t *Table) sum(widths []int) int {
	n := t.Indent + Width(t.between())*max(0, len(widths)-1)
	for _, w := range widths {
		n += w
	}
	return n
}

func (t *Table) between() string {
	if t.Between == "" {
		return "  "
	}
	return t.Between
}

// all is the rows with the head.
func (t *Table) all() [][]Cell {
	if len(t.Head) == 0 {
		return t.Rows
	}
	return append([][]Cell{t.Head}, t.Rows...)
}

func (t *Table) column(i int) Column {
	if i < len(t.Columns) {
		return t.Columns[i]
	}
	return Column{}
}

func (t *Table) natural() []int {
	n := len(t.Columns)
	for _, r := range t.all() {
		n = max(n, len(r))
	}
	widths := make([]int, n)
	for i := range widths {
		widths[i] = t.column(i).Min
	}
	for _, r := range t.all() {
		for i, c := range r {
			width := c.Width()
			if most := t.column(i).Max; most > 0 {
				width = min(width, most)
			}
			widths[i] = max(widths[i], width)
		}
	}
	// The last column of a group has room for what hangs over of its name.
	for i, g := range t.spans(n) {
		room := g.room(widths, Width(t.between()))
		widths[g.to-1] += max(0, Width(t.Groups[i].Name)-room)
	}
	return widths
}

// span is the columns of a group.
type span struct{ from, to int }

func (s span) room(widths []int, between int) int {
	room := between * (s.to - s.from - 1)
	for _, w := range widths[s.from:s.to] {
		room += w
	}
	return room
}

func (t *Table) spans(columns int) []span {
	var all []span
	at := 0
	for _, g := range t.Groups {
		to := min(at+max(1, g.Columns), columns)
		if at >= to {
			break
		}
		all = append(all, span{at, to})
		at = to
	}
	return all
}

// fit makes the columns that may wrap narrower.
func (t *Table) fit(widths []int) {
	longest := make([]int, len(widths))
	for _, r := range t.all() {
		for i, c := range r {
			longest[i] = max(longest[i], c.Longest())
		}
	}
	for _, words := range []bool{true, false} {
		for t.sum(widths) > t.Width {
			widest := -1
			for i, n := range widths {
				floor := max(t.Narrowest, t.column(i).Min, 1)
				if words {
					floor = max(floor, longest[i])
				}
				if t.column(i).Wrap && n > floor && (widest < 0 || n > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
}

func (t *Table) String() string {
	widths := t.natural()
	if t.Width > 0 {
		t.fit(widths)
	}
	var b strings.Builder
	if len(t.Groups) > 0 {
		b.WriteString(t.groups(widths))
	}
	for i, r := range t.all() {
		t.row(&b, r, widths)
		if i == 0 && t.Rule && len(t.Head) > 0 {
			b.WriteString(t.rule(widths))
		}
	}
	return b.String()
}

func (t *Table) row(b *strings.Builder, row []Cell, widths []int) {
	lines, height := make([][]string, len(widths)), 1
	for i, c := range row {
		switch column := t.column(i); {
		case column.Wrap && t.Width > 0:
			lines[i] = c.Lines(widths[i])
		case column.Max > 0 && c.Width() > column.Max:
			lines[i] = []string{Cut(strings.Join(c.Lines(0), " "), column.Max)}
		default:
			lines[i] = c.Lines(0)
		}
		height = max(height, len(lines[i]))
	}
	for k := range height {
		line := spaces(t.Indent)
		for i, w := range widths {
			s := ""
			if k < len(lines[i]) {
				s = lines[i][k]
			}
			if i > 0 {
				line += t.between()
			}
			if t.column(i).Right {
				line += spaces(w-Width(s)) + s
			} else {
				line += Pad(s, w)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func (t *Table) groups(widths []int) string {
	line := spaces(t.Indent)
	for i, s := range t.spans(len(widths)) {
		if i > 0 {
			line += t.between()
		}
		line += Pad(t.Groups[i].Name, s.room(widths, Width(t.between())))
	}
	return strings.TrimRight(line, " ") + "\n"
}

// crossing is where the line below the head meets what stands between columns.
var crossing = strings.NewReplacer(" ", "─", "│", "┼")

func (t *Table) rule(widths []int) string {
	parts := make([]string, len(widths))
	for i, w := range widths {
		parts[i] = strings.Repeat("─", w)
	}
	return spaces(t.Indent) + strings.Join(parts, crossing.Replace(t.between())) + "\n"
}

// Text is a cell of plain text, which may have colours if it does not wrap.
type Text struct {
	S     string
	After string // where long words may break: see Wrap
}

func (c Text) Width() int { return Width(c.S) }

func (c Text) Longest() (n int) {
	for _, w := range strings.Fields(c.S) {
		for w != "" { // a word that may break is as long as its longest part
			end := len(w)
			if i := strings.IndexAny(w, c.After); i >= 0 {
				end = i + 1
			}
			n, w = max(n, Width(w[:end])), w[end:]
		}
	}
	return n
}

func (c Text) Lines(cells int) []string {
	if cells <= 0 || Width(c.S) <= cells {
		return []string{c.S}
	}
	return Wrap(c.S, cells, c.After)
}
