package show

import (
	"strings"
	"testing"

	"labctl/host/lab"
	"labctl/host/ui/table"
	"labctl/labs"
)

// TestList: the list fits a terminal, a line for each lab that is ready.
func TestList(t *testing.T) {
	set, err := lab.Load(labs.FS)
	if err != nil {
		t.Fatal(err)
	}
	var all []Listed
	for _, l := range set.Labs {
		all = append(all, Listed{Lab: l, Ready: true})
	}
	for _, lang := range []string{"en", "ko"} {
		for _, tt := range []struct {
			words  string
			cells  int
			source string // the head of the column
			lines  bool   // one for each lab
		}{
			{"", 0, "SOURCE", true},
			{"", 80, "", true},
			{"", 400, "SOURCE", true},
			{"seed1", 100, "SECTIONS", false},
		} {
			var b strings.Builder
			if err := List(&b, all, lang, tt.words, tt.cells); err != nil {
				t.Fatal(err)
			}
			head, rows, _ := strings.Cut(b.String(), "\n")
			if got := strings.Contains(head, Word(lang, "SOURCE")) || strings.Contains(head, Word(lang, "SECTIONS")); got != (tt.source != "") || !strings.Contains(head, Word(lang, tt.source)) {
				t.Errorf("%s, %q, %d cells: the head is %q, want %q in it", lang, tt.words, tt.cells, head, Word(lang, tt.source))
			}
			if n := strings.Count(rows, "\n"); tt.lines && n != len(all) {
				t.Errorf("%s, %q, %d cells: %d lines for %d labs", lang, tt.words, tt.cells, n, len(all))
			}
			for line := range strings.Lines(b.String()) {
				if w := table.Width(strings.TrimRight(line, "\n")); tt.cells > 0 && w > tt.cells {
					t.Errorf("%s, %q: %d cells, more than %d: %s", lang, tt.words, w, tt.cells, line)
				}
			}
		}
	}
}
