package class

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/matrix"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
)

// Schema is the value of Book.Schema.
const Schema = "labctl/gradebook/v1"

// Weights are the points of checks by their ids. A check without one has 1.
type Weights map[string]float64

// ParseWeights reads "only-files=2,returns=0.5" for an exercise.
func ParseWeights(s string, l *lab.Lab) (Weights, error) {
	w := Weights{}
	if s == "" {
		return w, nil
	}
	var known []string
	for _, c := range l.Exercise.Checks {
		known = append(known, c.ID)
	}
	for part := range strings.SplitSeq(s, ",") {
		id, number, ok := strings.Cut(part, "=")
		points, err := strconv.ParseFloat(number, 64)
		switch {
		case !ok || err != nil || !(points >= 0 && points <= 1000):
			return nil, outcome.Inputf("--weights %q: want CHECK=POINTS, with 0 to 1000 points", part)
		}
		if !slices.Contains(known, id) {
			return nil, nearest.Unknown("check", id, known)
		}
		w[id] = points
	}
	return w, nil
}

// of is the points of a check.
func (w Weights) of(id string) float64 {
	if p, ok := w[id]; ok {
		return p
	}
	return 1
}

// Check is a check of a row.
type Check struct {
	ID      string        `json:"id"`
	Verdict judge.Verdict `json:"verdict,omitempty"` // empty: not judged
	Points  float64       `json:"points"`
	Of      float64       `json:"of"`
	Seen    string        `json:"seen,omitempty"` // what the kernel saw instead
}

// Row is one submission's grade.
type Row struct {
	Learner string       `json:"learner"`
	Outcome outcome.Kind `json:"outcome"`
	How     outcome.How  `json:"how,omitempty"` // "does not compile", "too slow", "panic"
	Passed  int          `json:"passed"`
	Of      int          `json:"of"` // checks that apply; all of the exercise's if it was not judged
	Points  float64      `json:"points"`
	OutOf   float64      `json:"out_of"`
	Checks  []Check      `json:"checks"`
	Message string       `json:"message,omitempty"`
	Output  string       `json:"output,omitempty"` // the end of the program's, or the compiler's
	Seconds float64      `json:"seconds"`
	Record  string       `json:"record,omitempty"` // directory, relative to the class's
}

// Word says in a word or two how the submission ended.
func (r *Row) Word() string {
	if r.How != "" {
		return string(r.How)
	}
	return string(r.Outcome)
}

// Book is a gradebook.
type Book struct {
	Schema  string `json:"schema"`
	Lab     string `json:"lab"`
	Rows    []Row  `json:"rows"`
	Similar []Pair `json:"similar,omitempty"`

	checks []string
	graded []bool // of each row: the outcome is the submission's
}

// NewBook makes a gradebook of the results of a class, in their order.
func NewBook(l *lab.Lab, w Weights, results []matrix.Result) *Book {
	b := &Book{Schema: Schema, Lab: l.ID, Rows: []Row{}}
	for _, c := range l.Exercise.Checks {
		b.checks = append(b.checks, c.ID)
	}
	for i := range results {
		b.Rows = append(b.Rows, b.row(w, &results[i]))
		b.graded = append(b.graded, results[i].Stands())
	}
	return b
}

func (b *Book) row(w Weights, res *matrix.Result) Row {
	r := Row{
		Learner: res.Cell.Work.Args[0], Outcome: res.Status, How: res.How,
		Message: res.Reason, Output: res.Output, Seconds: res.Seconds, Record: res.Record,
	}
	for _, id := range b.checks {
		c := Check{ID: id, Of: w.of(id)}
		for _, got := range res.Checks {
			if got.ID == id {
				c.Verdict, c.Seen = judge.Verdict(got.Verdict), got.Seen
			}
		}
		switch c.Verdict {
		case judge.NotApplicable:
			c.Of = 0
		case judge.Pass:
			c.Points = c.Of
			r.Passed++
			fallthrough
		default:
			r.Of++
		}
		r.Points, r.OutOf = r.Points+c.Points, r.OutOf+c.Of
		r.Checks = append(r.Checks, c)
	}
	return r
}

// File is the gradebook's name in the directory of a class.
const File = "gradebook.csv"

// Keep writes the gradebook to the directory of a class, and to files that a user
// asked for: as CSV and for Moodle. Empty names none.
func (b *Book) Keep(dir, asCSV, moodle string) error {
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{{filepath.Join(dir, File), b.CSV}, {asCSV, b.CSV}, {moodle, b.Moodle}} {
		if f.name == "" {
			continue
		}
		var data bytes.Buffer
		err := f.write(&data)
		if err == nil {
			err = scratch.Write(f.name, data.Bytes(), 0o644)
		}
		if err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("write gradebook: %w", err))
		}
	}
	return nil
}

// End is the error of a class: of submissions that could not be graded, for no fault of
// theirs, the worst; else a status for one that failed.
func (b *Book) End() error {
	var kinds []outcome.Kind
	var lines []string
	failed := false
	for i, r := range b.Rows {
		failed = failed || r.Outcome.Failed()
		if !b.graded[i] {
			kinds = append(kinds, r.Outcome)
			lines = append(lines, fmt.Sprintf("\n  %s: %s: %s", r.Learner, r.Outcome, text.Line(r.Message, 300)))
		}
	}
	switch {
	case len(lines) > 0:
		return outcome.Errorf(outcome.Worst(kinds...), "%d of %d submissions were not graded; --resume tries them again%s",
			len(lines), len(b.Rows), strings.Join(lines, ""))
	case failed:
		return &outcome.StatusError{Status: outcome.CheckFailed.ExitStatus()} // the table says who
	}
	return nil
}

// CSV writes the gradebook: a line for each learner, a column for each check.
func (b *Book) CSV(w io.Writer) error {
	head := append([]string{"learner", "outcome", "how", "passed", "of", "points", "out of"}, b.checks...)
	rows := [][]string{append(head, "seconds", "message")}
	for _, r := range b.Rows {
		row := []string{cell(r.Learner), string(r.Outcome), string(r.How), strconv.Itoa(r.Passed), strconv.Itoa(r.Of), points(r.Points), points(r.OutOf)}
		for _, c := range r.Checks {
			row = append(row, string(c.Verdict))
		}
		rows = append(rows, append(row, fmt.Sprintf("%.1f", r.Seconds), cell(r.Message)))
	}
	return writeCSV(w, rows)
}

// Moodle writes what Moodle's grade import reads (Grades > Import > CSV file): the
// name of a learner's directory is to be mapped to the user's name, id number or
// address, the grade is in percent.
func (b *Book) Moodle(w io.Writer) error {
	rows := [][]string{{"username", b.Lab, b.Lab + " feedback"}}
	for _, r := range b.Rows {
		percent := 0.0
		if r.OutOf > 0 {
			percent = 100 * r.Points / r.OutOf
		}
		rows = append(rows, []string{cell(r.Learner), fmt.Sprintf("%.1f", percent), cell(r.feedback())})
	}
	return writeCSV(w, rows)
}

// feedback is one line for the learner: what failed, and what the kernel saw.
func (r *Row) feedback() string {
	parts := []string{r.Word()}
	if r.Message != "" {
		parts = append(parts, r.Message)
	}
	for _, c := range r.Checks {
		if c.Verdict.Failed() {
			parts = append(parts, strings.TrimSuffix(c.ID+" failed: "+c.Seen, ": "))
		}
	}
	return strings.Join(parts, "; ")
}

func writeCSV(w io.Writer, rows [][]string) error {
	c := csv.NewWriter(w)
	if err := c.WriteAll(rows); err != nil {
		return err
	}
	return c.Error()
}

func points(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

// cell keeps a spreadsheet from taking a learner's words for a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// gradescope is the results.json of Gradescope's autograders
// (gradescope-autograders.readthedocs.io, Autograder Specifications).
type gradescope struct {
	Score  float64          `json:"score"`
	Output string           `json:"output,omitempty"`
	Tests  []gradescopeTest `json:"tests"`
}

type gradescopeTest struct {
	Name   string  `json:"name"`
	Score  float64 `json:"score"`
	Max    float64 `json:"max_score"`
	Status string  `json:"status"`
	Output string  `json:"output,omitempty"`
}

// Gradescope returns the results.json of one submission to a lab's exercise.
func (r *Row) Gradescope(l *lab.Lab) ([]byte, error) {
	g := gradescope{Score: r.Points, Tests: []gradescopeTest{}}
	if r.Outcome != outcome.OK {
		g.Output = r.Word()
		if r.Message != "" {
			g.Output += ": " + r.Message
		}
		if r.Output != "" {
			g.Output += "\n\n" + r.Output
		}
	}
	for i, c := range r.Checks {
		if c.Verdict == judge.NotApplicable {
			continue
		}
		t := gradescopeTest{Name: c.ID + ": " + l.Exercise.Checks[i].Says.EN, Score: c.Points, Max: c.Of, Status: "failed", Output: c.Seen}
		if c.Verdict == judge.Pass {
			t.Status = "passed"
		}
		g.Tests = append(g.Tests, t)
	}
	data, err := json.MarshalIndent(g, "", "  ")
	return append(data, '\n'), err
}
