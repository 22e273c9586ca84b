package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/tasks"
	"labctl/host/ui/table"
)

// Options say how views are drawn.
type Options struct {
	Lang  string // "en", "ko"
	Cells int    // of the terminal's width
	Plain bool   // without colours
}

// Bounds on what a terminal shows of one view.
const (
	maxFrames = 24
	maxWho    = 8
)

// Terminal draws views for a terminal, each below its title.
func Terminal(w io.Writer, views []*View, o Options) error {
	o.Cells = max(o.Cells, 40)
	for i, v := range views {
		p := page{Options: o}
		if i > 0 {
			p.b.WriteByte('\n')
		}
		p.view(v)
		if _, err := io.WriteString(w, p.b.String()); err != nil {
			return err
		}
	}
	return nil
}

// page is what is drawn.
type page struct {
	Options
	b strings.Builder
}

func (p *page) f(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

func (p *page) in(w Words) string { return line(w.In(p.Lang)) }

// line makes words fit for a line.
func line(s string) string { return text.Line(s, 400) }

// SGR sequences. Green and red never say alone what they say.
const (
	bold  = "1"
	dim   = "2"
	green = "32"
	red   = "31"
	blue  = "36"
)

func (p *page) paint(s, sgr string) string {
	if p.Plain || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (p *page) wrap(indent, s string) {
	for _, l := range table.Wrap(s, p.Cells-table.Width(indent), "") {
		p.f("%s%s\n", indent, l)
	}
}

func (p *page) view(v *View) {
	p.f("%s\n", p.paint(p.in(v.Title), bold))
	switch {
	case v.Absent != nil:
		p.wrap("  ", "– "+p.in(*v.Absent))
		return
	case v.Failed != "":
		p.wrap("  ", "! "+line(v.Failed))
		return
	case v.Table != nil:
		p.table(v.Table)
	case v.Tree != nil:
		p.tree(v.Tree)
	case v.Stacks != nil:
		p.stacks(v.Stacks)
	case v.Timeline != nil:
		p.timeline(v.Timeline)
	case v.Walk != nil:
		p.walk(v.Walk)
	case v.Layout != nil:
		p.layout(v.Layout)
	case v.Compare != nil:
		p.compare(v.Compare)
	case v.Pre != "":
		for l := range strings.Lines(text.Lines(v.Pre)) {
			p.f("  %s\n", table.Cut(strings.TrimRight(l, "\n"), p.Cells-2))
		}
	}
	if s := p.in(v.Note); s != "" {
		p.wrap("  ", s)
	}
}

// sign is how a cell is shown where there is room for little.
func (c *Cell) sign() string {
	switch c.Kind {
	case Yes:
		return "✓"
	case No:
		return "·"
	case None:
		return "–"
	case Wrong:
		return "!"
	}
	return line(c.Text)
}

func (p *page) grid(head ...string) *table.Table {
	t := &table.Table{Width: p.Cells, Narrowest: 10, Indent: 2, Columns: make([]table.Column, len(head))}
	for _, h := range head {
		t.Head = append(t.Head, table.Text{S: h})
	}
	return t
}

func (p *page) more(n int) {
	if n > 0 {
		p.f("  … "+p.in(wordMore)+"\n", n)
	}
}

func (p *page) table(t *Table) {
	if len(t.Rows) == 0 {
		p.f("  %s\n", p.in(wordNothing))
		return
	}
	var head []string
	if t.Named {
		head = append(head, "")
	}
	for _, c := range t.Columns {
		head = append(head, p.in(c.Head))
	}
	g := p.grid(head...)
	first := len(head) - len(t.Columns)
	for i, c := range t.Columns {
		at := &g.Columns[first+i]
		at.Right, at.Wrap = c.Right, true
	}
	g.Narrowest = 4
	var wrong []string
	for _, r := range t.Rows {
		var row []any
		if t.Named {
			row = append(row, p.in(r.Name))
		}
		for i := range r.Cells {
			c := &r.Cells[i]
			s := c.sign()
			if c.Kind == Said {
				s = p.in(c.Words)
			}
			switch c.Kind {
			case Yes:
				s = p.paint(s, green)
			case Wrong:
				s = p.paint(s, red)
				if m := cmp.Or(p.in(c.Words), line(c.Text)); !slices.Contains(wrong, m) {
					wrong = append(wrong, m)
				}
			}
			row = append(row, table.Text{S: s, After: "|/"})
		}
		g.Row(row...)
	}
	p.b.WriteString(g.String())
	p.more(t.More)
	for _, m := range wrong {
		p.wrap("  ", "! "+m)
	}
}

func (p *page) tree(t *Tree) {
	if t.Tasks == nil || len(t.Tasks.Tasks) == 0 {
		p.f("  %s\n", p.in(wordNothing))
		return
	}
	g := p.grid(p.in(wordTask), p.in(wordLife), p.in(wordEnd), p.in(wordBy), p.in(wordFlags))
	last := &g.Columns[len(g.Columns)-1]
	last.Wrap = true
	for _, l := range t.Tasks.Lines(t.Program) {
		if l.Remark != "" {
			g.Row(l.Branch + line(l.Remark))
			continue
		}
		g.Row(l.Branch+line(l.Name), l.Life, line(l.End), line(l.By), table.Text{S: short(l.Flags), After: "|"})
	}
	p.b.WriteString(g.String())
}

// short leaves out of flags what all of them begin with.
func short(flags string) string { return strings.ReplaceAll(line(flags), "CLONE_", "") }

func (p *page) times(n int) string {
	if n == 1 {
		return p.in(wordOnce)
	}
	return fmt.Sprintf(p.in(wordTimes), n)
}

// who are names, no more than can be read.
func who(names []string) string {
	more := ""
	if n := len(names); n > maxWho {
		names, more = names[:maxWho], fmt.Sprintf(", … %d", n-maxWho)
	}
	var all []string
	for _, n := range names {
		all = append(all, line(n))
	}
	return strings.Join(all, ", ") + more
}

func (p *page) stacks(s *Stacks) {
	if len(s.Paths) == 0 {
		p.f("  %s\n", p.in(wordNothing))
	}
	for i := range s.Paths {
		path := &s.Paths[i]
		p.wrap("  ", fmt.Sprintf("#%d %s (%s)", i+1, who(path.Who), p.times(path.Count)))
		p.frames(&path.Stack)
	}
	p.more(s.More)
}

func (p *page) frames(s *stack.Stack) {
	n := 0
	for l := range strings.Lines(s.TRACE32()) {
		if n++; n > maxFrames {
			p.more(strings.Count(s.TRACE32(), "\n") - maxFrames)
			return
		}
		p.f("  %s\n", table.Cut(strings.TrimRight(l, "\n"), p.Cells-2))
	}
}

func (p *page) timeline(t *Timeline) {
	if len(t.Lanes) == 0 || t.End <= t.Start {
		p.f("  %s\n", p.in(wordNothing))
		return
	}
	names := 0
	for _, l := range t.Lanes {
		names = max(names, table.Width(p.in(l.Name)))
	}
	names = min(names, p.Cells/3)
	room := p.Cells - names - 5
	place := func(at int64) int {
		return int(min(max(at-t.Start, 0), t.End-t.Start) * int64(room-1) / (t.End - t.Start))
	}
	used := map[State]bool{}
	for i, l := range t.Lanes {
		bar := slices.Repeat([]rune{' '}, room)
		for _, s := range l.Spans {
			m, _ := explain(s.State)
			used[s.State] = true
			for c := place(s.From); c <= place(s.To); c++ {
				if bar[c] != '█' || s.State == Running { // what ran is never hidden by what did not
					bar[c] = m
				}
			}
		}
		p.f("  %s │%s\n", table.Pad(table.Cut(p.in(l.Name), names), names), strings.TrimRight(p.bar(bar), " "))
		p.marks(t, i, names, room, place)
	}
	p.f("  %s └%s\n", strings.Repeat(" ", names), strings.Repeat("─", room))
	p.f("  %s  0%*s\n", strings.Repeat(" ", names), room-1, tasks.Span(t.End-t.Start))
	var says []string
	for _, l := range legend {
		if used[l.state] {
			says = append(says, string(l.mark)+" "+p.in(l.says))
		}
	}
	p.wrap("  ", strings.Join(says, "  "))
	p.more(t.More)
}

func (p *page) bar(bar []rune) string {
	if p.Plain {
		return string(bar)
	}
	return strings.NewReplacer("█", p.paint("█", green), "━", p.paint("━", red), "·", p.paint("·", dim)).Replace(string(bar))
}

// marks puts the moments of a lane below it, each at its place where there is room.
func (p *page) marks(t *Timeline, lane, names, room int, place func(int64) int) {
	var rows []string
	for _, m := range t.Marks {
		if m.Lane != lane {
			continue
		}
		label := "^ " + table.Cut(p.in(m.Text), room/2)
		at := place(m.Time)
		if at+table.Width(label) > room {
			label = table.Cut(p.in(m.Text), room/2) + " ^"
			at = max(0, at-table.Width(label)+1)
		}
		put := false
		for i := range rows {
			if table.Width(rows[i])+2 <= at {
				rows[i], put = table.Pad(rows[i], at)+label, true
				break
			}
		}
		if !put && len(rows) < 6 {
			rows = append(rows, strings.Repeat(" ", at)+label)
		}
	}
	for _, r := range rows {
		p.f("  %s │%s\n", strings.Repeat(" ", names), p.paint(r, blue))
	}
}

func (p *page) walk(w *Walk) {
	if a := line(w.Address); a != "" {
		p.f("  %s\n", a)
	}
	g := p.grid(p.in(wordLevel), p.in(wordBits), p.in(wordIndex), p.in(wordEntry))
	g.Columns[2].Right = true
	g.Columns[3].Wrap = true
	for i, s := range w.Levels {
		branch := ""
		if i > 0 {
			branch = strings.Repeat("  ", i-1) + "└ "
		}
		g.Row(branch+line(s.Name), line(s.Bits), line(s.Index), line(s.Entry))
	}
	p.b.WriteString(g.String())
	if to := line(w.To); to != "" {
		p.f("  %s→ %s\n", strings.Repeat("  ", max(0, len(w.Levels)-1)), to)
	}
}

// hole is a place where a layout's next member does not begin at once.
func (l *Layout) hole(i int) (from, size int64) {
	if i == 0 {
		return 0, max(0, l.Members[0].Offset)
	}
	m := &l.Members[i-1]
	if m.Size == 0 {
		return 0, 0
	}
	return m.Offset + m.Size, max(0, l.Members[i].Offset-m.Offset-m.Size)
}

func (p *page) layout(l *Layout) {
	head := line(l.Name)
	if l.Size > 0 {
		head += ", " + fmt.Sprintf(p.in(wordBytes), l.Size)
	}
	p.f("  %s\n", head)
	g := p.grid(p.in(wordOffset), p.in(wordSize), p.in(wordMember), p.in(wordType), "")
	g.Columns[0].Right, g.Columns[1].Right, g.Columns[3].Wrap, g.Columns[4].Wrap = true, true, true, true
	for i, m := range l.Members {
		if from, size := l.hole(i); size > 0 {
			g.Row(from, size, "…")
		}
		size := ""
		if m.Size > 0 {
			size = fmt.Sprint(m.Size)
		}
		g.Row(m.Offset, size, line(m.Name), line(m.Type), line(m.Note))
	}
	p.b.WriteString(g.String())
}

func (p *page) compare(c *Compare) {
	var heads []string
	most := 0
	for _, s := range c.Sides {
		heads, most = append(heads, p.in(s.Title)), max(most, len(s.Lines))
	}
	g := p.grid(heads...)
	for i := range g.Columns {
		g.Columns[i].Wrap = true
	}
	for _, r := range c.rows() {
		var row []any
		for _, s := range r {
			row = append(row, table.Text{S: line(s), After: "_."})
		}
		g.Row(row...)
	}
	if most == 0 {
		p.f("  %s\n", p.in(wordNothing))
		return
	}
	p.b.WriteString(g.String())
}

// maxAligned bounds the lines that are aligned by what they have in common.
const maxAligned = 400

// rows puts lines beside each other that are the same, in their order; where there are
// only two sides. More are put side by side as they are.
func (c *Compare) rows() (out [][]string) {
	at := func(lines []string, i int) string {
		if i < len(lines) {
			return lines[i]
		}
		return ""
	}
	if len(c.Sides) != 2 || len(c.Sides[0].Lines) > maxAligned || len(c.Sides[1].Lines) > maxAligned {
		most := 0
		for _, s := range c.Sides {
			most = max(most, len(s.Lines))
		}
		for i := range most {
			var row []string
			for _, s := range c.Sides {
				row = append(row, at(s.Lines, i))
			}
			out = append(out, row)
		}
		return out
	}
	a, b := c.Sides[0].Lines, c.Sides[1].Lines
	// longest[i][j] is the length of what a[i:] and b[j:] have in common.
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, []string{a[i], b[j]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			out = append(out, []string{a[i], ""})
			i++
		default:
			out = append(out, []string{"", b[j]})
			j++
		}
	}
	return out
}
