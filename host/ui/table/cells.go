package table

import (
	"strings"

	"github.com/mattn/go-runewidth"

	"labctl/host/text"
)

// condition counts the same whatever the locale says of ambiguous characters.
var condition = runewidth.Condition{StrictEmojiNeutral: true}

// colour is a sequence that sets colours and styles, which takes no cells.
var colour = text.Lazy("\x1b\\[[0-9;]*m")

// Width is how many cells of a terminal a line takes; a Korean syllable takes two,
// and sequences that set a colour take none.
func Width(s string) int {
	if strings.IndexByte(s, '\x1b') >= 0 {
		s = colour.ReplaceAllString(s, "")
	}
	return condition.StringWidth(s)
}

// Pad adds spaces up to a width.
func Pad(s string, cells int) string { return s + spaces(cells-Width(s)) }

func spaces(n int) string { return strings.Repeat(" ", max(0, n)) }

// Cut shortens a line to at most so many cells. What was cut ends in "…".
func Cut(s string, cells int) string { return condition.Truncate(s, cells, "…") }

// CutLeft is Cut for a line whose end says more than its start.
func CutLeft(s string, cells int) string {
	n := Width(s)
	if n <= cells {
		return s
	}
	return condition.TruncateLeft(s, n-cells+1, "…")
}

// First is the part of a line that fits into so many cells, and may be empty.
func First(s string, cells int) string { return condition.Truncate(s, cells, "") }

// Wrap breaks a text into lines of at most so many cells, between words, and within
// a word only if it is longer than a line. Such a word breaks after one of the
// ASCII characters in after if one stands in the second half of the line. The text
// must be clean. A character that is wider than a line stays whole.
func Wrap(s string, cells int, after string) []string {
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(s) {
		n := Width(word)
		if line != "" && used+1+n > cells { // a word of no width is on the line, too
			lines, line, used = append(lines, line), "", 0
		}
		for n > cells {
			head := First(word, cells)
			if head == "" {
				break
			}
			if at := strings.LastIndexAny(head, after); at > len(head)/2 {
				head = head[:at+1]
			}
			lines, word = append(lines, head), word[len(head):]
			n = Width(word)
		}
		if line != "" {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}
