package table

import (
	"strings"
	"testing"
	"unicode"

	"labctl/host/text"
)

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "제목": 4, "–": 1, "\x1b[31mred\x1b[0m": 3, "\x1b[38;5;203m가\x1b[0m": 2} {
		if got := Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s           string
		cells       int
		right, left string
	}{
		{"abcdef", 6, "abcdef", "abcdef"},
		{"abcdef", 4, "abc…", "…def"},
		{"가나다", 4, "가…", "… 다"},
	} {
		if r, l := Cut(tt.s, tt.cells), CutLeft(tt.s, tt.cells); r != tt.right || l != tt.left {
			t.Errorf("Cut, CutLeft(%q, %d) = %q, %q; want %q, %q", tt.s, tt.cells, r, l, tt.right, tt.left)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		s     string
		cells int
		after string
		want  string
	}{
		{"", 10, "", ""},
		{"one two three", 8, "", "one two|three"},
		{"태스크마다 자기 번호가 있습니다", 10, "", "태스크마다|자기|번호가|있습니다"},
		{"가나다라마바", 4, "", "가나|다라|마바"},
		{"abcdefghij", 4, "", "abcd|efgh|ij"},
		{"one_two_three", 10, "_", "one_two_|three"},
		{"a_bcdefghijkl", 10, "_", "a_bcdefghi|jkl"}, // not in the line's first half
		{"\u0301 0000", 3, "", "\u0301|000|0"},       // a word of no width stays where it is
	} {
		if got := strings.Join(Wrap(tt.s, tt.cells, tt.after), "|"); got != tt.want {
			t.Errorf("Wrap(%q, %d, %q) = %q, want %q", tt.s, tt.cells, tt.after, got, tt.want)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("태스크 task", 3, "")
	f.Add("a_b|c", 2, "_|")
	f.Fuzz(func(t *testing.T, s string, cells int, after string) {
		ascii := !strings.ContainsFunc(after, func(r rune) bool { return r > unicode.MaxASCII })
		if cells < 2 || cells > 200 || len(s) > 4096 || text.Clean(s) != s || !ascii {
			return
		}
		lines := Wrap(s, cells, after)
		for _, line := range lines {
			// A character of several runes may be wider than the line.
			if n := Width(line); n > cells && First(line, cells) != "" {
				t.Errorf("Wrap(%q, %d, %q) has a line of %d cells: %q", s, cells, after, n, line)
			}
		}
		if got, want := strings.Join(lines, ""), strings.Join(strings.Fields(s), ""); strings.ReplaceAll(got, " ", "") != want {
			t.Errorf("Wrap(%q, %d, %q) = %q: characters came or went", s, cells, after, lines)
		}
	})
}

func TestTable(t *testing.T) {
	wide := New(0, "ID", "제목", "X")
	wide.Row("P1", "세 가지", 1)
	wide.Row("P10", "ps")
	wide.Row("", "", "→ seen")

	right := New(0, "NAME", "N")
	right.Columns[1].Right = true
	right.Row("a", 5)
	right.Row("bc", 1000)

	last := New(26, "ID", "TEXT")
	last.Narrowest = 10
	last.Row("P1", "some words that do not fit")
	last.Row("P2", "few")

	file := New(0, "ID", "TEXT")
	file.Row("P1", "some words that do not fit a terminal, in a file")

	tight := New(8, "IDENTIFIER", "TEXT")
	tight.Row("abc", "words and words of it and more")

	ruled := &Table{Indent: 2, Between: " │ ", Rule: true, Width: 22, Narrowest: 4,
		Columns: []Column{{Wrap: true}, {Wrap: true, Right: true}}, Head: []Cell{Text{S: "A"}, Text{S: "B"}}}
	ruled.Row("one two three four", "12")

	capped := &Table{Columns: []Column{{Min: 6, Max: 6}, {}}, Indent: 1}
	capped.Row("abcdefgh", "x")
	capped.Row("a", "\x1b[31mx\x1b[0m")

	grouped := &Table{Columns: make([]Column, 4), Groups: []Group{{Columns: 1}, {"amd64", 2}, {"a longer name", 1}},
		Head: []Cell{Text{}, Text{S: "5.10"}, Text{S: "6.12"}, Text{S: "6.12"}}}
	grouped.Row("P1", "+", "+", "x")

	for _, tt := range []struct {
		name string
		t    *Table
		want string
	}{
		{"wide characters, ragged rows", wide, "ID   제목     X\nP1   세 가지  1\nP10  ps\n              → seen\n"},
		{"right", right, "NAME     N\na        5\nbc    1000\n"},
		{"last column wraps", last, "ID  TEXT\nP1  some words that do not\n    fit\nP2  few\n"},
		{"no terminal", file, "ID  TEXT\nP1  some words that do not fit a terminal, in a file\n"},
		{"narrower than can be", tight, "IDENTIFIER  TEXT\nabc         words and words of\n            it and more\n"},
		{"ruled", ruled, "  A               │  B\n  ────────────────┼───\n  one two three   │ 12\n  four            │\n"},
		{"bounds and colours", capped, " abcde…  x\n a       \x1b[31mx\x1b[0m\n"},
		{"groups", grouped, "    amd64       a longer name\n    5.10  6.12  6.12\nP1  +     +     x\n"},
		{"nothing", New(80), ""},
	} {
		if got := tt.t.String(); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
	if got := grouped.Natural(); got != 4+4+2+4+2+13 {
		t.Errorf("Natural = %d, want %d", got, 4+4+2+4+2+13)
	}
}
