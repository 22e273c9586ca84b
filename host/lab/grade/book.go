package grade

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"

	"labctl/host/lab"
)

// CSV writes a gradebook: a line for each learner, a column for each check.
func CSV(w io.Writer, l *lab.Lab, grades []*Grade) error {
	head := []string{"learner", "outcome", "how", "passed", "of"}
	for _, c := range l.Exercise.Checks {
		head = append(head, c.ID)
	}
	c := csv.NewWriter(w)
	if err := c.Write(append(head, "seconds", "message")); err != nil {
		return err
	}
	for _, g := range grades {
		row := []string{cell(g.Learner), string(g.Outcome), string(g.How), fmt.Sprint(g.Passed), fmt.Sprint(g.Of)}
		for _, check := range l.Exercise.Checks {
			verdict := ""
			if g.Report != nil {
				for _, got := range g.Report.Checks {
					if got.ID == check.ID {
						verdict = string(got.Verdict)
					}
				}
			}
			row = append(row, verdict)
		}
		if err := c.Write(append(row, fmt.Sprintf("%.1f", g.Seconds), cell(g.Message))); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// cell keeps a spreadsheet from taking a learner's words for a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
