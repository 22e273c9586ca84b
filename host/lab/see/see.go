// Package see makes a lab's views (host/view) of its result: what lab.yaml says under
// views, evaluated. Like judging it is a function of the lab and the result alone.
package see

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/stack"
	"labctl/host/view"
)

// Bounds on a view: a record may come from anywhere.
const (
	maxRows  = 200
	maxPaths = 40
	maxLines = 400
	maxLanes = 32
	maxSpans = 4000 // of all lanes
)

// Views are what a lab has to see of a result. There are none of an exercise, nor of a
// lab that was not run.
func Views(l *lab.Lab, r *result.Result) (all []*view.View) {
	if r.Exercise || len(r.Missing) > 0 {
		return nil
	}
	m := maker{in: expr.Input{Kernel: &r.Kernel, Steps: r.Steps}, r: r}
	for i := range l.Views {
		all = append(all, m.view(&l.Views[i]))
	}
	return all
}

type maker struct {
	in expr.Input
	r  *result.Result
}

// words is a text of a lab's.
func words(t lab.Text) view.Words { return view.Words(t) }

func (m *maker) view(d *lab.View) *view.View {
	v := &view.View{ID: d.ID, Title: words(d.Title)}
	if d.Note != nil {
		v.Note = words(*d.Note)
	}
	when, all := d.Exprs()
	if when != nil {
		if applies, err := when.Eval(m.in); err != nil {
			v.Failed = "when: " + err.Error()
			return v
		} else if !applies.True {
			why := words(*d.WhyNot)
			v.Absent = &why
			return v
		}
	}
	// A table says it of the rows that cannot be made, and has the others.
	if why := judge.NotTold(m.r, all...); why != nil && d.Table == nil {
		w := words(*why)
		v.Absent = &w
		return v
	}
	var err error
	switch {
	case d.Table != nil:
		v.Table, err = m.table(d.Table)
	case d.Tree != nil:
		v.Tree, err = m.tree(d.Tree)
	case d.Stacks != nil:
		v.Stacks, err = m.stacks(d.Stacks)
	case d.Timeline != nil:
		v.Timeline, err = m.timeline(d.Timeline)
	case d.Walk != nil:
		v.Walk, err = m.walk(d.Walk)
	case d.Layout != nil:
		v.Layout, err = m.layout(d.Layout)
	case d.Compare != nil:
		v.Compare, err = m.compare(d.Compare)
	}
	if err != nil {
		*v = view.View{ID: v.ID, Title: v.Title, Note: v.Note, Failed: err.Error()}
	}
	return v
}

// row is what is said of a row.
func (m *maker) row(item expr.Item) expr.Input {
	in := m.in
	in.Row = &item
	return in
}

// items are the elements of what an expression gives.
func (m *maker) items(f lab.Formula, most int) ([]expr.Item, int, error) {
	v, err := f.X.Item(m.in)
	if err != nil {
		return nil, 0, err
	}
	all, n := v.List(most)
	return all, n, nil
}

// text is what an expression gives, in a line; nothing where there is none.
func text(f lab.Formula, in expr.Input) (string, error) {
	if f.X == nil {
		return "", nil
	}
	v, err := f.X.Item(in)
	if err != nil {
		return "", err
	}
	return v.Text(), nil
}

// number is what an expression gives; 0 where there is none.
func number(f lab.Formula, in expr.Input) (int64, error) {
	if f.X == nil {
		return 0, nil
	}
	v, err := f.X.Item(in)
	if err != nil {
		return 0, err
	}
	n, ok := v.Int()
	if !ok {
		return 0, fmt.Errorf("%s gives %s; want a whole number", f.Source, v.Text())
	}
	return n, nil
}

func (m *maker) table(d *lab.TableView) (*view.Table, error) {
	t := &view.Table{}
	for _, c := range d.Columns {
		t.Columns = append(t.Columns, view.Column{Head: words(lab.Text(c.Head))})
	}
	numbers := make([]int, len(d.Columns))
	for _, rows := range d.Rows {
		if why := judge.NotTold(m.r, rows.Of.X); why != nil {
			r := view.Row{Cells: slices.Repeat([]view.Cell{{Kind: view.Wrong, Words: words(*why)}}, len(d.Columns))}
			if rows.Name != nil {
				r.Name, t.Named = words(lab.Text(*rows.Name)), true
			}
			t.Rows = append(t.Rows, r)
			continue
		}
		items, n, err := m.items(rows.Of, maxRows-len(t.Rows))
		if err != nil {
			return nil, err
		}
		t.More += n - len(items)
		for _, item := range items {
			r := view.Row{}
			if rows.Name != nil {
				r.Name, t.Named = words(lab.Text(*rows.Name)), true
			}
			for i, c := range d.Columns {
				made := m.cell(c.Cell, item)
				if made.Kind == view.Number || made.Kind == view.None {
					numbers[i]++
				}
				r.Cells = append(r.Cells, made)
			}
			t.Rows = append(t.Rows, r)
		}
	}
	for i := range t.Columns {
		t.Columns[i].Right = numbers[i] == len(t.Rows)
	}
	return t, nil
}

// cell is one value. One that cannot be had says so in its place: the others can be
// seen all the same.
func (m *maker) cell(f lab.Formula, row expr.Item) view.Cell {
	if why := judge.NotTold(m.r, f.X); why != nil {
		return view.Cell{Kind: view.Wrong, Words: words(*why)}
	}
	in := m.row(row)
	v, err := f.X.Item(in)
	if err != nil {
		return view.Cell{Kind: view.Wrong, Text: err.Error()}
	}
	made := cellOf(v)
	if made.Kind != view.Text || !f.X.Says {
		return made
	}
	in.Korean = true
	if v, err = f.X.Item(in); err != nil {
		return view.Cell{Kind: view.Wrong, Text: err.Error()}
	}
	if ko := v.Text(); ko != made.Text {
		return view.Cell{Kind: view.Said, Words: view.Words{EN: made.Text, KO: ko}}
	}
	return made
}

// cellOf is a value in a cell.
func cellOf(v expr.Item) view.Cell {
	if b, ok := v.Bool(); ok {
		if b {
			return view.Cell{Kind: view.Yes}
		}
		return view.Cell{Kind: view.No}
	}
	switch s := v.Text(); {
	case v.Null():
		return view.Cell{Kind: view.None}
	case v.Number():
		return view.Cell{Kind: view.Number, Text: s}
	case strings.TrimSpace(s) == "":
		return view.Cell{Kind: view.None}
	default:
		return view.Cell{Kind: view.Text, Text: s}
	}
}

// stackOf is the stack of a creation, an event, or itself.
func stackOf(v expr.Item) (stack.Stack, bool) {
	if c, ok := expr.Native[result.Creation](v); ok {
		return c.Stack.Print(), true
	}
	if e, ok := expr.Native[result.Event](v); ok {
		s := e.Stack.Print()
		s.TrimMachinery("")
		return s, true
	}
	s, ok := expr.Native[result.Stack](v)
	return s.Print(), ok
}

// whoOf is who came that way, where nothing else is said.
func whoOf(v expr.Item) string {
	if c, ok := expr.Native[result.Creation](v); ok {
		return fmt.Sprintf("%s-%d → %s-%d", c.Requester.Comm, c.Requester.TID, cmp.Or(c.Child.Name, c.Child.Comm), c.Child.TID)
	}
	if e, ok := expr.Native[result.Event](v); ok {
		return fmt.Sprintf("%s-%d", e.Comm, e.TID)
	}
	return ""
}

func (m *maker) stacks(d *lab.StacksView) (*view.Stacks, error) {
	items, _, err := m.items(d.Of, maxSpans)
	if err != nil {
		return nil, err
	}
	out := &view.Stacks{}
	for _, item := range items {
		in := m.row(item)
		from := item
		if d.Stack.X != nil {
			if from, err = d.Stack.X.Item(in); err != nil {
				return nil, err
			}
		}
		s, ok := stackOf(from)
		if !ok {
			return nil, fmt.Errorf("%s gives %s; want stacks, creations or events", cmp.Or(d.Stack.Source, d.Of.Source), from.Text())
		}
		if len(s.Frames) == 0 {
			continue
		}
		who := whoOf(item)
		if d.Who.X != nil {
			if who, err = text(d.Who, in); err != nil {
				return nil, err
			}
		}
		add(out, s, who)
	}
	slices.SortStableFunc(out.Paths, func(a, b view.Path) int { return b.Count - a.Count })
	return out, nil
}

// add counts a stack.
func add(out *view.Stacks, s stack.Stack, who string) {
	for i := range out.Paths {
		p := &out.Paths[i]
		if same, _ := stack.SameCalls(&p.Stack, &s); same {
			p.Count++
			if who != "" && !slices.Contains(p.Who, who) {
				p.Who = append(p.Who, who)
			}
			for j := range p.Stack.Frames {
				if f := &p.Stack.Frames[j]; j < len(s.Frames) && !slices.Equal(f.Args, s.Frames[j].Args) {
					f.Args = nil
				}
			}
			return
		}
	}
	if len(out.Paths) == maxPaths {
		out.More++
		return
	}
	out.Paths = append(out.Paths, view.Path{Who: []string{who}, Count: 1, Stack: s})
}

func (m *maker) walk(d *lab.WalkView) (*view.Walk, error) {
	out := &view.Walk{}
	var err error
	if out.Address, err = text(d.Address, m.in); err != nil {
		return nil, err
	}
	items, _, err := m.items(d.Levels, 8)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		var s view.Step
		err := m.texts(item, []lab.Formula{d.Name, d.Bits, d.Index, d.Entry}, &s.Name, &s.Bits, &s.Index, &s.Entry)
		if err != nil {
			return nil, err
		}
		out.Levels = append(out.Levels, s)
	}
	out.To, err = text(d.To, m.in)
	return out, err
}

// texts are what expressions say of a row.
func (m *maker) texts(item expr.Item, from []lab.Formula, to ...*string) (err error) {
	for i, f := range from {
		if *to[i], err = text(f, m.row(item)); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) layout(d *lab.LayoutView) (*view.Layout, error) {
	out := &view.Layout{}
	var err error
	if out.Name, err = text(d.Name, m.in); err != nil {
		return nil, err
	}
	if out.Size, err = number(d.Size, m.in); err != nil {
		return nil, err
	}
	items, _, err := m.items(d.Members, maxRows)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		var one view.Member
		if err := m.texts(item, []lab.Formula{d.Member, d.Type, d.Note}, &one.Name, &one.Type, &one.Note); err != nil {
			return nil, err
		}
		if one.Offset, err = number(d.Offset, m.row(item)); err != nil {
			return nil, err
		}
		if one.Size, err = number(d.Bytes, m.row(item)); err != nil {
			return nil, err
		}
		out.Members = append(out.Members, one)
	}
	slices.SortStableFunc(out.Members, func(a, b view.Member) int { return cmp.Compare(a.Offset, b.Offset) })
	return out, nil
}

func (m *maker) compare(d *lab.CompareView) (*view.Compare, error) {
	out := &view.Compare{}
	for _, s := range d.Sides {
		v, err := s.Of.X.Item(m.in)
		if err != nil {
			return nil, err
		}
		side := view.Side{Title: words(lab.Text(s.Name))}
		if all, n := v.List(maxLines); v.IsList() {
			for _, e := range all {
				side.Lines = append(side.Lines, e.Text())
			}
			if n > len(all) {
				side.Lines = append(side.Lines, fmt.Sprintf("… %d", n-len(all)))
			}
		} else if st, ok := stackOf(v); ok {
			for _, f := range st.Frames {
				side.Lines = append(side.Lines, f.Base())
			}
		} else {
			side.Lines = strings.Split(strings.TrimRight(v.Raw(), "\n"), "\n")
			if len(side.Lines) > maxLines {
				side.Lines = side.Lines[:maxLines]
			}
		}
		out.Sides = append(out.Sides, side)
	}
	return out, nil
}
