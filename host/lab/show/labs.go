package show

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/see"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/ui/table"
	"labctl/host/view"
)

// Ran is a lab that was run.
type Ran struct {
	*judge.Run
	Why string // why there is no verdict, in one line; else empty
}

// Options say how runs of labs are printed.
type Options struct {
	Lang    string
	Cells   int  // of the terminal's width
	Plain   bool // without colours
	Stacks  bool // of every task that was made
	Verbose bool // every check, every reason, outputs and stacks
}

// Labs prints the run of one lab at length, of several a table and what failed.
func Labs(w io.Writer, runs []Ran, o Options) error {
	if len(runs) == 1 {
		return o.lab(w, &runs[0])
	}
	t := table.New(0, heads(o.Lang, "LAB", "TITLE", "VERDICT", "CHECKS", "CLAIMS")...)
	for _, r := range runs {
		title := Clean(r.Lab.Title.In(o.Lang))
		if r.Report == nil {
			t.Row(r.Lab.ID, title, "!", "", text.Line(r.Why, 120))
			continue
		}
		t.Row(r.Lab.ID, title, Word(o.Lang, string(r.Report.Verdict())), Summary(r.Report, o.Lang), claimCounts(r.Report, o.Lang))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	for _, r := range runs {
		if r.Report != nil && (r.Report.Failed() > 0 || o.Stacks) {
			fmt.Fprintln(w)
			if err := o.lab(w, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

// heads are labctl's own words for the heads of columns.
func heads(lang string, all ...string) (out []string) {
	for _, w := range all {
		out = append(out, Word(lang, w))
	}
	return out
}

func claimCounts(r *judge.Report, lang string) string {
	counts := map[judge.Verdict]int{}
	for _, c := range r.Claims {
		counts[c.Verdict]++
	}
	var parts []string
	for _, v := range judge.ClaimVerdicts() {
		if counts[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[v], Word(lang, string(v))))
		}
	}
	return strings.Join(parts, ", ")
}

// lab prints one run that was judged: what is claimed, what there is to see, and what
// becomes of it.
func (o *Options) lab(w io.Writer, r *Ran) error {
	if r.Report == nil {
		return nil // the error says it all
	}
	fmt.Fprintf(w, "%s %s\n", r.Lab.ID, Clean(r.Lab.Title.In(o.Lang)))
	if k := r.Record.Kernel.Release; k != "" {
		fmt.Fprintf(w, Word(o.Lang, "%s on %s, %.2f s")+"\n", text.Line(k, 80), r.Record.Target.Name, r.Record.Seconds)
	}
	if err := claimed(w, r.Lab, o.Lang, o.Cells); err != nil {
		return err
	}
	views := see.Views(r.Lab, r.Result)
	if len(views) > 0 {
		fmt.Fprintln(w)
		if err := view.Terminal(w, views, view.Options{Lang: o.Lang, Cells: o.Cells, Plain: o.Plain}); err != nil {
			return err
		}
	}
	if o.Verbose || len(views) == 0 {
		for _, s := range r.Lab.Steps {
			if step := r.Result.Step(s.ID); step != nil && s.Probe == "" && step.Stdout != "" {
				fmt.Fprintf(w, "\n== %s\n%s", s.ID, step.Stdout)
			}
		}
	}
	if o.Verbose || o.Stacks || len(views) == 0 {
		if t := r.Result.ReportedStacks(); t != "" {
			fmt.Fprintf(w, "\n%s", t)
		}
	}
	fmt.Fprintln(w)
	var err error
	if o.Verbose {
		if err = Report(w, r.Report, o.Lang, o.Cells, true); err == nil {
			_, err = fmt.Fprintf(w, "\n%s\n", Summary(r.Report, o.Lang))
		}
	} else {
		err = Verdicts(w, r.Report, *o)
	}
	if err != nil || r.Dir.Path == "" { // a lab that was not run leaves none
		return err
	}
	_, err = fmt.Fprintf(w, "%s: %s\n", Word(o.Lang, "run record"), r.Dir.Path)
	return err
}

// LabJSON is one lab of `lab run --json`.
type LabJSON struct {
	*judge.Report
	Verdict judge.Verdict `json:"verdict"`
	Target  record.Target `json:"target"`
	Kernel  record.Kernel `json:"kernel"`
	Seconds float64       `json:"seconds"`
	Record  string        `json:"record"`
	Views   []*view.View  `json:"views,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// JSON is what is printed of runs as JSON.
func JSON(runs []Ran) []LabJSON {
	all := []LabJSON{}
	for _, r := range runs {
		j := LabJSON{Report: r.Report, Target: r.Record.Target, Kernel: r.Record.Kernel, Seconds: r.Record.Seconds, Record: r.Dir.Path}
		if r.Report == nil {
			j.Report = &judge.Report{Lab: r.Lab.ID, Title: r.Lab.Title}
		}
		if r.Result != nil && r.Report != nil {
			j.Views = see.Views(r.Lab, r.Result)
		}
		j.Verdict = j.Report.Verdict()
		if r.Why != "" {
			j.Verdict, j.Error = judge.Fail, text.Line(r.Why, 500)
		}
		all = append(all, j)
	}
	return all
}

// Claim is one claim of `lab claims --json`.
type Claim struct {
	Lab string `json:"lab"`
	judge.Claim
}

// ClaimsOf are the claims of all runs that were judged.
func ClaimsOf(runs []Ran) []Claim {
	all := []Claim{}
	for _, r := range runs {
		if r.Report == nil {
			continue
		}
		for _, c := range r.Report.Claims {
			all = append(all, Claim{r.Lab.ID, c})
		}
	}
	return all
}

// Claims prints what becomes of claims, with the evidence.
func Claims(w io.Writer, all []Claim, lang string) error {
	t := table.New(0, heads(lang, "LAB", "CLAIM", "VERDICT", "SAYS")...)
	for _, c := range all {
		t.Row(c.Lab, c.ID, Word(lang, string(c.Verdict)), Clean(c.Says.In(lang)))
		if seen := c.EvidenceIn(lang) + c.Error; seen != "" {
			t.Row("", "", "", "→ "+Clean(seen))
		}
	}
	return t.Write(w)
}

// Listed is one lab of `lab ls --json`.
type Listed struct {
	*lab.Lab
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing,omitempty"`
	// Later are files that the lab needs of the guest, which are looked for when
	// it runs.
	Later   []string `json:"later,omitempty"`
	Unknown string   `json:"unknown,omitempty"` // why nothing is known of this target
}

// List prints which labs there are, and whether they can run on a kernel, for a terminal
// of some width or, with 0, for other programs. Of labs that were chosen by words of their
// source it names the sections with these words, for a reader who has the source open.
// Where there is no room for sources, lab show names them.
func List(w io.Writer, all []Listed, lang, words string, cells int) error {
	head := "SOURCE"
	if words != "" {
		head = "SECTIONS"
	}
	rows := func(source bool) *table.Table {
		columns := []string{"ID", "TOPIC", "TITLE", head, "STATUS"}
		if !source {
			columns = slices.Delete(columns, 3, 4)
		}
		t := table.New(cells, heads(lang, columns...)...)
		t.Columns[3].Wrap = true
		for _, l := range all {
			row := []any{l.ID, l.Topic, Clean(l.Title.In(lang))}
			if source {
				from := sourcesOf(l.Lab, lang, true)
				if words != "" {
					from = sectionsOf(l.Lab, lang, words)
				}
				row = append(row, strings.Join(from, " · "))
			}
			t.Row(append(row, l.status(lang))...)
		}
		return t
	}
	t := rows(true)
	if cells > 0 && words == "" && t.Natural() > cells {
		t = rows(false)
	}
	return t.Write(w)
}

func (l *Listed) status(lang string) string {
	word := Word(lang, "ready")
	switch {
	case l.Unknown != "":
		return "- " + l.Unknown
	case !l.Ready:
		return Word(lang, "not here") + ": " + strings.Join(l.Missing, "; ")
	case len(l.Later) > 0:
		word += fmt.Sprintf(Word(lang, ", if the guest has %s"), strings.Join(l.Later, ", "))
	}
	return word
}
