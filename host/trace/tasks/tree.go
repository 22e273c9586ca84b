package tasks

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"labctl/host/text"
)

// Tree prints the tasks as a tree, a line each; siblings that are alike in all
// but their numbers share one. program is the TID of the task that is the
// program's, 0 for none; its line is marked, and its parent's tree comes first.
//
//	START      LIFE     TASK                  END      BY     PATH  FLAGS
//	-          -        init-1
//	10.726560  18.4 ms  ├─ init-100           exit 0   clone  #1    CLONE_VM|CLONE_PIDFD|CLONE_VFORK
//	10.760112  41 ms    └─ labprobe-101 *     exit 0   clone  #1    CLONE_VM|CLONE_PIDFD|CLONE_VFORK|SIGCHLD
//	10.790001  1.2 ms      └─ labprobe-105    exit 3   clone  #2    SIGCHLD
func (t *Timeline) Tree(w io.Writer, program int) error {
	rows := []row{{cells: []string{"START", "LIFE", "TASK", "END", "BY", "PATH", "FLAGS"}}}
	for _, l := range t.Lines(program) {
		if l.Remark != "" {
			rows = append(rows, row{remark: l.Branch + l.Remark})
			continue
		}
		path := ""
		if l.By != "" {
			path = "-"
			if l.Path > 0 {
				path = fmt.Sprintf("#%d", l.Path)
			}
		}
		rows = append(rows, row{cells: []string{l.Start, l.Life, l.Branch + l.Name, l.End, l.By, path, l.Flags}})
	}
	return write(w, rows)
}

// Line is one line of the tree: a task, several that are alike, or a remark on the
// task above it. Its words are clean.
type Line struct {
	Branch string // "│  └─ "
	Name   string // "labprobe-105", "labprobe-105 … 120 (16 alike)"
	Tasks  []int  // places in Timeline.Tasks
	Start  string // seconds from boot
	Life   string // "1.2 ms"
	End    string // "exit 0"
	By     string // "clone"; empty for tasks that were there before the trace
	Path   int    // see Task.Path
	Flags  string
	Remark string
}

// Lines are the lines of the tree that Tree prints.
func (t *Timeline) Lines(program int) []Line {
	children := map[int][]int{}
	var roots []int
	for i := range t.Tasks {
		if p := t.Tasks[i].Parent; p != nil && *p != i {
			children[*p] = append(children[*p], i)
		} else {
			roots = append(roots, i)
		}
	}
	tree := treePrinter{t: t, children: children, program: program}
	for i, r := range roots { // the program's own tree first
		if i > 0 && tree.holds(r, 0) {
			copy(roots[1:i+1], roots[:i])
			roots[0] = r
			break
		}
	}
	for _, r := range roots {
		tree.line([]int{r}, "", "")
		tree.below(r, "", 0)
	}
	return tree.lines
}

// row is one line: cells of the table, or, behind the tree's lines, a remark.
type row struct {
	cells  []string
	remark string
}

// taskColumn is the column of the tree.
const taskColumn = 2

// write prints rows in columns. A remark starts where the tree does.
func write(w io.Writer, rows []row) error {
	var widths [16]int
	for _, r := range rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	indent := 0
	for _, n := range widths[:taskColumn] {
		indent += n + 2
	}
	for _, r := range rows {
		var b strings.Builder
		if r.remark != "" {
			b.WriteString(strings.Repeat(" ", indent) + r.remark)
		}
		for i, c := range r.cells {
			b.WriteString(c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
		}
		if _, err := io.WriteString(w, strings.TrimRight(b.String(), " ")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

type treePrinter struct {
	lines    []Line
	t        *Timeline
	children map[int][]int
	program  int
}

// maxDepth bounds the tree: a record may come from anywhere.
const maxDepth = 200

// holds reports whether the program is in the tree below i.
func (p *treePrinter) holds(i, depth int) bool {
	if p.program > 0 && p.t.Tasks[i].TID == p.program {
		return true
	}
	for _, c := range p.children[i] {
		if depth < maxDepth && p.holds(c, depth+1) {
			return true
		}
	}
	return false
}

func (p *treePrinter) below(i int, indent string, depth int) {
	if depth == maxDepth {
		p.lines = append(p.lines, Line{Branch: indent, Remark: "└─ …"})
		return
	}
	kids := p.children[i]
	for len(kids) > 0 {
		n := p.alike(kids)
		branch, deeper := "├─ ", "│  "
		if n == len(kids) {
			branch, deeper = "└─ ", "   "
		}
		p.line(kids[:n], indent+branch, indent+deeper)
		p.below(kids[0], indent+deeper, depth+1)
		kids = kids[n:]
	}
}

// enough is how many siblings in a row must be alike to share a line.
const enough = 4

// alike is how many of the first tasks are told by one line.
func (p *treePrinter) alike(kids []int) int {
	first := &p.t.Tasks[kids[0]]
	n := 1
	for n < len(kids) {
		t := &p.t.Tasks[kids[n]]
		if len(p.children[kids[n]])+len(p.children[kids[0]]) > 0 || t.TID == p.program || first.TID == p.program ||
			t.Comm != first.Comm || t.Via != first.Via || t.Flags != first.Flags || t.Path != first.Path ||
			t.AskedPath != first.AskedPath || end(t) != end(first) || len(t.Notes)+len(first.Notes) > 0 {
			break
		}
		n++
	}
	if n < enough {
		return 1
	}
	return n
}

func (p *treePrinter) line(tasks []int, branch, below string) {
	t := &p.t.Tasks[tasks[0]]
	name := fmt.Sprintf("%s-%d", word(t.Comm), t.TID)
	if n := len(tasks); n > 1 {
		name += fmt.Sprintf(" … %d (%d alike)", p.t.Tasks[tasks[n-1]].TID, n)
	}
	if p.program > 0 && t.TID == p.program {
		name += " *"
	}
	start, life := "-", "-"
	if t.Born != nil {
		start = seconds(*t.Born)
	}
	if shortest, longest, ok := p.lives(tasks); ok {
		life = Span(shortest)
		if more := Span(longest); more != life {
			life += "–" + more
		}
	}
	by, flags := "", ""
	if t.Born != nil {
		by, flags = cmp.Or(word(t.Via), "-"), cmp.Or(word(t.Flags), "-")
	}
	if a := t.AskedBy; a != nil {
		flags += fmt.Sprintf(", asked for by %s-%d", word(a.Comm), a.TID)
		if t.AskedPath > 0 {
			flags += fmt.Sprintf(" (#%d)", t.AskedPath)
		}
	}
	p.lines = append(p.lines, Line{Branch: branch, Name: name, Tasks: tasks, Start: start, Life: life, End: end(t), By: by, Path: t.Path, Flags: flags})
	for _, n := range t.Notes {
		p.lines = append(p.lines, Line{Branch: below, Remark: "   note: " + text.Line(n, 300)})
	}
}

// lives returns the shortest and the longest life of tasks that were born and died.
func (p *treePrinter) lives(tasks []int) (shortest, longest int64, ok bool) {
	for _, i := range tasks {
		t := &p.t.Tasks[i]
		if t.Born == nil || t.Died == nil {
			return 0, 0, false
		}
		d := *t.Died - *t.Born
		if !ok || d < shortest {
			shortest = d
		}
		longest, ok = max(longest, d), true
	}
	return shortest, longest, ok
}

// end is how a task ended: "alive" at the end of the trace for one that was born
// in it, nothing for one that was there before and stayed.
func end(t *Task) string {
	switch {
	case t.Exit != nil:
		return t.Exit.String()
	case t.Died != nil:
		return "ended"
	case t.Born != nil:
		return "alive"
	}
	return ""
}

func word(s string) string { return text.Line(s, 200) }

func seconds(ns int64) string { return fmt.Sprintf("%d.%06d", ns/1e9, ns%1e9/1000) }

// Span is a duration in three digits: "12.3 ms".
func Span(ns int64) string {
	switch d := time.Duration(ns); {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(ns)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}
