package render

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"labctl/host/matrix"
	"labctl/host/text"
)

// MaxMarkdown is the most that GitHub takes as a step's summary, in bytes.
const MaxMarkdown = 1 << 20

// A table with more columns than this is parted by target.
const maxMarkdownColumns = 12

// Markdown writes results as a summary for GitHub: a table, the failures to be
// unfolded, and the sums. It is at most MaxMarkdown bytes; where more would be
// said, the last line says that it was cut. seen may be nil (Options.Seen); of each lab it
// is asked for the first cell that was judged.
func Markdown(w io.Writer, r *matrix.Results, seen func(*matrix.Result) string) error {
	all := entries(r)
	n := count(all)
	title := "✅ "
	if n.red() > 0 {
		title = "❌ "
	}
	m := markdown{limit: MaxMarkdown - 1<<10}
	m.add("## " + title + text.Markdown(cmp.Or(text.Line(r.Name, 80), "labctl matrix")) + "\n\n")
	for _, s := range sums(r, n) {
		m.add(text.Markdown(s) + "  \n")
	}
	m.grid(newSheet(all))
	if n.red() > 0 {
		m.add("\n### Failed\n")
	}
	for i := range all {
		if o := &all[i]; o.Status.Failed() {
			m.failure(o)
		}
	}
	m.flaky(all)
	m.reports(all)
	for i, g := range notApplicable(all) {
		if i == 0 {
			m.add("\n### Not applicable\n")
		}
		m.details(fmt.Sprintf("➖ %s: %s", text.Markdown(g.reason), plural(len(g.ids), "cell")), strings.Join(g.ids, "\n"))
	}
	if seen != nil {
		m.seen(all, seen)
	}
	if m.left > 0 {
		fmt.Fprintf(&m.b, "\n… cut here: GitHub takes %d KiB. The whole is in the run's records: `labctl report DIR --format markdown`.\n", MaxMarkdown>>10)
	}
	_, err := io.WriteString(w, m.b.String())
	return err
}

// markdown collects pieces, each whole or not at all; after the first that has no
// room none is taken.
type markdown struct {
	b     strings.Builder
	limit int
	left  int // pieces that had no room
}

func (m *markdown) add(piece string) {
	if m.left > 0 || m.b.Len()+len(piece) > m.limit {
		m.left++
		return
	}
	m.b.WriteString(piece)
}

func (m *markdown) grid(s sheet) {
	for _, columns := range s.fold(func(c []column) bool { return len(c) <= maxMarkdownColumns }) {
		head, rule := "\n| |", "|---|"
		for _, c := range columns {
			head += " " + text.Markdown(c.target) + "<br>" + text.Markdown(c.kernel) + " |"
			rule += ":-:|"
		}
		m.add(head + "\n" + rule + "\n")
		for _, r := range s.rows {
			if !r.has(columns) {
				continue
			}
			line := "| " + text.Markdown(r.name) + " |"
			for _, c := range columns {
				line += " " + markOf(r.cells[c]).emoji + " |"
			}
			m.add(line + "\n")
		}
	}
}

func (m *markdown) failure(o *entry) {
	var body []string
	for _, c := range o.failing() {
		body = append(body, lines(c)...)
	}
	if o.Record != "" {
		body = append(body, "record: "+text.Line(filepath.Clean(o.Record), maxReason))
	}
	if k := o.Result.Kernel; k.Release != "" {
		body = append(body, "kernel: "+text.Line(k.Release+" "+k.Version, 120))
	}
	if t := o.tail(); t != "" {
		body = append(body, "output:", t)
	}
	head := fmt.Sprintf("%s <b>%s</b> %s", markOf(o).emoji, text.Markdown(o.id()), text.Markdown(o.verdict()))
	m.details(head, strings.Join(body, "\n"))
}

// seen is what labs show.
func (m *markdown) seen(all []entry, seen func(*matrix.Result) string) {
	title, done := "\n### Seen\n", map[string]bool{}
	for i := range all {
		o := &all[i]
		if name := o.Cell.Work.Name; o.Cell.Work.Kind != matrix.Lab || o.absent || o.Status.Broken() || done[name] || m.left > 0 {
			continue
		}
		if body := seen(&o.Result); body != "" {
			done[o.Cell.Work.Name] = true
			m.add(title + "\n<details><summary>" + text.Markdown(o.id()) + "</summary>\n" + body + "\n</details>\n")
			title = ""
		}
	}
}

// details is one line that unfolds to a text; the line alone where there is none.
func (m *markdown) details(head, body string) {
	if body == "" {
		m.add("\n" + head + "\n")
		return
	}
	m.add("\n<details><summary>" + head + "</summary>\n\n<pre>\n" + text.Escape(body) + "\n</pre>\n</details>\n")
}

func (m *markdown) flaky(all []entry) {
	title := "\n### Flaky\n\n"
	for i := range all {
		if o := &all[i]; o.Flaky {
			m.add(title + "- " + text.Markdown(o.id()) + " " + text.Markdown(flakyLine(o)) + "\n")
			title = ""
		}
	}
}

func (m *markdown) reports(all []entry) {
	title := "\n### The kernel reported\n\n"
	for i := range all {
		o := &all[i]
		for _, l := range o.reports() {
			m.add(title + "- " + text.Markdown(o.id()) + " " + text.Markdown(l) + "\n")
			title = ""
		}
	}
}
