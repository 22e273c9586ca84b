package show

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, [][]string{{"ID", "제목", "X"}, {"P1", "세 가지", "a"}, {"P10", "ps", "b"}}); err != nil {
		t.Fatal(err)
	}
	want := "ID   제목     X\nP1   세 가지  a\nP10  ps       b\n"
	if b.String() != want {
		t.Errorf("Table =\n%swant\n%s", b.String(), want)
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		s     string
		cells int
		want  string
	}{
		{"", 10, ""},
		{"one two three", 8, "one two|three"},
		{"태스크마다 자기 번호가 있습니다", 10, "태스크마다|자기|번호가|있습니다"},
		{"가나다라마바", 4, "가나|다라|마바"},
		{"abcdefghij", 4, "abcd|efgh|ij"},
	} {
		got := Wrap(tt.s, tt.cells)
		if strings.Join(got, "|") != tt.want {
			t.Errorf("Wrap(%q, %d) = %q; want %q", tt.s, tt.cells, got, tt.want)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("태스크 task", 3)
	f.Add("\x1b[31m", 1)
	f.Fuzz(func(t *testing.T, s string, cells int) {
		if cells < 2 || cells > 200 || len(s) > 4096 {
			return
		}
		for _, line := range Wrap(s, cells) {
			if n := width.StringWidth(line); n > cells {
				t.Errorf("Wrap(%q, %d) has a line of %d cells: %q", s, cells, n, line)
			}
		}
	})
}

// TestMarkdown keeps lines within a terminal's width, by its cells.
func TestMarkdown(t *testing.T) {
	out, err := Markdown("# 제목\n\n"+strings.Repeat("프로세스와 스레드는 같은 함수에서 ", 20)+"\n\n| a | 나 |\n|---|---|\n| 1 | 둘 |\n", 60, true)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if n := width.StringWidth(strings.TrimRight(line, "\n")); n > 60 {
			t.Errorf("a line of %d cells: %q", n, line)
		}
	}
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "둘") {
		t.Errorf("Markdown =\n%s", out)
	}
}

func TestLang(t *testing.T) {
	for _, tt := range []struct{ all, lang, want string }{
		{"", "ko_KR.UTF-8", "ko"}, {"", "en_US.UTF-8", "en"}, {"C", "ko_KR.UTF-8", "en"}, {"", "", "en"},
	} {
		t.Setenv("LC_ALL", tt.all)
		t.Setenv("LC_MESSAGES", "")
		t.Setenv("LANG", tt.lang)
		if got := Lang(); got != tt.want {
			t.Errorf("Lang with LC_ALL=%q LANG=%q = %q; want %q", tt.all, tt.lang, got, tt.want)
		}
	}
}
