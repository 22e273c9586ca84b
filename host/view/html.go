package view

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"sync"

	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/tasks"
)

//go:embed html
var files embed.FS

// CSS and JS are what the pages that views stand on need: colours for light, dark and
// paper; zoom of timelines.
var (
	CSS = must(files.ReadFile("html/view.css"))
	JS  = must(files.ReadFile("html/view.js"))
)

func must(b []byte, err error) string {
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// Bounds on what HTML shows of one view.
const (
	maxTree  = 2000
	maxTold  = 200
	maxBoxes = 800
)

// HTML writes a view as a section of a page, in both languages: an element with
// lang="en" and one with lang="ko" of each text, of which the page's style shows one.
// prefix makes ids unique among the page's sections.
func HTML(w io.Writer, v *View, prefix string) error {
	err := templates().ExecuteTemplate(w, "view", struct {
		*View
		At string
	}{v, prefix + v.ID})
	if err != nil {
		return fmt.Errorf("view %s as HTML: %w", v.ID, err)
	}
	return nil
}

// Say writes words in both languages.
func Say(w Words) (template.HTML, error) {
	var b strings.Builder
	err := templates().ExecuteTemplate(&b, "say", w)
	return template.HTML(b.String()), err
}

// templates are parsed when a page is made: labctl's start does not wait for them.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(functions).ParseFS(files, "html/*.tmpl"))
})

var functions = template.FuncMap{
	"line": line, "soft": soft, "lines": text.Lines, "who": who,
	"word": func(name string) Words { return htmlWords[name] },
	"inc":  func(i int) int { return i + 1 },
	"trace32": func(s stack.Stack) string {
		return s.TRACE32()
	},
	"rows": treeRows, "left": func(t *Tree) int {
		if t.Tasks == nil {
			return 0
		}
		return max(0, len(t.Tasks.Lines(t.Program))-maxTree)
	},
	"icicle": icicle, "strip": strip,
	"indent":  func(i int) string { return strings.Repeat("  ", i) },
	"aligned": aligned,
	"laneTop": laneTop, "bar": barOf, "mark": markOf, "legend": legendOf, "names": markNames, "told": told,
	"span":     func(t *Timeline) int64 { return t.End - t.Start },
	"duration": func(t *Timeline) string { return tasks.Span(t.End - t.Start) },
}

var htmlWords = map[string]Words{
	"nothing": wordNothing, "yes": wordYes, "no": wordNo, "none": wordNone,
	"task": wordTask, "life": wordLife, "end": wordEnd, "by": wordBy, "flags": wordFlags,
	"level": wordLevel, "bits": wordBits, "index": wordIndex, "entry": wordEntry,
	"offset": wordOffset, "size": wordSize, "member": wordMember, "type": wordType,
}

// breaks is where long words of the kernel's may break.
var breaks = strings.NewReplacer("|", "|<wbr>", "/", "/<wbr>")

// soft is a line that may break within its words.
func soft(s string) template.HTML {
	return template.HTML(breaks.Replace(template.HTMLEscapeString(line(s))))
}

// treeRow is a line of a tree; Depth says for those who cannot see its branches how
// deep it is.
type treeRow struct {
	tasks.Line
	Depth string
}

func treeRows(t *Tree) (out []treeRow) {
	if t.Tasks == nil {
		return nil
	}
	lines := t.Tasks.Lines(t.Program)
	for _, l := range lines[:min(len(lines), maxTree)] {
		r := treeRow{Line: l}
		if d := len([]rune(l.Branch)) / 3; d > 0 {
			r.Depth = fmt.Sprintf("(%d)", d)
		}
		out = append(out, r)
	}
	return out
}

// boxes is rectangles that hold names, in percent of the width and pixels of height.
type boxes struct {
	Height int
	Says   string
	Boxes  []box
}

type box struct {
	Name         string
	X, W         string
	Y            int
	Shade, Count int
}

func percent(n, of int) string { return fmt.Sprintf("%.2f", 100*float64(n)/float64(of)) }

// node is a frame of an icicle, with the calls below it.
type node struct {
	name  string
	count int
	calls []*node
}

func (n *node) call(name string, count int) *node {
	for _, c := range n.calls {
		if c.name == name {
			c.count += count
			return c
		}
	}
	c := &node{name: name, count: count}
	n.calls = append(n.calls, c)
	return c
}

// boxHeight is a row's of an icicle, in pixels.
const boxHeight = 18

// icicle merges stacks from their outermost frames on: who was called by whom, as wide
// as it was often. There is none of a single stack.
func icicle(s *Stacks) *boxes {
	if len(s.Paths) < 2 {
		return nil
	}
	root := &node{}
	for i := range s.Paths {
		p := &s.Paths[i]
		at := root
		root.count += p.Count
		for f := len(p.Stack.Frames) - 1; f >= 0; f-- {
			at = at.call(p.Stack.Frames[f].Base(), p.Count)
		}
	}
	out := &boxes{Says: fmt.Sprintf("%d stacks, outermost function on top; the same as text is below", len(s.Paths))}
	out.lay(root, 0, 0, root.count)
	return out
}

func (b *boxes) lay(n *node, x, depth, all int) {
	for _, c := range n.calls {
		if len(b.Boxes) == maxBoxes {
			return
		}
		b.Boxes = append(b.Boxes, box{Name: c.name, X: percent(x, all), W: percent(c.count, all), Y: depth * boxHeight, Shade: depth % 4, Count: c.count})
		b.Height = max(b.Height, (depth+1)*boxHeight)
		b.lay(c, x, depth+1, all)
		x += c.count
	}
}

// strip is a structure's members by their places; nil where sizes are not known.
func strip(l *Layout) *boxes {
	if l.Size <= 0 || l.Size > 1<<20 {
		return nil
	}
	out := &boxes{Says: fmt.Sprintf("%d bytes", l.Size)}
	for i, m := range l.Members {
		if m.Size > 0 && m.Offset >= 0 && m.Offset+m.Size <= l.Size {
			out.Boxes = append(out.Boxes, box{Name: m.Name, X: percent(int(m.Offset), int(l.Size)), W: percent(int(m.Size), int(l.Size)), Shade: i % 4})
		}
	}
	return out
}

// alignedRow is a line of a comparison: Class says whether all sides have it.
type alignedRow struct {
	Class string
	Cells []string
}

func aligned(c *Compare) (out []alignedRow) {
	for _, r := range c.rows() {
		row := alignedRow{Class: "same", Cells: r}
		for _, s := range r {
			if s != r[0] {
				row.Class = "differs"
			}
		}
		out = append(out, row)
	}
	return out
}

// Sizes of a timeline's lanes, in pixels; times are in millionths of what is shown.
const (
	laneHeight = 22
	width      = 1_000_000
)

func laneTop(lane int) int { return lane * laneHeight }

// rect is a span or a mark as it is drawn; what a span is is told by its height, too.
type rect struct {
	Class      string
	X, W, Y, H int64
	Title      string
	Says       Words
}

// heights of states, so that colours are not all that tells them apart.
var heights = map[State]int64{Running: 16, Alive: 12, Ready: 10, "D": 6, "T": 6, "t": 6, "Z": 4}

func shape(s State) (class string, y, h int64) {
	h = heights[s]
	if h == 0 {
		h = 2
	}
	class = "s-other"
	for _, l := range legend {
		if l.state == s {
			class = "s-" + strings.NewReplacer("-", "asleep").Replace(string(s))
		}
	}
	return class, (16 - h) / 2, h
}

func (t *Timeline) x(at int64) int64 {
	return int64(float64(min(max(at, t.Start), t.End)-t.Start) / float64(t.End-t.Start) * width)
}

func barOf(t *Timeline, lane int, s Span) rect {
	class, y, h := shape(s.State)
	x := t.x(s.From)
	r := rect{Class: class, X: x, W: max(t.x(s.To)-x, 1), Y: int64(laneTop(lane)) + 3 + y, H: h}
	_, says := explain(s.State)
	r.Title = fmt.Sprintf("%s, %s", says.EN, tasks.Span(s.To-s.From))
	if s.State == Running {
		r.Title += fmt.Sprintf(", CPU %d", s.CPU)
	}
	return r
}

func markOf(t *Timeline, m Mark) rect {
	return rect{X: t.x(m.Time), Y: int64(laneTop(m.Lane)), H: int64(laneTop(m.Lane + 1)), Title: line(m.Text.EN)}
}

// legendOf explains the states that a timeline has.
func legendOf(t *Timeline) (out []rect) {
	used := map[State]bool{}
	for _, l := range t.Lanes {
		for _, s := range l.Spans {
			used[s.State] = true
		}
	}
	for _, l := range legend {
		if used[l.state] {
			class, y, h := shape(l.state)
			out = append(out, rect{Class: class, Y: y - 2, H: min(h, 12), Says: l.says})
		}
	}
	return out
}

// markNames are the names of a timeline's marks, each once.
func markNames(t *Timeline) (out []Words) {
	seen := map[Words]bool{}
	for _, m := range t.Marks {
		if !seen[m.Text] && len(out) < 12 {
			seen[m.Text] = true
			out = append(out, m.Text)
		}
	}
	return out
}

// toldRow is a span in words.
type toldRow struct {
	Lane, What Words
	At, For    string
}

func told(t *Timeline) (out []toldRow) {
	for _, l := range t.Lanes {
		for _, s := range l.Spans {
			if len(out) == maxTold {
				return out
			}
			_, says := explain(s.State)
			out = append(out, toldRow{l.Name, says, fmt.Sprintf("%.3f", float64(s.From-t.Start)/1e6), fmt.Sprintf("%.3f", float64(s.To-s.From)/1e6)})
		}
	}
	return out
}
