// Package render shows what became of a matrix: on a terminal, and in the forms
// that CI systems read. It is a function of the results alone, and starts
// nothing.
//
// Results may come from anywhere and hold the words of guests: every word is
// cleaned and bounded on its way out, and escaped for the form it is put in.
package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"labctl/host/lab/judge"
	"labctl/host/matrix"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Formats are the names that Write knows.
var Formats = []string{"text", "junit", "ktap", "markdown", "json", "kcidb"}

// Options say how results are shown.
type Options struct {
	Width  int    // of the terminal, in cells; 80 when 0
	Colour bool   // by escape sequences
	Dir    string // the directory that holds the records, as a reader can reach it
	// Seen is, as Markdown, what there is to see of a lab's cell, "" for nothing; nil where
	// nobody knows.
	Seen func(*matrix.Result) string

	Origin string // of a report for KCIDB
	URL    string // where the directory is published, for KCIDB; empty: nowhere
}

// Write writes results in one of Formats.
func Write(w io.Writer, format string, r *matrix.Results, o Options) error {
	switch format {
	case "text":
		return Table(w, r, o)
	case "junit":
		return JUnit(w, r, o.Dir)
	case "ktap":
		return KTAP(w, r)
	case "markdown":
		return Markdown(w, r, o.Seen)
	case "json":
		return JSON(w, r)
	case "kcidb":
		return KCIDB(w, r, o)
	}
	return nearest.Unknown("report format", format, Formats)
}

// JSON writes the results as they are in matrix.json.
func JSON(w io.Writer, r *matrix.Results) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write a matrix as JSON: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Bounds on what is shown of one cell, in bytes.
const (
	maxReason = 300
	maxSeen   = 400
	maxOutput = 4 << 10
)

// entry is what became of one cell of the plan.
type entry struct {
	matrix.Result
	absent bool // a whole plan's cell without a result
}

// entries returns the results in their order, then the plan's cells that have
// none: a run that was cut short is not green. A shard is asked only for its own.
func entries(r *matrix.Results) []entry {
	all := make([]entry, 0, max(len(r.Results), len(r.Plan)))
	done := map[string]bool{}
	for _, res := range r.Results {
		done[key(res.Cell)] = true
		all = append(all, entry{Result: res})
	}
	if r.Shard != "" {
		return all
	}
	for _, c := range r.Plan {
		if !done[key(c)] {
			all = append(all, entry{matrix.Result{Cell: c, Status: outcome.Interrupted, Reason: "it has no result: the run ended before it"}, true})
		}
	}
	return all
}

// key tells cells apart, which ID does not where a lab and a program have one
// name.
func key(c matrix.Cell) string { return c.Kernel + "\x00" + c.Target + "\x00" + workKey(c.Work) }

func workKey(w matrix.Work) string {
	return w.Kind + "\x00" + w.Name + "\x00" + strings.Join(w.Args, "\x00")
}

// workName is the work as a row or a test case is named.
func workName(w matrix.Work) string {
	name := text.Line(strings.Join(append([]string{w.Name}, w.Args...), " "), 120)
	if w.Kind == matrix.GoTest {
		return "go test " + name
	}
	return name
}

func (o *entry) id() string { return text.Line(o.Cell.ID(), 200) }

func (o *entry) reason() string {
	return cmp.Or(text.Line(o.Reason, maxReason), o.status())
}

// verdict is "check failed: exit status 3".
func (o *entry) verdict() string {
	status, reason := o.status(), o.reason()
	if strings.HasPrefix(reason, status) {
		return reason
	}
	return status + ": " + reason
}

// status is the word for how a cell ended; another labctl's may be any.
func (o *entry) status() string { return text.Line(string(o.Status), 40) }

// broken says that a cell did not come to a verdict, as against a check that
// does not hold.
func (o *entry) broken() bool { return o.Status.Broken() }

// failing lists the checks of a lab that do not hold.
func (o *entry) failing() (bad []matrix.Check) {
	for _, c := range o.Checks {
		if judge.Verdict(c.Verdict).Failed() {
			bad = append(bad, c)
		}
	}
	return bad
}

// lines describes a check: its id and verdict, what it says, and what was seen.
func lines(c matrix.Check) []string {
	out := []string{fmt.Sprintf("%s: %s: %s", text.Line(c.ID, 80), text.Line(c.Verdict, 40), text.Line(c.Text, maxSeen))}
	if c.Seen != "" {
		out = append(out, "  seen: "+text.Line(c.Seen, maxSeen))
	}
	return out
}

// reports are what the kernel reported, a line each.
func (o *entry) reports() (lines []string) {
	for _, r := range o.Reports {
		lines = append(lines, text.Line(r.String(), maxSeen))
	}
	if more := o.Reported - len(o.Reports); more > 0 && len(lines) > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// tail is the end of a program's output, clean.
func (o *entry) tail() string {
	s := o.Output
	if len(s) > maxOutput {
		s = s[len(s)-maxOutput:]
	}
	return strings.Trim(text.Lines(s), "\n")
}

// counts are sums over cells.
type counts struct {
	cells, ok, flaky, na, absent int
	failed                       map[outcome.Kind]int
	seconds                      float64 // of all cells together
}

func count(all []entry) counts {
	n := counts{cells: len(all), failed: map[outcome.Kind]int{}}
	for i := range all {
		o := &all[i]
		n.seconds += o.Seconds
		switch {
		case o.absent:
			n.absent++
		case o.Status == outcome.OK:
			n.ok++
		case o.Status == outcome.NotApplicable:
			n.na++
		default:
			n.failed[o.Status]++
		}
		if o.Flaky {
			n.flaky++
		}
	}
	return n
}

// red is how many cells failed or have no result.
func (n counts) red() int {
	sum := n.absent
	for _, k := range n.failed {
		sum += k
	}
	return sum
}

// String is "40 cells: 35 ok (1 flaky), 2 check failed, 3 not applicable".
func (n counts) String() string {
	ok := fmt.Sprintf("%d %s", n.ok, outcome.OK)
	if n.flaky > 0 {
		ok += fmt.Sprintf(" (%d flaky)", n.flaky)
	}
	parts := []string{ok}
	known := 0
	for _, s := range outcome.Kinds() {
		if k := n.failed[s]; k > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", k, s))
			known += k
		}
	}
	if more := n.red() - n.absent - known; more > 0 {
		parts = append(parts, fmt.Sprintf("%d of another outcome", more))
	}
	if n.absent > 0 {
		parts = append(parts, fmt.Sprintf("%d without a result", n.absent))
	}
	if n.na > 0 {
		parts = append(parts, fmt.Sprintf("%d not applicable", n.na))
	}
	return plural(n.cells, "cell") + ": " + strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sums are the last lines of a report: the cells, and the time.
func sums(r *matrix.Results, n counts) []string {
	cells := n.String()
	if r.Shard != "" {
		cells = fmt.Sprintf("shard %s of %s; %s", text.Line(r.Shard, 20), plural(len(r.Plan), "cell"), cells)
	}
	time := fmt.Sprintf("%.1f s", r.Seconds)
	if n.cells > 1 {
		time += fmt.Sprintf("; the cells one after another: %.1f s", n.seconds)
	}
	if r.CPUSeconds > 0 {
		time += fmt.Sprintf("; %.1f s of CPU", r.CPUSeconds)
		if r.CPUs > 0 {
			time += " on " + plural(r.CPUs, "CPU")
		}
	}
	return []string{cells, time}
}

// group is cells with one reason.
type group struct {
	reason string
	ids    []string
}

// notApplicable groups the cells that could not be run by why.
func notApplicable(all []entry) (groups []group) {
	at := map[string]int{}
	for i := range all {
		o := &all[i]
		if o.Status != outcome.NotApplicable {
			continue
		}
		reason := o.reason()
		if _, ok := at[reason]; !ok {
			at[reason] = len(groups)
			groups = append(groups, group{reason: reason})
		}
		g := &groups[at[reason]]
		g.ids = append(g.ids, o.id())
	}
	return groups
}
