package class

import (
	"fmt"
	"path"
	"slices"

	"labctl/host/lab/judge"
	"labctl/host/record"
	"labctl/host/view"
)

// Views are what there is to see of a gradebook: who has which check, where the class
// stands, and whose submissions are near-identical.
func (b *Book) Views() []*view.View {
	t := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "LEARNER", KO: "학습자"}}, {Head: view.Words{EN: "OUTCOME", KO: "결과"}},
		{Head: view.Words{EN: "POINTS", KO: "점수"}, Right: true},
	}}
	for _, id := range b.checks {
		t.Columns = append(t.Columns, view.Column{Head: view.Same(id)})
	}
	holds := make([]int, len(b.checks))
	for i := range b.Rows {
		r := &b.Rows[i]
		who := view.Cell{Kind: view.Text, Text: r.Learner}
		if r.Record != "" {
			who.Link = path.Join(r.Record, record.PageFile)
		}
		word := view.Cell{Kind: view.Text, Text: r.Word(), Tone: view.Good}
		if r.Outcome.Failed() {
			word.Tone = view.Bad
		}
		cells := []view.Cell{who, word, {Kind: view.Number, Text: points(r.Points) + " / " + points(r.OutOf)}}
		for j, c := range r.Checks {
			cells = append(cells, checkCell(c))
			if c.Verdict == judge.Pass && j < len(holds) {
				holds[j]++
			}
		}
		t.Rows = append(t.Rows, view.Row{Cells: cells})
	}
	views := []*view.View{{ID: "book", Title: view.Words{EN: "Gradebook", KO: "성적표"}, Table: t}}
	sums := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "CHECK", KO: "검사"}}, {Head: view.Words{EN: "HOLDS FOR", KO: "통과한 사람"}, Right: true}, {Head: view.Words{EN: "OF", KO: "전체"}, Right: true},
	}}
	order := make([]int, len(b.checks))
	for j := range order {
		order[j] = j
	}
	slices.SortStableFunc(order, func(i, j int) int { return holds[i] - holds[j] })
	for _, j := range order {
		id := b.checks[j]
		sums.Rows = append(sums.Rows, view.Row{Cells: []view.Cell{
			{Kind: view.Text, Text: id}, {Kind: view.Number, Text: fmt.Sprint(holds[j])}, {Kind: view.Number, Text: fmt.Sprint(len(b.Rows))},
		}})
	}
	views = append(views, &view.View{ID: "checks", Title: view.Words{EN: "Where the class stands, the hardest first", KO: "반 전체의 통과 현황, 어려운 것부터"}, Table: sums})
	if len(b.Similar) > 0 {
		pairs := &view.Table{Columns: []view.Column{{Head: view.Same("A")}, {Head: view.Same("B")}, {Head: view.Same("%"), Right: true}}}
		for _, p := range b.Similar {
			pairs.Rows = append(pairs.Rows, view.Row{Cells: []view.Cell{
				{Kind: view.Text, Text: p.A}, {Kind: view.Text, Text: p.B}, {Kind: view.Number, Text: fmt.Sprintf("%.0f", 100*p.Share)},
			}})
		}
		views = append(views, &view.View{ID: "similar", Title: view.Words{EN: "Near-identical submissions", KO: "거의 같은 제출물"}, Table: pairs})
	}
	return views
}

func checkCell(c Check) view.Cell {
	switch c.Verdict {
	case judge.Pass:
		return view.Cell{Kind: view.Yes}
	case judge.Fail:
		return view.Cell{Kind: view.Text, Text: "✗", Tone: view.Bad}
	case judge.Tampered:
		return view.Cell{Kind: view.Text, Text: "tampered", Tone: view.Bad}
	}
	return view.Cell{Kind: view.None}
}
