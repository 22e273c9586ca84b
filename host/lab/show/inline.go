package show

import (
	"strings"

	"labctl/host/text"
	"labctl/host/ui/table"
)

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
		n += table.Width(r.text)
	}
	return n
}

// split cuts a word in two, the first of at most cells cells.
func (w word) split(cells int) (head, tail word) {
	for i, r := range w {
		n := table.Width(r.text)
		if n <= cells {
			head, cells = append(head, r), cells-n
			continue
		}
		first := table.First(r.text, cells)
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

var link = text.Lazy(`\[([^\]]*)\]\([^)]*\)`)

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

// printLine prints words with their styles and more, where those can be shown.
func printLine(b *strings.Builder, l line, more style, plain bool) {
	for i, w := range l {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, r := range w {
			s := r.style | more
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
