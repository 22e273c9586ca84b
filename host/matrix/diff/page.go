package diff

import (
	"fmt"
	"strings"

	"labctl/host/text"
	"labctl/host/ui/table"
)

// page is what is printed, on a terminal or in Markdown.
type page struct {
	o Options
	b strings.Builder
}

// grid has cells of clean text, in one line each. The first code columns, or the
// last one when it is -1, hold names: in Markdown nothing in them is markup.
type grid struct {
	head []string
	rows [][]string
	code int
}

func (p *page) title(level int, s string) {
	s = text.Line(s, 1000)
	switch {
	case p.o.Markdown:
		fmt.Fprintf(&p.b, "\n%s %s\n", strings.Repeat("#", level), escape(s))
	case level < 4:
		fmt.Fprintf(&p.b, "\n%s\n", s)
	default:
		p.b.WriteByte('\n')
		p.line(s)
	}
}

// line is a paragraph.
func (p *page) line(s string) {
	s = text.Line(s, 4000)
	if p.o.Markdown {
		fmt.Fprintf(&p.b, "\n%s\n", escape(s))
		return
	}
	for _, l := range table.Wrap(s, max(20, p.o.Cells-2), breaks) {
		p.b.WriteString("  " + l + "\n")
	}
}

// code is a line of names.
func (p *page) code(s string) {
	if p.o.Markdown {
		fmt.Fprintf(&p.b, "\n%s\n", quote(text.Line(s, 4000)))
		return
	}
	p.line(s)
}

// cut prints the first rows of a table and says how many more there are.
func (p *page) cut(t *grid) {
	more := 0
	if !p.o.All && len(t.rows) > maxRows {
		more = len(t.rows) - maxRows
		t.rows = t.rows[:maxRows]
	}
	p.table(*t)
	if more > 0 {
		p.line(fmt.Sprintf("%d more; %s", more, moreBy))
	}
}

func (p *page) table(t grid) {
	if len(t.rows) == 0 {
		return
	}
	for _, r := range t.rows {
		for i := range r {
			r[i] = text.Line(r[i], 1<<20)
		}
	}
	if p.o.Markdown {
		p.markdown(t)
	} else {
		p.terminal(t)
	}
}

// names is a list of names in a table's last column.
func (p *page) names(names []string) string {
	if p.o.Markdown {
		return quote(strings.Join(names, " "))
	}
	return strings.Join(names, " ")
}

func (p *page) markdown(t grid) {
	p.b.WriteByte('\n')
	line := func(cells []string, code int) {
		for i, c := range cells {
			switch {
			case code == -1 && i == len(cells)-1: // is made by names
			case i < code && c != "" && c != markSame && c != markNone && c != markUnknown:
				c = quote(c)
			default:
				c = escape(c)
			}
			p.b.WriteString("| " + c + " ")
		}
		p.b.WriteString("|\n")
	}
	line(t.head, 0)
	p.b.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
	for _, r := range t.rows {
		line(r, t.code)
	}
}

var escape = strings.NewReplacer(`\`, `\\`, "`", "\\`", "|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`).Replace

// quote makes a text one of code; even there a table's cells end at a bar.
func quote(s string) string {
	return "`" + strings.NewReplacer("`", "'", "|", `\|`).Replace(s) + "`"
}

// narrow is the width below which no column is made.
const narrow = 12

// terminal fits a table into the width: the widest columns are made narrower, and
// their cells take more lines.
func (p *page) terminal(t grid) {
	out := table.Table{Columns: make([]table.Column, len(t.head)), Width: p.o.Cells, Narrowest: narrow, Indent: 2}
	for i := range out.Columns {
		out.Columns[i].Wrap = true
	}
	row := func(cells []string) (all []table.Cell) {
		for _, c := range cells {
			all = append(all, table.Text{S: c, After: breaks})
		}
		return all
	}
	if strings.Join(t.head, "") != "" {
		out.Head = row(t.head)
	}
	for _, r := range t.rows {
		out.Rows = append(out.Rows, row(r))
	}
	p.b.WriteString(out.String())
}

// breaks are where names that are longer than a line are broken.
const breaks = "|_.(,"
