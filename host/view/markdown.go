package view

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"labctl/host/text"
)

// Markdown writes views for a page that takes GitHub's Markdown, each below its title:
// tables as tables, and what is drawn as it is drawn on a terminal. Nothing that a guest
// said is markup.
func Markdown(w io.Writer, views []*View, lang string) error {
	for _, v := range views {
		m := sheet{lang: lang}
		m.view(v)
		if _, err := io.WriteString(w, m.b.String()); err != nil {
			return err
		}
	}
	return nil
}

// drawn is how wide drawings are, in cells.
const drawn = 100

// sheet is what is written.
type sheet struct {
	b    strings.Builder
	lang string
}

func (m *sheet) f(format string, args ...any) { fmt.Fprintf(&m.b, format, args...) }

// cell makes words fit for a cell, or for a line.
func (m *sheet) cell(w Words) string { return text.Markdown(line(w.In(m.lang))) }

func (m *sheet) view(v *View) {
	m.f("\n**%s**\n\n", m.cell(v.Title))
	switch {
	case v.Absent != nil:
		m.f("– %s\n", m.cell(*v.Absent))
		return
	case v.Failed != "":
		m.f("! %s\n", m.cell(Same(v.Failed)))
		return
	case v.Table != nil && len(v.Table.Rows) > 0:
		m.table(v.Table)
	case v.Walk != nil:
		m.walk(v.Walk)
	case v.Layout != nil:
		m.layout(v.Layout)
	case v.Compare != nil && len(v.Compare.rows()) > 0:
		m.compare(v.Compare)
	default:
		m.drawing(v)
	}
	if note := m.cell(v.Note); note != "" {
		m.f("\n%s\n", note)
	}
}

// drawing is a view as a terminal has it, without its title and note.
func (m *sheet) drawing(v *View) {
	p := page{Options: Options{Lang: m.lang, Cells: drawn, Plain: true}}
	p.view(&View{Tree: v.Tree, Stacks: v.Stacks, Timeline: v.Timeline, Pre: v.Pre, Table: v.Table, Compare: v.Compare})
	m.f("<pre>\n%s\n</pre>\n", text.Escape(strings.Trim(p.b.String(), "\n")))
}

// head begins a table; right has the columns of numbers.
func (m *sheet) head(names []Words, right func(i int) bool) {
	rule := "|"
	m.f("|")
	for i, n := range names {
		m.f(" %s |", m.cell(n))
		if right(i) {
			rule += "--:|"
		} else {
			rule += "---|"
		}
	}
	m.f("\n%s\n", rule)
}

func (m *sheet) row(cells ...any) {
	m.f("|")
	for _, c := range cells {
		m.f(" %s |", m.cell(Same(fmt.Sprint(c))))
	}
	m.f("\n")
}

func (m *sheet) table(t *Table) {
	var names []Words
	first := 0
	if t.Named {
		names, first = append(names, Words{}), 1
	}
	for _, c := range t.Columns {
		names = append(names, c.Head)
	}
	m.head(names, func(i int) bool { return i >= first && t.Columns[i-first].Right })
	for _, r := range t.Rows {
		var row []any
		if t.Named {
			row = append(row, r.Name.In(m.lang))
		}
		for i := range r.Cells {
			switch c := &r.Cells[i]; c.Kind {
			case Said:
				row = append(row, c.Words.In(m.lang))
			case Wrong:
				row = append(row, "! "+cmp.Or(c.Words.In(m.lang), c.Text))
			default:
				row = append(row, c.sign())
			}
		}
		m.row(row...)
	}
	if t.More > 0 {
		m.f("\n… %s\n", m.cell(Same(fmt.Sprintf(wordMore.In(m.lang), t.More))))
	}
}

func never(int) bool { return false }

func (m *sheet) walk(w *Walk) {
	if w.Address != "" {
		m.f("%s\n\n", m.cell(Same(w.Address)))
	}
	m.head([]Words{wordLevel, wordBits, wordIndex, wordEntry}, func(i int) bool { return i == 2 })
	for _, s := range w.Levels {
		m.row(s.Name, s.Bits, s.Index, s.Entry)
	}
	if w.To != "" {
		m.f("\n→ %s\n", m.cell(Same(w.To)))
	}
}

func (m *sheet) layout(l *Layout) {
	m.f("%s", m.cell(Same(l.Name)))
	if l.Size > 0 {
		m.f(", %s", m.cell(Same(fmt.Sprintf(wordBytes.In(m.lang), l.Size))))
	}
	m.f("\n\n")
	m.head([]Words{wordOffset, wordSize, wordMember, wordType, {}}, func(i int) bool { return i < 2 })
	for i, one := range l.Members {
		if from, size := l.hole(i); size > 0 {
			m.row(from, size, "…", "", "")
		}
		size := ""
		if one.Size > 0 {
			size = fmt.Sprint(one.Size)
		}
		m.row(one.Offset, size, one.Name, one.Type, one.Note)
	}
}

func (m *sheet) compare(c *Compare) {
	var names []Words
	for _, s := range c.Sides {
		names = append(names, s.Title)
	}
	m.head(names, never)
	for _, r := range c.rows() {
		var row []any
		for _, s := range r {
			row = append(row, s)
		}
		m.row(row...)
	}
}
