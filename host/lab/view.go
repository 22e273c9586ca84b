package lab

import (
	"encoding/json"
	"fmt"
	"slices"

	"labctl/host/lab/expr"
)

// View is what there is to see of a run, as data over its record: exactly one of
// Table and what follows. Package see makes the pictures.
type View struct {
	ID     string `yaml:"id" json:"id" jsonschema:"pattern=^[a-z][a-z0-9-]*$"`
	Title  Text   `yaml:"title" json:"title"`
	Note   *Text  `yaml:"note" json:"note,omitempty" jsonschema:"description=how to read it\\, in a sentence"`
	When   string `yaml:"when" json:"when,omitempty" jsonschema:"description=CEL over kernel alone; where it is false there is nothing to see"`
	WhyNot *Text  `yaml:"why_not" json:"why_not,omitempty"`

	Table    *TableView    `yaml:"table" json:"table,omitempty" jsonschema:"description=rows and columns"`
	Tree     *TreeView     `yaml:"tree" json:"tree,omitempty" jsonschema:"description=tasks as they made each other"`
	Stacks   *StacksView   `yaml:"stacks" json:"stacks,omitempty" jsonschema:"description=distinct ways through the kernel\\, each once\\, and who came that way"`
	Timeline *TimelineView `yaml:"timeline" json:"timeline,omitempty" jsonschema:"description=who ran\\, slept and waited when; wants the event sched_switch"`
	Walk     *WalkView     `yaml:"walk" json:"walk,omitempty" jsonschema:"description=an address through the page tables"`
	Layout   *LayoutView   `yaml:"layout" json:"layout,omitempty" jsonschema:"description=a structure and where its members are"`
	Compare  *CompareView  `yaml:"compare" json:"compare,omitempty" jsonschema:"description=stacks or lists beside each other"`

	when *expr.Expr
	all  []*expr.Expr
}

// Exprs are the view's condition, nil if it has none, and all its other expressions.
func (v *View) Exprs() (when *expr.Expr, all []*expr.Expr) { return v.when, v.all }

// Formula is CEL in a view.
type Formula struct {
	Source string
	X      *expr.Expr
}

// UnmarshalYAML reads an expression.
func (f *Formula) UnmarshalYAML(read func(any) error) error { return read(&f.Source) }

// MarshalJSON writes an expression as lab.yaml has it.
func (f Formula) MarshalJSON() ([]byte, error) { return json.Marshal(f.Source) }

// IsZero reports whether there is none.
func (f Formula) IsZero() bool { return f.Source == "" }

// Label is a name that may be the same in both languages; then it is written once.
type Label Text

// UnmarshalYAML reads a name, or one in each language.
func (l *Label) UnmarshalYAML(read func(any) error) error {
	var s string
	if read(&s) == nil {
		l.EN, l.KO = s, s
		return nil
	}
	type plain Label
	return read((*plain)(l))
}

// TableView is rows and columns.
type TableView struct {
	Rows    []RowsView   `yaml:"rows" json:"rows" jsonschema:"minItems=1"`
	Columns []ColumnView `yaml:"columns" json:"columns" jsonschema:"minItems=1,maxItems=16"`
}

// RowsView is one row or several. The expressions of cells have it as the variable row.
type RowsView struct {
	Name *Label  `yaml:"name" json:"name,omitempty" jsonschema:"description=what stands in front of the row"`
	Of   Formula `yaml:"of" json:"of" jsonschema:"description=CEL; a list is a row for each element\\, anything else is one row"`
}

// ColumnView is a column.
type ColumnView struct {
	Head Label   `yaml:"head" json:"head"`
	Cell Formula `yaml:"cell" json:"cell" jsonschema:"description=CEL over row; true and false are shown as signs"`
}

// TreeView is the tasks that some steps made.
type TreeView struct {
	Steps []string `yaml:"steps" json:"steps,omitempty" jsonschema:"description=whose tasks; all when left out"`
	// Others adds what was made meanwhile by nobody of the lab.
	Others bool `yaml:"others" json:"others,omitempty" jsonschema:"description=with tasks that others made meanwhile"`
	// Only keeps some of the tasks, and those who made them.
	Only Formula `yaml:"only" json:"only,omitzero" jsonschema:"description=CEL over row\\, a creation: which tasks to show\\, beside their makers"`
}

// StacksView is stacks, those that are the same as one.
type StacksView struct {
	Of    Formula `yaml:"of" json:"of" jsonschema:"description=CEL: a list of creations\\, events or stacks\\, or one of them"`
	Who   Formula `yaml:"who" json:"who,omitzero" jsonschema:"description=CEL over row: who came that way; the task when left out"`
	Stack Formula `yaml:"stack" json:"stack,omitzero" jsonschema:"description=CEL over row: which stack\\, where the row is no creation\\, event or stack\\, or another is wanted"`
}

// TimelineView is what tasks did when.
type TimelineView struct {
	Step  string     `yaml:"step" json:"step" jsonschema:"description=whose events"`
	Tasks []RowsView `yaml:"tasks" json:"tasks" jsonschema:"minItems=1,description=CEL: TIDs\\, with names"`
	Marks []MarkView `yaml:"marks" json:"marks,omitempty" jsonschema:"description=moments to mark"`
	From  Formula    `yaml:"from" json:"from,omitzero" jsonschema:"description=CEL: nanoseconds; from the first of these tasks' events when left out"`
	To    Formula    `yaml:"to" json:"to,omitzero" jsonschema:"description=CEL: nanoseconds; to the last of them when left out"`
}

// MarkView marks events.
type MarkView struct {
	Of   Formula `yaml:"of" json:"of" jsonschema:"description=CEL: a list of events\\, each marked in its task's lane"`
	Says Label   `yaml:"says" json:"says"`
}

// WalkView is an address taken apart.
type WalkView struct {
	Address Formula `yaml:"address" json:"address,omitzero" jsonschema:"description=CEL: what is walked"`
	Levels  Formula `yaml:"levels" json:"levels" jsonschema:"description=CEL: a list\\, the root first"`
	Name    Formula `yaml:"name" json:"name" jsonschema:"description=CEL over row: the level's name\\, PGD"`
	Bits    Formula `yaml:"bits" json:"bits,omitzero" jsonschema:"description=CEL over row: which bits of the address: 47:39"`
	Index   Formula `yaml:"index" json:"index,omitzero" jsonschema:"description=CEL over row: these bits' value"`
	Entry   Formula `yaml:"entry" json:"entry" jsonschema:"description=CEL over row: what stands in the table there"`
	To      Formula `yaml:"to" json:"to,omitzero" jsonschema:"description=CEL: where it leads"`
}

// LayoutView is a structure.
type LayoutView struct {
	Name    Formula `yaml:"name" json:"name" jsonschema:"description=CEL: the structure's name"`
	Size    Formula `yaml:"size" json:"size,omitzero" jsonschema:"description=CEL: its size in bytes"`
	Members Formula `yaml:"members" json:"members" jsonschema:"description=CEL: a list"`
	Member  Formula `yaml:"member" json:"member" jsonschema:"description=CEL over row: a member's name"`
	Offset  Formula `yaml:"offset" json:"offset" jsonschema:"description=CEL over row: its offset in bytes"`
	Bytes   Formula `yaml:"bytes" json:"bytes,omitzero" jsonschema:"description=CEL over row: its size"`
	Type    Formula `yaml:"type" json:"type,omitzero" jsonschema:"description=CEL over row: its type"`
	Note    Formula `yaml:"note" json:"note,omitzero" jsonschema:"description=CEL over row: what is to be said of it"`
}

// CompareView is lists beside each other.
type CompareView struct {
	Sides []SideView `yaml:"sides" json:"sides" jsonschema:"minItems=2,maxItems=4"`
}

// SideView is one of them.
type SideView struct {
	Name Label   `yaml:"name" json:"name"`
	Of   Formula `yaml:"of" json:"of" jsonschema:"description=CEL: a stack\\, a creation\\, an event\\, a list or a text of lines"`
}

// views checks the views of a lab and compiles their expressions.
func (v *validator) views(env *expr.Env, steps []string) {
	ids := map[string]bool{}
	for i := range v.l.Views {
		w := &v.l.Views[i]
		at := fmt.Sprintf("views[%d]", i)
		v.id(at, w.ID, ids)
		v.text(at+".title", w.Title)
		if w.Note != nil {
			v.text(at+".note", *w.Note)
		}
		w.when = v.when(at, w.When, w.WhyNot, &v.l.asks)
		c := viewCompiler{v: v, view: w, env: env}
		kinds := 0
		if t := w.Table; t != nil {
			kinds++
			c.table(at+".table", t)
		}
		if t := w.Tree; t != nil {
			kinds++
			c.tree(at+".tree", t, steps)
		}
		if t := w.Stacks; t != nil {
			kinds++
			c.over(at+".stacks", env, part{"of", &t.Of, true}, part{"who", &t.Who, false}, part{"stack", &t.Stack, false})
		}
		if t := w.Timeline; t != nil {
			kinds++
			c.timeline(at+".timeline", t, steps)
		}
		if t := w.Walk; t != nil {
			kinds++
			c.formula(at+".walk.address", &t.Address, env, false)
			c.formula(at+".walk.to", &t.To, env, false)
			c.over(at+".walk", env, part{"levels", &t.Levels, true}, part{"name", &t.Name, true}, part{"bits", &t.Bits, false},
				part{"index", &t.Index, false}, part{"entry", &t.Entry, true})
		}
		if t := w.Layout; t != nil {
			kinds++
			c.formula(at+".layout.name", &t.Name, env, true)
			c.formula(at+".layout.size", &t.Size, env, false)
			c.over(at+".layout", env, part{"members", &t.Members, true}, part{"member", &t.Member, true}, part{"offset", &t.Offset, true},
				part{"bytes", &t.Bytes, false}, part{"type", &t.Type, false}, part{"note", &t.Note, false})
		}
		if t := w.Compare; t != nil {
			kinds++
			if n := len(t.Sides); n < 2 || n > 4 {
				v.fail(at+".compare.sides", 0, "%d; want 2 to 4", n)
			}
			for j := range t.Sides {
				side := fmt.Sprintf("%s.compare.sides[%d]", at, j)
				v.label(side+".name", t.Sides[j].Name)
				c.formula(side+".of", &t.Sides[j].Of, env, true)
			}
		}
		if kinds != 1 {
			v.fail(at, 0, "wants exactly one of table, tree, stacks, timeline, walk, layout and compare")
		}
	}
}

func (v *validator) label(at string, l Label) { v.text(at, Text(l)) }

// viewCompiler compiles the expressions of one view.
type viewCompiler struct {
	v    *validator
	view *View
	env  *expr.Env
}

// formula compiles an expression, which gives anything.
func (c *viewCompiler) formula(at string, f *Formula, env *expr.Env, must bool) {
	if f.Source == "" {
		if must {
			c.v.fail(at, 0, "missing: a CEL expression")
		}
		return
	}
	if f.X = c.v.compile(env, at, f.Source, expr.Any, &c.v.l.asks); f.X != nil {
		c.view.all = append(c.view.all, f.X)
	}
}

// part is an expression of a view under its name.
type part struct {
	name string
	f    *Formula
	must bool
}

// over compiles a list and what is said of each of its rows.
func (c *viewCompiler) over(at string, env *expr.Env, list part, cells ...part) {
	c.formula(at+"."+list.name, list.f, env, true)
	if list.f.X == nil {
		return
	}
	c.cells(at, []*expr.Expr{list.f.X}, cells...)
}

func (c *viewCompiler) cells(at string, rows []*expr.Expr, cells ...part) {
	env, err := c.env.WithRow(rows...)
	if err != nil {
		c.v.fail(at, 0, "%v", err)
		return
	}
	for _, p := range cells {
		c.formula(at+"."+p.name, p.f, env, p.must)
	}
}

func (c *viewCompiler) table(at string, t *TableView) {
	if len(t.Rows) == 0 {
		c.v.fail(at+".rows", 0, "missing: what the rows are")
	}
	if n := len(t.Columns); n < 1 || n > 16 {
		c.v.fail(at+".columns", 0, "%d; want 1 to 16", n)
	}
	rows := c.rows(at+".rows", t.Rows)
	if rows == nil {
		return
	}
	for i := range t.Columns {
		column := fmt.Sprintf("%s.columns[%d]", at, i)
		c.v.label(column+".head", t.Columns[i].Head)
		c.cells(column, rows, part{"cell", &t.Columns[i].Cell, true})
	}
}

// rows compiles what rows are of; nil where one is wrong.
func (c *viewCompiler) rows(at string, all []RowsView) (rows []*expr.Expr) {
	for i := range all {
		r := &all[i]
		at := fmt.Sprintf("%s[%d]", at, i)
		if r.Name != nil {
			c.v.label(at+".name", *r.Name)
		}
		c.formula(at+".of", &r.Of, c.env, true)
		if r.Of.X == nil {
			return nil
		}
		rows = append(rows, r.Of.X)
	}
	return rows
}

func (c *viewCompiler) tree(at string, t *TreeView, steps []string) {
	for i, s := range t.Steps {
		c.step(fmt.Sprintf("%s.steps[%d]", at, i), s, steps)
	}
	if t.Only.Source == "" {
		return
	}
	creations, err := c.env.Compile(steps[0]+".creations", expr.Any)
	if err != nil {
		c.v.fail(at, 0, "%v", err)
		return
	}
	c.cells(at, []*expr.Expr{creations}, part{"only", &t.Only, true})
}

func (c *viewCompiler) step(at, id string, steps []string) {
	if !slices.Contains(steps, id) {
		c.v.fail(at, 0, "%v", unknownStep(id, steps))
	}
}

func (c *viewCompiler) timeline(at string, t *TimelineView, steps []string) {
	c.step(at+".step", t.Step, steps)
	if len(t.Tasks) == 0 {
		c.v.fail(at+".tasks", 0, "missing: whose lanes")
	}
	c.rows(at+".tasks", t.Tasks)
	for i := range t.Marks {
		mark := fmt.Sprintf("%s.marks[%d]", at, i)
		c.v.label(mark+".says", t.Marks[i].Says)
		c.formula(mark+".of", &t.Marks[i].Of, c.env, true)
	}
	c.formula(at+".from", &t.From, c.env, false)
	c.formula(at+".to", &t.To, c.env, false)
}
