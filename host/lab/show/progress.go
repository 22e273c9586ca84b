package show

import (
	"fmt"
	"io"
	"time"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/ui/table"
)

// Progress lists labs with how far a learner has come.
func Progress(w io.Writer, labs []*lab.Lab, all map[string]*progress.Lab, lang string) error {
	t := table.New(0, heads(lang, "ID", "TITLE", "RAN", "CHECKS", "TRIES", "GRADE", "SOLVED", "HINTS")...)
	solved := 0
	for _, l := range labs {
		p := all[l.ID]
		if p == nil {
			p = &progress.Lab{}
		}
		checks, grade := "-", "-"
		if p.Checks > 0 {
			checks = fmt.Sprintf("%d/%d", p.Held, p.Checks)
		}
		if p.Of > 0 {
			grade = fmt.Sprintf("%d/%d", p.Passed, p.Of)
		}
		if !p.Solved.IsZero() {
			solved++
		}
		t.Row(l.ID, Clean(l.Title.In(lang)), day(p.Ran), checks, p.Tries, grade, day(p.Solved), p.Hints)
	}
	if err := t.Write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n"+Word(lang, "%d of %d exercises solved")+"\n", solved, len(labs))
	return err
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateOnly)
}
