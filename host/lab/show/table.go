package show

import (
	"regexp"
	"strings"
)

// Tables of a lesson are laid out here: glamour clips cells that a terminal has
// no room for and leaves their markup as it is. A cell is wrapped by words, in
// columns as wide as they fit.

// part is some of a lesson: prose, or the lines of one table.
type part struct {
	text  string
	table []string
}

var (
	fence     = regexp.MustCompile("^ {0,3}(```+|~~~+)")
	delimiter = regexp.MustCompile(`^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$`)
)

// parts cuts a lesson at its tables (GFM, 4.10): a row with a bar, a row of dashes,
// and all rows up to an empty line.
func parts(source string) (out []part) {
	var prose strings.Builder
	closing := ""
	lines := strings.Split(source, "\n")
	for i := 0; i < len(lines); i++ {
		if m := fence.FindStringSubmatch(lines[i]); m != nil && closing == "" {
			closing = m[1]
		} else if m != nil && strings.HasPrefix(m[1], closing) {
			closing = ""
		}
		start := i
		if closing == "" && i+1 < len(lines) && strings.Contains(lines[i], "|") && strings.Contains(lines[i+1], "|") && delimiter.MatchString(lines[i+1]) {
			for i+1 < len(lines) && strings.TrimSpace(lines[i+1]) != "" {
				i++
			}
			out = append(out, part{text: prose.String()}, part{table: lines[start : i+1]})
			prose.Reset()
			continue
		}
		prose.WriteString(lines[i])
		prose.WriteByte('\n')
	}
	return append(out, part{text: prose.String()})
}

// style is a run's: a bit each.
type style int

const (
	strong style = 1 << iota
	emphasis
	code
)

// run is text of one style, without blanks.
type run struct {
	text  string
	style style
}

// word is what is not broken while a line has room for it.
type word []run

func (w word) width() (n int) {
	for _, r := range w {
		n += width.StringWidth(r.text)
	}
	return n
}

// split cuts a word in two, the first of at most cells cells.
func (w word) split(cells int) (head, tail word) {
	for i, r := range w {
		n := width.StringWidth(r.text)
		if n <= cells {
			head, cells = append(head, r), cells-n
			continue
		}
		first := width.Truncate(r.text, cells, "")
		if first == "" && len(head) == 0 { // a cell is narrower than a letter
			first = string([]rune(r.text)[:1])
		}
		if first != "" {
			head = append(head, run{first, r.style})
		}
		if rest := r.text[len(first):]; rest != "" {
			tail = append(tail, run{rest, r.style})
		}
		return head, append(tail, w[i+1:]...)
	}
	return head, nil
}

var link = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// words reads a cell's inline markup: code, strong, emphasis and links, of which
// the text is left.
func words(cell string) (out []word) {
	cell = link.ReplaceAllString(cell, "$1")
	var now style
	var cur word
	add := func(s string) {
		for i, piece := range strings.Split(s, " ") {
			if i > 0 && len(cur) > 0 {
				out, cur = append(out, cur), nil
			}
			if piece != "" {
				cur = append(cur, run{piece, now})
			}
		}
	}
	for cell != "" {
		i := strings.IndexAny(cell, "`*\\")
		if i < 0 {
			i = len(cell)
		}
		add(cell[:i])
		cell = cell[i:]
		switch {
		case cell == "":
		case cell[0] == '\\' && len(cell) > 1:
			add(cell[1:2])
			cell = cell[2:]
		case cell[0] == '`':
			ticks := cell[:len(cell)-len(strings.TrimLeft(cell, "`"))]
			text, rest, closed := strings.Cut(cell[len(ticks):], ticks)
			if !closed {
				add(ticks)
				cell = cell[len(ticks):]
				break
			}
			now |= code
			add(strings.TrimSpace(text))
			now &^= code
			cell = rest
		case strings.HasPrefix(cell, "**") && (now&strong != 0 || strings.Contains(cell[2:], "**")):
			now ^= strong
			cell = cell[2:]
		case cell[0] == '*' && (now&emphasis != 0 || strings.Contains(cell[1:], "*")):
			now ^= emphasis
			cell = cell[1:]
		default:
			add(cell[:1])
			cell = cell[1:]
		}
	}
	if len(cur) > 0 {
		out = append(out, cur)
	}
	return out
}

// cellsOf cuts a row at its bars; "\|" is none.
func cellsOf(row string) (out []string) {
	row = strings.TrimSpace(row)
	row = strings.TrimPrefix(row, "|")
	if strings.HasSuffix(row, "|") && !strings.HasSuffix(row, `\|`) {
		row = row[:len(row)-1]
	}
	var b strings.Builder
	for i := 0; i < len(row); i++ {
		switch {
		case row[i] == '\\' && i+1 < len(row) && row[i+1] == '|':
			b.WriteByte('|')
			i++
		case row[i] == '|':
			out = append(out, strings.TrimSpace(b.String()))
			b.Reset()
		default:
			b.WriteByte(row[i])
		}
	}
	return append(out, strings.TrimSpace(b.String()))
}

// line is some words of a cell beside each other.
type line []word

func (l line) width() (n int) {
	for i, w := range l {
		if i > 0 {
			n++
		}
		n += w.width()
	}
	return n
}

// wrap breaks words into lines of at most cells cells.
func wrap(all []word, cells int) (out []line) {
	var cur line
	for _, w := range all {
		if len(cur) > 0 && cur.width()+1+w.width() > cells {
			out, cur = append(out, cur), nil
		}
		for w.width() > cells {
			head, tail := w.split(cells)
			if len(tail) == 0 {
				break
			}
			out, w = append(out, line{head}), tail
		}
		cur = append(cur, w)
	}
	if len(cur) > 0 {
		out = append(out, cur)
	}
	return out
}

// Layout of tables.
const (
	tableMargin = 2 // as glamour's documents have it
	narrowest   = 4 // cells of a column
	between     = " │ "
)

// widths chooses the columns' widths, from the natural ones and those of the
// longest words, so that they take at most cells cells in all: the widest column
// gives first.
func widths(natural, longest []int, cells int) []int {
	w := append([]int(nil), natural...)
	for _, least := range [][]int{longest, nil} {
		for {
			total, widest := 0, -1
			for i, n := range w {
				total += n
				floor := narrowest
				if least != nil {
					floor = max(floor, least[i])
				}
				if n > floor && (widest < 0 || n > w[widest]) {
					widest = i
				}
			}
			if total <= cells {
				return w
			}
			if widest < 0 {
				break
			}
			w[widest]--
		}
	}
	return w
}

// table lays the rows of a Markdown table out for so many cells.
func table(rows []string, cells int, plain bool) string {
	head := cellsOf(rows[0])
	right := make([]bool, len(head))
	for i, d := range cellsOf(rows[1]) {
		if i < len(right) {
			right[i] = strings.HasSuffix(d, ":") && !strings.HasPrefix(d, ":")
		}
	}
	natural, longest := make([]int, len(head)), make([]int, len(head))
	var all [][][]word // by row, by column
	for i, r := range rows {
		if i == 1 {
			continue
		}
		row := make([][]word, len(head))
		for j, c := range cellsOf(r) {
			if j == len(head) {
				break // as GFM has it
			}
			row[j] = words(c)
			natural[j] = max(natural[j], line(row[j]).width())
			for _, w := range row[j] {
				longest[j] = max(longest[j], w.width())
			}
		}
		all = append(all, row)
	}
	w := widths(natural, longest, cells-tableMargin-width.StringWidth(between)*(len(head)-1))
	var b strings.Builder
	margin := strings.Repeat(" ", tableMargin)
	for i, row := range all {
		wrapped, height := make([][]line, len(row)), 1
		for j := range row {
			wrapped[j] = wrap(row[j], w[j])
			height = max(height, len(wrapped[j]))
		}
		for k := range height {
			b.WriteString(margin)
			for j := range row {
				var l line
				if k < len(wrapped[j]) {
					l = wrapped[j][k]
				}
				gap := strings.Repeat(" ", max(0, w[j]-l.width()))
				if j > 0 {
					b.WriteString(between)
				}
				if right[j] {
					b.WriteString(gap)
				}
				printLine(&b, l, i == 0, plain)
				if !right[j] {
					b.WriteString(gap)
				}
			}
			b.WriteByte('\n')
		}
		if i == 0 {
			b.WriteString(margin)
			for j := range w {
				if j > 0 {
					b.WriteString("─┼─")
				}
				b.WriteString(strings.Repeat("─", w[j]))
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// printLine prints words with their styles, where those can be shown.
func printLine(b *strings.Builder, l line, head, plain bool) {
	for i, w := range l {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, r := range w {
			s := r.style
			if head {
				s |= strong
			}
			if plain || s == 0 {
				b.WriteString(r.text)
				continue
			}
			var sgr []string
			for _, a := range []struct {
				bit  style
				code string
			}{{strong, "1"}, {emphasis, "3"}, {code, "38;5;203"}} {
				if s&a.bit != 0 {
					sgr = append(sgr, a.code)
				}
			}
			b.WriteString("\x1b[" + strings.Join(sgr, ";") + "m" + r.text + "\x1b[0m")
		}
	}
}
