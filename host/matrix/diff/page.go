package diff

import (
	"fmt"
	"strings"

	"github.com/mattn/go-runewidth"

	"labctl/host/text"
)

// page is what is printed, on a terminal or in Markdown.
type page struct {
	o Options
	b strings.Builder
}

// table has cells of clean text, in one line each. The first code columns, or the
// last one when it is -1, hold names: in Markdown nothing in them is markup.
type table struct {
	head []string
	rows [][]string
	code int
}

var width = runewidth.Condition{StrictEmojiNeutral: true}

func (p *page) title(level int, s string) {
	s = text.Line(s, 1000)
	switch {
	case p.o.Markdown:
		fmt.Fprintf(&p.b, "\n%s %s\n", strings.Repeat("#", level), escape(s))
	case level < 4:
		fmt.Fprintf(&p.b, "\n%s\n", s)
	default:
		p.b.WriteByte('\n')
		p.line(s)
	}
}

// line is a paragraph.
func (p *page) line(s string) {
	s = text.Line(s, 4000)
	if p.o.Markdown {
		fmt.Fprintf(&p.b, "\n%s\n", escape(s))
		return
	}
	for _, l := range wrap(s, max(20, p.o.Cells-2)) {
		p.b.WriteString("  " + l + "\n")
	}
}

// code is a line of names.
func (p *page) code(s string) {
	if p.o.Markdown {
		fmt.Fprintf(&p.b, "\n%s\n", quote(text.Line(s, 4000)))
		return
	}
	p.line(s)
}

// cut prints the first rows of a table and says how many more there are.
func (p *page) cut(t *table) {
	more := 0
	if !p.o.All && len(t.rows) > maxRows {
		more = len(t.rows) - maxRows
		t.rows = t.rows[:maxRows]
	}
	p.table(*t)
	if more > 0 {
		p.line(fmt.Sprintf("%d more; %s", more, moreBy))
	}
}

func (p *page) table(t table) {
	if len(t.rows) == 0 {
		return
	}
	for _, r := range t.rows {
		for i := range r {
			r[i] = text.Line(r[i], 1<<20)
		}
	}
	if p.o.Markdown {
		p.markdown(t)
	} else {
		p.terminal(t)
	}
}

// names is a list of names in a table's last column.
func (p *page) names(names []string) string {
	if p.o.Markdown {
		return quote(strings.Join(names, " "))
	}
	return strings.Join(names, " ")
}

func (p *page) markdown(t table) {
	p.b.WriteByte('\n')
	line := func(cells []string, code int) {
		for i, c := range cells {
			switch {
			case code == -1 && i == len(cells)-1: // is made by names
			case i < code && c != "" && c != markSame && c != markNone && c != markUnknown:
				c = quote(c)
			default:
				c = escape(c)
			}
			p.b.WriteString("| " + c + " ")
		}
		p.b.WriteString("|\n")
	}
	line(t.head, 0)
	p.b.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
	for _, r := range t.rows {
		line(r, t.code)
	}
}

var escape = strings.NewReplacer(`\`, `\\`, "`", "\\`", "|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`).Replace

// quote makes a text one of code; even there a table's cells end at a bar.
func quote(s string) string {
	return "`" + strings.NewReplacer("`", "'", "|", `\|`).Replace(s) + "`"
}

// narrow is the width below which no column is made.
const narrow = 12

// terminal fits a table into the width: the widest columns are made narrower, and
// their cells take more lines.
func (p *page) terminal(t table) {
	rows := t.rows
	if strings.Join(t.head, "") != "" {
		rows = append([][]string{t.head}, rows...)
	}
	widths := make([]int, len(t.head))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], width.StringWidth(c))
		}
	}
	room := p.o.Cells - 2 // the indent
	for {
		sum, widest := -2, 0
		for i, w := range widths {
			sum += w + 2
			if w > widths[widest] {
				widest = i
			}
		}
		if sum <= room || widths[widest] <= narrow {
			break
		}
		widths[widest]--
	}
	for _, r := range rows {
		var lines [][]string
		most := 1
		for i, c := range r {
			l := wrap(c, widths[i])
			lines = append(lines, l)
			most = max(most, len(l))
		}
		for n := range most {
			var b strings.Builder
			for i := range r {
				s := ""
				if n < len(lines[i]) {
					s = lines[i][n]
				}
				b.WriteString("  " + s + strings.Repeat(" ", max(0, widths[i]-width.StringWidth(s))))
			}
			p.b.WriteString(strings.TrimRight(b.String(), " ") + "\n")
		}
	}
}

// wrap breaks a text into lines of at most so many cells, between words; a word
// that is longer than a line after one of | _ . ( , or where it must.
func wrap(s string, cells int) (lines []string) {
	line, used := "", 0
	flush := func() {
		if line != "" {
			lines = append(lines, line)
		}
		line, used = "", 0
	}
	for _, word := range strings.Fields(s) {
		n := width.StringWidth(word)
		if used > 0 && used+1+n > cells {
			flush()
		}
		for n > cells {
			head := width.Truncate(word, cells, "")
			if head == "" {
				break
			}
			if at := strings.LastIndexAny(head, "|_.(,"); at > len(head)/2 {
				head = head[:at+1]
			}
			lines, word = append(lines, head), word[len(head):]
			n = width.StringWidth(word)
		}
		if used > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	flush()
	if len(lines) == 0 {
		lines = []string{""}
	}
	return lines
}
