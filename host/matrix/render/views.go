package render

import (
	"fmt"
	"path"
	"strings"

	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/view"
)

// Views are what there is to see of a matrix: a map of its cells, and what went wrong.
func Views(r *matrix.Results) []*view.View {
	all := entries(r)
	s := newSheet(all)
	heat := &view.Table{Named: true}
	for _, c := range s.columns {
		heat.Columns = append(heat.Columns, view.Column{Head: view.Same(c.kernel + " " + c.target)})
	}
	for _, row := range s.rows {
		r := view.Row{Name: view.Same(row.name)}
		for _, c := range s.columns {
			r.Cells = append(r.Cells, heatCell(row.cells[c]))
		}
		heat.Rows = append(heat.Rows, r)
	}
	views := []*view.View{{ID: "map", Title: view.Words{EN: "Kernels and what ran on them", KO: "커널과 그 위에서 실행한 것"}, Table: heat,
		Note: view.Words{EN: strings.Join(sums(r, count(all)), " · "), KO: strings.Join(sums(r, count(all)), " · ")}}}
	bad := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "CELL", KO: "칸"}}, {Head: view.Words{EN: "OUTCOME", KO: "결과"}}, {Head: view.Words{EN: "WHAT WAS SEEN", KO: "관찰"}},
	}}
	for i := range all {
		o := &all[i]
		if !o.Status.Failed() && len(o.failing()) == 0 {
			continue
		}
		var seen []string
		if o.reason() != "" {
			seen = append(seen, o.reason())
		}
		for _, c := range o.failing() {
			seen = append(seen, strings.Join(lines(c), "; "))
		}
		seen = append(seen, o.reports()...)
		bad.Rows = append(bad.Rows, view.Row{Cells: []view.Cell{
			{Kind: view.Text, Text: o.id(), Link: pageOf(o)}, {Kind: view.Text, Text: o.status(), Tone: tone(o)}, {Kind: view.Text, Text: strings.Join(seen, " · ")},
		}})
	}
	if len(bad.Rows) > 0 {
		views = append(views, &view.View{ID: "failures", Title: view.Words{EN: "Failures", KO: "실패"}, Table: bad})
	}
	return views
}

func heatCell(o *entry) view.Cell {
	if o == nil {
		return view.Cell{Kind: view.None}
	}
	says := o.status()
	if n := len(o.Checks); n > 0 {
		says = fmt.Sprintf("%s %d/%d", markOf(o).plain, n-len(o.failing()), n)
	}
	return view.Cell{Kind: view.Text, Text: says, Tone: tone(o), Link: pageOf(o)}
}

func tone(o *entry) view.Tone {
	switch {
	case o.Status.Failed() || len(o.failing()) > 0:
		return view.Bad
	case o.Flaky, o.Status == outcome.NotApplicable:
		return view.Mixed
	}
	return view.Good
}

// pageOf is where a cell's own page is, beside the matrix's.
func pageOf(o *entry) string {
	if o.Record == "" || !clean(o.Record) {
		return ""
	}
	return path.Join(o.Record, record.PageFile)
}

// clean says that a record's directory is one below the matrix.
func clean(dir string) bool {
	return dir == path.Clean(dir) && !path.IsAbs(dir) && !strings.HasPrefix(dir, "..") && !strings.ContainsAny(dir, ":\\") && dir == text.Line(dir, 400)
}
