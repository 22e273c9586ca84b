package report

import (
	"fmt"
	"slices"
	"strings"

	"labctl/host/record"
	"labctl/host/trace/hist"
	"labctl/host/ui/table"
	"labctl/host/view"
)

const (
	maxHistRows = 40 // of a histogram that are printed; the record has all
	barCells    = 24
)

// bar is as long as n is of the most, and there for everything but 0.
func bar(n, most uint64) string {
	if n == 0 || most == 0 {
		return ""
	}
	return strings.Repeat("█", max(1, int(float64(n)/float64(most)*barCells+0.5)))
}

// hists prints the kernel's histograms: as tables, or as stacks where a key is one.
func (p *printer) hists(t *record.Trace, o Options) {
	for i := range t.Hists {
		h := shaped(&t.Hists[i])
		if o.Style == "folded" && h.HasStack() {
			p.foldedHist(h)
			continue
		}
		p.f("\n%s\n", histHead(h))
		rows := h.Rows[:min(len(h.Rows), maxHistRows)]
		if h.HasStack() {
			for i := range rows {
				p.histStack(h, &rows[i], o)
			}
		} else if len(rows) > 0 && p.err == nil {
			p.err = histTable(h, rows).Write(p.w)
		}
		if more := len(h.Rows) - len(rows); more > 0 {
			p.f("%d more entries are in %s\n", more, record.RunFile)
		}
		if h.Unkept > 0 {
			p.f("%d more entries were not kept\n", h.Unkept)
		}
		if h.Disputed != "" {
			p.f("not to be relied on: %s\n", Clean(h.Disputed))
		}
	}
}

// shaped is a histogram whose rows have what its columns name: a record may come from
// anywhere.
func shaped(h *hist.Histogram) *hist.Histogram {
	cp := *h
	cp.Rows = slices.DeleteFunc(slices.Clone(h.Rows), func(r hist.Row) bool {
		return len(r.Values) == 0 || len(r.Keys) != len(h.Keys) || len(r.Values) != len(h.Values)
	})
	return &cp
}

// histHead says what a histogram is of and what it comes to.
func histHead(h *hist.Histogram) string {
	what := strings.TrimPrefix(strings.Replace(Clean(h.Trigger), ":vals=hitcount:", ":", 1), "hist:")
	s := fmt.Sprintf("hist %s %s: %s in %s", Clean(h.Event), what, counted(h.Hits, "hit", "hits"), counted(h.Entries, "entry", "entries"))
	if h.Dropped > 0 {
		s += fmt.Sprintf(", %d dropped (a larger size= has room for more)", h.Dropped)
	}
	return s
}

func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func mostHits(h *hist.Histogram) (most uint64) {
	for i := range h.Rows {
		most = max(most, h.Rows[i].Values[0])
	}
	return most
}

// histNumber is a value as its column has it.
func histNumber(h *hist.Histogram, column int, n uint64) string {
	if strings.HasSuffix(h.Values[column], ".hex") {
		return fmt.Sprintf("0x%x", n)
	}
	return fmt.Sprint(n)
}

func histTable(h *hist.Histogram, rows []hist.Row) *table.Table {
	var head []string
	for _, name := range slices.Concat(h.Keys, h.Values) {
		head = append(head, strings.ToUpper(Clean(name)))
	}
	tab := table.New(0, append(head, "")...)
	for i := range h.Keys {
		tab.Columns[i] = table.Column{Right: numbers(rows, i), Max: 60}
	}
	for i := range h.Values {
		tab.Columns[len(h.Keys)+i].Right = true
	}
	most := mostHits(h)
	for i := range rows {
		var cells []any
		for _, k := range rows[i].Keys {
			cells = append(cells, Clean(k.Text))
		}
		for j, n := range rows[i].Values {
			cells = append(cells, histNumber(h, j, n))
		}
		tab.Row(append(cells, bar(rows[i].Values[0], most))...)
	}
	return tab
}

// numbers reports whether the keys of a column are numbers and nothing else.
func numbers(rows []hist.Row, column int) bool {
	return !slices.ContainsFunc(rows, func(r hist.Row) bool {
		return strings.Trim(r.Keys[column].Text, "-0123456789") != ""
	})
}

// histStack prints an entry with a stack: its counts and other keys, then the stack.
func (p *printer) histStack(h *hist.Histogram, r *hist.Row, o Options) {
	p.f("\n%s\n", histEntry(h, r))
	for _, k := range r.Keys {
		if k.Stack != nil {
			s := whole(k.Stack, o.Raw)
			p.stack(&s, o.Style)
		}
	}
}

func histEntry(h *hist.Histogram, r *hist.Row) string {
	words := []string{counted(r.Values[0], "hit", "hits")}
	for i, k := range r.Keys {
		if k.Stack == nil {
			words = append(words, Clean(h.Keys[i])+" "+Clean(k.Text))
		}
	}
	for i := 1; i < len(r.Values); i++ {
		words = append(words, Clean(h.Values[i])+" "+histNumber(h, i, r.Values[i]))
	}
	return strings.Join(words, ", ")
}

func (p *printer) foldedHist(h *hist.Histogram) {
	p.f("\n")
	for i := range h.Rows {
		for _, k := range h.Rows[i].Keys {
			if k.Stack != nil {
				s := whole(k.Stack, false)
				p.f("%s %d\n", s.Folded(), h.Rows[i].Values[0])
			}
		}
	}
}

// histViews are the histograms for a page.
func histViews(t *record.Trace) (views []*view.View) {
	for i := range t.Hists {
		h := shaped(&t.Hists[i])
		v := &view.View{ID: fmt.Sprintf("hist-%d", i+1), Title: view.Same(histHead(h))}
		if h.Disputed != "" {
			v.Note = view.Words{EN: "Not to be relied on: " + h.Disputed + ".", KO: "믿을 수 없음: " + h.Disputed + "."}
		}
		switch {
		case h.HasStack():
			v.Stacks = &view.Stacks{}
			for j := range h.Rows {
				if j == maxPaths {
					v.Stacks.More = len(h.Rows) - j
					break
				}
				for _, k := range h.Rows[j].Keys {
					if k.Stack != nil {
						v.Stacks.Paths = append(v.Stacks.Paths, view.Path{Who: []string{histEntry(h, &h.Rows[j])}, Count: int(min(h.Rows[j].Values[0], 1<<31-1)), Stack: *k.Stack})
					}
				}
			}
		default:
			v.Table = histView(h)
		}
		views = append(views, v)
	}
	return views
}

func histView(h *hist.Histogram) *view.Table {
	out := &view.Table{More: h.Unkept}
	for i, k := range h.Keys {
		out.Columns = append(out.Columns, view.Column{Head: view.Same(k), Right: numbers(h.Rows, i)})
	}
	for _, v := range h.Values {
		out.Columns = append(out.Columns, view.Column{Head: view.Same(v), Right: true})
	}
	out.Columns = append(out.Columns, view.Column{})
	most := mostHits(h)
	for i := range h.Rows {
		if i == maxOwned {
			out.More += len(h.Rows) - i
			break
		}
		var row view.Row
		for _, k := range h.Rows[i].Keys {
			row.Cells = append(row.Cells, view.Cell{Kind: view.Text, Text: k.Text})
		}
		for j, n := range h.Rows[i].Values {
			row.Cells = append(row.Cells, view.Cell{Kind: view.Number, Text: histNumber(h, j, n)})
		}
		row.Cells = append(row.Cells, view.Cell{Kind: view.Text, Text: bar(h.Rows[i].Values[0], most)})
		out.Rows = append(out.Rows, row)
	}
	return out
}
