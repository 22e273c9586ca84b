package class

import (
	"fmt"
	"io"

	"labctl/host/lab/show"
	"labctl/host/ui/table"
)

// Print prints the gradebook on a terminal of a width in cells: a line for each
// learner, then the submissions that are near-identical.
func (b *Book) Print(w io.Writer, lang string, cells int) error {
	word := func(s string) string { return show.Word(lang, s) }
	t := table.New(cells, word("LEARNER"), word("VERDICT"), word("CHECKS"), word("POINTS"), "")
	for _, r := range b.Rows {
		t.Row(show.Clean(r.Learner), word(r.Word()), fmt.Sprintf("%d/%d", r.Passed, r.Of), points(r.Points)+"/"+points(r.OutOf), show.Clean(r.Message))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	for i, p := range b.Similar {
		if i == 0 {
			fmt.Fprintf(w, "\n%s\n", word("Near-identical submissions"))
		}
		if _, err := fmt.Fprintf(w, "  %s, %s: %.0f %%\n", show.Clean(p.A), show.Clean(p.B), 100*p.Share); err != nil {
			return err
		}
	}
	return nil
}
