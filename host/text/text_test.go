package text

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain 한국어 text\tand\n", "plain 한국어 text\tand\n"},
		{"\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"},
		{"bell\a nul\x00 del\x7f csi\u009b", "bell\ufffd nul\ufffd del\ufffd csi\ufffd"},
		{"bad \xff utf8", "bad \ufffd utf8"},
		{"right to left \u202e", "right to left \ufffd"},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("Clean(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestLine(t *testing.T) {
	if got, want := Line("a\nb\r\n  c", 80), "a b c"; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
	if got, want := Line("가나다", 4), "가…"; got != want {
		t.Errorf("Line cut = %q, want %q", got, want)
	}
}

func TestLines(t *testing.T) {
	if got, want := Lines("one\r\nspin 1\rspin 2\n\x1b]0;x\atail"), "one\nspin 2\n\ufffd]0;x\ufffdtail"; got != want {
		t.Errorf("Lines = %q, want %q", got, want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[2J\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x00\a\r\x7f\u009b\u202e") {
			t.Errorf("Clean(%q) = %q: unsafe", s, got)
		}
		if Clean(got) != got {
			t.Errorf("Clean is not idempotent on %q", s)
		}
	})
}
