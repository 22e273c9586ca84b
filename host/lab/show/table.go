package show

import (
	"strings"

	"labctl/host/ui/table"
)

// cellsOf cuts a row at its bars; "\|" is none.
func cellsOf(row string) (out []string) {
	row = strings.TrimSpace(row)
	row = strings.TrimPrefix(row, "|")
	if strings.HasSuffix(row, "|") && !strings.HasSuffix(row, `\|`) {
		row = row[:len(row)-1]
	}
	var b strings.Builder
	for i := 0; i < len(row); i++ {
		switch {
		case row[i] == '\\' && i+1 < len(row) && row[i+1] == '|':
			b.WriteByte('|')
			i++
		case row[i] == '|':
			out = append(out, strings.TrimSpace(b.String()))
			b.Reset()
		default:
			b.WriteByte(row[i])
		}
	}
	return append(out, strings.TrimSpace(b.String()))
}

// narrowest is the width below which no column of a lesson is made.
const narrowest = 4

// cell is inline markup in a table.
type cell struct {
	words []word
	more  style
	plain bool
}

func (c cell) Width() int { return line(c.words).width() }

func (c cell) Longest() (n int) {
	for _, w := range c.words {
		n = max(n, w.width())
	}
	return n
}

func (c cell) Lines(cells int) (lines []string) {
	all := []line{c.words}
	if cells > 0 {
		all = wrap(c.words, cells)
	}
	for _, l := range all {
		var b strings.Builder
		printLine(&b, l, c.more, c.plain)
		lines = append(lines, b.String())
	}
	return lines
}

// markdownTable lays the rows of a Markdown table out for so many cells.
func markdownTable(rows []string, cells int, plain bool) string {
	head := cellsOf(rows[0])
	t := table.Table{Columns: make([]table.Column, len(head)), Width: cells, Narrowest: narrowest, Indent: margin, Between: " │ ", Rule: true}
	for i := range t.Columns {
		t.Columns[i].Wrap = true
	}
	for i, d := range cellsOf(rows[1]) {
		if i < len(head) {
			t.Columns[i].Right = strings.HasSuffix(d, ":") && !strings.HasPrefix(d, ":")
		}
	}
	row := func(r string, more style) []table.Cell {
		out := make([]table.Cell, len(head))
		for i := range out {
			out[i] = cell{plain: plain}
		}
		for i, c := range cellsOf(r) {
			if i == len(head) {
				break // as GFM has it
			}
			out[i] = cell{words(c), more, plain}
		}
		return out
	}
	t.Head = row(rows[0], strong)
	for _, r := range rows[2:] {
		t.Rows = append(t.Rows, row(r, 0))
	}
	return t.String()
}
