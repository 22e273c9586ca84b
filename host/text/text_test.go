package text

import (
	"errors"
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
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"a\nb\r\n  c", 80, "a b c"},
		{"abcd", 4, "abcd"}, {"abcd", 3, "abc…"}, {"", 0, ""},
		{"가나다", 4, "가…"}, {"가나다", 2, "…"},
	} {
		if got := Line(c.in, c.max); got != c.want {
			t.Errorf("Line(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

func TestLines(t *testing.T) {
	if got, want := Lines("one\r\n\rspin 0\nspin 1\rspin 2\n\x1b]0;x\atail"), "one\nspin 0\nspin 2\n\ufffd]0;x\ufffdtail"; got != want {
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

func TestWriter(t *testing.T) {
	in := "한국 \x1b[2J\r\r\nlone\rcr \xff end\xea"
	want := "한국 \ufffd[2J\nlone\ufffdcr \ufffd end\ufffd"
	for size := 1; size <= len(in); size++ {
		var b strings.Builder
		w := NewWriter(&b)
		for p := []byte(in); len(p) > 0; {
			n := min(size, len(p))
			if got, err := w.Write(p[:n]); got != n || err != nil {
				t.Fatalf("Write = %d, %v, want %d, nil", got, err, n)
			}
			p = p[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != want {
			t.Errorf("in writes of %d: got %q, want %q", size, got, want)
		}
	}
}

func TestWriterErrors(t *testing.T) {
	w := NewWriter(failing{})
	if n, err := w.Write([]byte{0xed}); n != 1 || err != nil {
		t.Errorf("Write of half a character = %d, %v; it is kept for later", n, err)
	}
	if err := w.Flush(); err != errFull {
		t.Errorf("Flush = %v, want %v", err, errFull)
	}
	if n, err := w.Write([]byte("x")); n != 0 || err != errFull {
		t.Errorf("Write = %d, %v, want 0, %v", n, err, errFull)
	}
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

// FuzzWriter: however a text is cut, what comes out is the same, and clean.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("한\r\r\n\x1b[2J\xed\x95\r"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		var whole, parts strings.Builder
		w := NewWriter(&whole)
		w.Write(in)
		w.Flush()
		w = NewWriter(&parts)
		for p := in; len(p) > 0; {
			n := min(1+int(size), len(p))
			w.Write(p[:n])
			p = p[n:]
		}
		w.Flush()
		if whole.String() != parts.String() {
			t.Errorf("whole %q, in pieces %q", whole.String(), parts.String())
		}
		if got := whole.String(); Clean(got) != got {
			t.Errorf("Writer let through %q", got)
		}
	})
}
