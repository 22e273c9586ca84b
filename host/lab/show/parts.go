package show

import (
	"strings"

	"labctl/host/text"
	"labctl/host/ui/table"
)

// Lessons are laid out here. glamour did it before: it clips a table's cells and
// leaves their markup as it is, breaks the lines of an item where its source does,
// and its highlighter took a third of the time in which labctl starts.

// part is some of a lesson: prose, or one of the others.
type part struct {
	prose []string // its lines
	table []string // its rows
	code  []string // its lines
	list  []item
}

// item is a paragraph of a list.
type item struct {
	indent int    // cells of source in front of it
	marker string // "•", "1."; "" for one that belongs to the item before it
	text   string
}

var (
	fence     = text.Lazy("^ {0,3}(```+|~~~+)")
	delimiter = text.Lazy(`^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$`)
	marked    = text.Lazy(`^( *)([-*+]|[0-9]{1,3}[.)]) +(\S.*)$`)
	heading   = text.Lazy(`^ {0,3}(#{1,6}) +(.*?) *#*$`)
)

// parts cuts a lesson (CommonMark, and tables of GFM).
func parts(source string) (out []part) {
	lines := strings.Split(source, "\n")
	var prose []string
	add := func(p part) {
		out = append(out, part{prose: prose}, p)
		prose = nil
	}
	blank := func(i int) bool { return i < 0 || i >= len(lines) || strings.TrimSpace(lines[i]) == "" }
	for i := 0; i < len(lines); {
		n := 0
		switch {
		case fence.MatchString(lines[i]):
			n = 1
			for end := fence.FindStringSubmatch(lines[i])[1]; i+n < len(lines) && !strings.HasPrefix(strings.TrimSpace(lines[i+n]), end); {
				n++
			}
			add(part{code: lines[i+1 : i+n]})
			n++
		case i+1 < len(lines) && strings.Contains(lines[i], "|") && strings.Contains(lines[i+1], "|") && delimiter.MatchString(lines[i+1]):
			for n = 2; !blank(i + n); {
				n++
			}
			add(part{table: lines[i : i+n]})
		case (blank(i-1) || len(prose) == 0 || heading.MatchString(lines[i-1])) && marked.MatchString(lines[i]):
			for n = 1; i+n < len(lines) && !fence.MatchString(lines[i+n]); n++ {
				// After an empty line a list goes on with an item, or what is indented.
				if next := i + n + 1; blank(i+n) && (blank(next) || lines[next][0] != ' ' && !marked.MatchString(lines[next])) {
					break
				}
			}
			add(part{list: items(lines[i : i+n])})
		default:
			prose = append(prose, lines[i])
			n = 1
		}
		i += n
	}
	add(part{})
	return out
}

// items reads the lines of a list.
func items(lines []string) (out []item) {
	apart := false
	for _, l := range lines {
		m := marked.FindStringSubmatch(l)
		switch {
		case m != nil:
			if !strings.ContainsAny(m[2], "0123456789") {
				m[2] = "•"
			}
			out = append(out, item{len(m[1]), m[2], m[3]})
		case strings.TrimSpace(l) == "":
		case apart:
			last := out[len(out)-1]
			indent := last.indent
			if last.marker != "" {
				indent += len(last.marker) + 1
			}
			out = append(out, item{indent: indent, text: strings.TrimSpace(l)})
		default:
			out[len(out)-1].text += " " + strings.TrimSpace(l)
		}
		apart = strings.TrimSpace(l) == ""
	}
	return out
}

// margin is what stands to the left of everything.
const margin = 2

// prose lays headings and paragraphs out for so many cells.
func prose(lines []string, cells int, plain bool) string {
	var b strings.Builder
	var para []string
	put := func(head, s string, more style) {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		left := strings.Repeat(" ", margin) + head
		for _, l := range wrap(words(s), cells-table.Width(left)) {
			b.WriteString(left)
			printLine(&b, l, more, plain)
			b.WriteByte('\n')
		}
	}
	end := func() {
		if len(para) > 0 {
			put("", strings.Join(para, " "), 0)
			para = nil
		}
	}
	for _, l := range lines {
		switch m := heading.FindStringSubmatch(l); {
		case m != nil && plain:
			end()
			put(m[1]+" ", m[2], 0)
		case m != nil:
			end()
			put("", m[2], strong)
		case strings.TrimSpace(l) == "":
			end()
		default:
			para = append(para, strings.TrimSpace(l))
		}
	}
	end()
	return b.String()
}

// list lays items out for so many cells, their further lines under their first.
func list(all []item, cells int, plain bool) string {
	var b strings.Builder
	for _, it := range all {
		head := strings.Repeat(" ", margin+min(it.indent, cells/4))
		if it.marker != "" {
			head += it.marker + " "
		}
		under := strings.Repeat(" ", table.Width(head))
		for i, l := range wrap(words(it.text), cells-len(under)) {
			if i > 0 {
				head = under
			}
			b.WriteString(head)
			printLine(&b, l, 0, plain)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// listing lays code out for so many cells. A line that is longer goes on below,
// further to the right. One that fits stays as it is, for it may be a picture's.
func listing(lines []string, cells int) string {
	var b strings.Builder
	for _, l := range lines {
		l = strings.TrimRight(strings.ReplaceAll(l, "\t", "    "), " ")
		code := strings.TrimLeft(l, " ")
		indent := len(l) - len(code)
		if margin+2+table.Width(l) > cells {
			indent = min(indent, cells/4)
		}
		left := strings.Repeat(" ", margin+2+indent)
		room := cells - len(left)
		for table.Width(code) > room {
			head := table.First(code, room)
			if at := strings.LastIndexByte(head, ' '); at > len(head)/2 {
				head = head[:at]
			}
			b.WriteString(left + head + "\n")
			code = strings.TrimLeft(code[len(head):], " ")
			left = strings.Repeat(" ", min(len(left), margin+2+cells/4)+4)
			room = cells - len(left)
		}
		b.WriteString(left + code + "\n")
	}
	return b.String()
}
