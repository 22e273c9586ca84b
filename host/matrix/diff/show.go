package diff

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Options are how a report is printed.
type Options struct {
	Markdown bool
	Cells    int  // width of a terminal
	All      bool // no list is cut
}

// How much of a list is printed, unless all is asked for.
const (
	maxRows  = 20
	maxNamed = 40 // names in a running list
)

// Print prints a report for people.
func Print(w io.Writer, rep *Report, o Options) error {
	p := &page{o: o}
	for _, line := range rep.Problems {
		p.line("left out: " + line)
	}
	for _, d := range rep.Diffs {
		d.print(p)
	}
	_, err := io.WriteString(w, strings.TrimLeft(p.b.String(), "\n"))
	return err
}

func (d *Diff) print(p *page) {
	var labels, arches []string
	for _, k := range d.Kernels {
		labels = append(labels, k.Label)
		arches = append(arches, k.Arch)
	}
	title := strings.Join(labels, " → ")
	if arches = slices.Compact(arches); len(arches) == 1 {
		title += " on " + arches[0]
	}
	p.title(2, title)
	t := grid{head: []string{"", "kernel", "machine", "labs"}}
	for _, k := range d.Kernels {
		t.rows = append(t.rows, []string{k.Label, k.Release, k.Target, strings.Join(k.Labs, " ")})
	}
	p.table(t)
	for _, n := range d.Notes {
		p.line("note: " + n)
	}
	for _, k := range d.Kernels {
		for _, g := range k.Gaps {
			p.line("gap in " + k.Label + ": " + g)
		}
	}
	for _, part := range d.parts {
		switch part {
		case Stacks:
			d.printPaths(p)
		case Members:
			d.printLayouts(p)
		case Claims:
			d.printVerdicts(p, "Claims whose verdict changes", d.Claims, (*judged).claims)
			d.printVerdicts(p, "Checks whose verdict changes", d.Checks, (*judged).checks)
		case Tracepoints:
			d.printSets(p, "Tracepoints", Tracepoints, d.Tracepoints)
		case Syscalls:
			d.printSets(p, "System calls", Syscalls, d.Syscalls)
			d.printWays(p)
		case Functions:
			d.printFunctions(p)
		}
	}
}

// heads are the columns of the kernels.
func (d *Diff) heads(before ...string) []string {
	for _, k := range d.Kernels {
		before = append(before, k.Label)
	}
	return before
}

// Marks of cells.
const (
	markSame    = "="
	markNone    = "–"
	markUnknown = "?"
)

// cells prints a row's: what is as in the kernel to the left is a mark.
func cells(r *Row, show func(*Cell) string) (out []string) {
	known := false
	for i := range r.Cells {
		c := &r.Cells[i]
		switch {
		case c.Unknown:
			out = append(out, markUnknown)
			continue
		case c.Text == "":
			out = append(out, markNone)
		case known && len(c.Changes) == 0:
			out = append(out, markSame)
		default:
			out = append(out, show(c))
		}
		known = true
	}
	return out
}

func plain(c *Cell) string { return c.Text }

// changes says what changed, and in which kernel when there are more than two.
func (d *Diff) changes(r *Row) string {
	var all []string
	for i, c := range r.Cells {
		if len(c.Changes) == 0 {
			continue
		}
		var words []string
		for _, w := range c.Changes {
			if w == Moved && r.has(Renamed, Retyped, Resized, Appeared, Vanished) {
				continue // the place itself is in the cell
			}
			words = append(words, string(w))
			if w == Renamed && c.How != "" {
				words[len(words)-1] += " (" + c.How + ")"
			}
		}
		s := strings.Join(words, ", ")
		if s != "" && len(d.Kernels) > 2 {
			s = d.Kernels[i].Label + " " + s
		}
		if s != "" {
			all = append(all, s)
		}
	}
	return strings.Join(all, "; ")
}

func (d *Diff) printPaths(p *page) {
	p.title(3, "How a task is made")
	p.line("Calls from the creation function outward, by the way that the task was asked for.")
	if len(d.Paths) == 0 {
		p.line("No record has the stack of a task's creation.")
	}
	for _, path := range d.Paths {
		differ := 0
		for i := range path.Frames {
			if path.Frames[i].has() {
				differ++
			}
		}
		var lacking []string
		for i, n := range path.Seen {
			if n == 0 {
				lacking = append(lacking, d.Kernels[i].Label)
			}
		}
		says := fmt.Sprintf("%s: %d of %d frames differ", path.Way, differ, len(path.Frames))
		if differ == 0 {
			says = fmt.Sprintf("%s: the same %d frames", path.Way, len(path.Frames))
		}
		if len(lacking) > 0 {
			says += "; not recorded on " + strings.Join(lacking, ", ")
		}
		p.title(4, says)
		if differ == 0 {
			var names []string
			for i := range path.Frames {
				names = append(names, path.Frames[i].Name)
			}
			p.code(strings.Join(names, " < "))
			continue
		}
		t := grid{head: append(d.heads(), "change"), code: len(d.Kernels)}
		for i := range path.Frames {
			f := &path.Frames[i]
			t.rows = append(t.rows, append(cells(f, plain), d.changes(f)))
		}
		p.table(t)
	}
}

func (d *Diff) printLayouts(p *page) {
	p.title(3, "Structures")
	if len(d.Layouts) == 0 {
		p.line("No structure differs among those that are known.")
		return
	}
	p.line("Members as @offset size type, in bytes; of further kernels what differs from the left.")
	for i := range d.Layouts {
		l := &d.Layouts[i]
		var sizes []string
		for j, c := range l.Size.Cells {
			switch {
			case c.Unknown:
				sizes = append(sizes, markUnknown)
			case c.Text == "":
				sizes = append(sizes, markNone)
			default:
				sizes = append(sizes, fmt.Sprintf("%s bytes in %d members", c.Text, l.Count[j]))
			}
		}
		p.title(4, fmt.Sprintf("struct %s: %s", l.Name, strings.Join(sizes, " → ")))
		t := grid{head: append(d.heads("member"), "change"), code: 1 + len(d.Kernels)}
		// What says most comes first. Of what only comes, goes or moves there is
		// a lot: names and a count.
		var rows []*Row
		for _, kinds := range [][]Change{{Renamed}, {Retyped, Resized}, {Vanished}, {Appeared}, {Moved}} {
			for j := range l.Members {
				if r := &l.Members[j]; r.has(kinds...) && !slices.Contains(rows, r) {
					rows = append(rows, r)
				}
			}
		}
		var sets []Row
		moved := 0
		for _, r := range rows {
			switch {
			case p.o.All || r.has(Renamed, Retyped, Resized):
				first := true
				row := cells(r, func(c *Cell) string {
					s := place(c, first)
					first = false
					return s
				})
				t.rows = append(t.rows, append(append([]string{r.Name}, row...), d.changes(r)))
			case r.has(Appeared, Vanished):
				sets = append(sets, *r)
			default:
				moved++
			}
		}
		p.cut(&t)
		d.printGroups(p, sets)
		if moved > 0 {
			p.line(fmt.Sprintf("%d more moved without any other change.", moved))
		}
	}
}

const moreBy = "--all prints them."

// place prints a member's, whole or what differs.
func place(c *Cell, whole bool) string {
	m := c.Place
	var parts []string
	if slices.Contains(c.Changes, Renamed) {
		parts = append(parts, m.Name)
	}
	whole = whole || slices.Contains(c.Changes, Appeared)
	if whole || slices.Contains(c.Changes, Moved) {
		at := fmt.Sprintf("@%d", m.Offset)
		if m.Bits > 0 {
			at += fmt.Sprintf(".%d", m.Shift)
		}
		parts = append(parts, at)
	}
	if whole || slices.Contains(c.Changes, Resized) {
		size := fmt.Sprint(m.Size)
		if m.Bits > 0 {
			size = fmt.Sprintf("%d bits", m.Bits)
		}
		parts = append(parts, size)
	}
	if whole || slices.Contains(c.Changes, Retyped) {
		parts = append(parts, m.Type)
	}
	return strings.Join(parts, " ")
}

// judged counts verdicts of a kernel's records.
type judged struct{ k *Kernel }

func (j *judged) checks() (n int) {
	for _, r := range j.k.reports {
		n += len(r.Checks)
	}
	return n
}

func (j *judged) claims() (n int) {
	for _, r := range j.k.reports {
		n += len(r.Claims)
	}
	return n
}

func (d *Diff) printVerdicts(p *page, title string, rows []Row, count func(*judged) int) {
	p.title(3, title)
	if len(rows) == 0 {
		var counts []string
		for _, k := range d.Kernels {
			counts = append(counts, fmt.Sprintf("%d on %s", count(&judged{k}), k.Label))
		}
		p.line("None, of those that were judged: " + strings.Join(counts, ", ") + ".")
		return
	}
	t := grid{head: append(d.heads("id"), "says")}
	for i := range rows {
		t.rows = append(t.rows, append(append([]string{rows[i].Name}, cells(&rows[i], plain)...), rows[i].Says))
	}
	p.cut(&t)
}

func (d *Diff) printWays(p *page) {
	if len(d.Ways) == 0 {
		return
	}
	p.title(3, "Which system call makes the task")
	p.line("By lab, step and task: the call that a program or its library made, its flags (CLONE_…) and the exit signal.")
	t := grid{head: d.heads("task"), code: 1 + len(d.Kernels)}
	for _, differs := range []bool{true, false} { // a list that is cut has what differs
		for i := range d.Ways {
			if d.Ways[i].has() == differs {
				t.rows = append(t.rows, append([]string{d.Ways[i].Name}, cells(&d.Ways[i], plain)...))
			}
		}
	}
	p.cut(&t)
}

// printSets prints names by the kernels that have them.
func (d *Diff) printSets(p *page, title, part string, rows []Row) {
	var counts []string
	for i, n := range d.count[part] {
		if n < 0 {
			counts = append(counts, "? on "+d.Kernels[i].Label)
		} else {
			counts = append(counts, fmt.Sprintf("%d on %s", n, d.Kernels[i].Label))
		}
	}
	p.title(3, title)
	says := strings.Join(counts, ", ") + "."
	if len(rows) == 0 {
		says += " No difference."
	}
	p.line(says)
	d.printGroups(p, rows)
}

func (d *Diff) printGroups(p *page, rows []Row) {
	if len(rows) == 0 {
		return
	}
	type group struct {
		marks []string
		names []string
	}
	var groups []*group
	for i := range rows {
		marks := make([]string, len(d.Kernels))
		for j, c := range rows[i].Cells {
			switch {
			case c.Unknown:
				marks[j] = markUnknown
			case c.Text == "":
				marks[j] = markNone
			default:
				marks[j] = "+"
			}
		}
		at := slices.IndexFunc(groups, func(g *group) bool { return slices.Equal(g.marks, marks) })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &group{marks: marks})
		}
		groups[at].names = append(groups[at].names, rows[i].Name)
	}
	slices.SortFunc(groups, func(a, b *group) int { return slices.Compare(a.marks, b.marks) })
	t := grid{head: append(d.heads(), "how many", "which"), code: -1}
	for _, g := range groups {
		shown := len(g.names)
		if !p.o.All {
			shown = min(shown, maxNamed)
		}
		which := p.names(g.names[:shown])
		if more := len(g.names) - shown; more > 0 {
			which += fmt.Sprintf(" and %d more", more)
		}
		t.rows = append(t.rows, append(slices.Clone(g.marks), fmt.Sprint(len(g.names)), which))
	}
	p.table(t)
}

func (d *Diff) printFunctions(p *page) {
	var sets, protos []Row
	for _, r := range d.Functions {
		if r.has(Changed, Renamed) {
			protos = append(protos, r)
		} else {
			sets = append(sets, r)
		}
	}
	d.printSets(p, "Functions that deal with tasks", Functions, sets)
	if len(protos) == 0 {
		return
	}
	p.title(4, "Prototypes that changed")
	t := grid{head: d.heads("function"), code: 1 + len(d.Kernels)}
	for i := range protos {
		t.rows = append(t.rows, append([]string{protos[i].Name}, cells(&protos[i], plain)...))
	}
	p.cut(&t)
}
