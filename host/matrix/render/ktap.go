package render

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"labctl/host/lab/judge"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/text"
)

// KTAP writes results as the kernel's test protocol has them, version 1
// (Documentation/dev-tools/ktap.rst): a test for each kernel on each target, in it
// one for each work, in that one for each check of a lab.
func KTAP(w io.Writer, r *matrix.Results) error {
	s := newSheet(entries(r))
	var b strings.Builder
	plan(&b, "", "", len(s.columns))
	for i, c := range s.columns {
		name, own := c.kernel+"/"+c.target, s.of[c]
		plan(&b, "  ", name, len(own))
		bad, run := 0, 0
		for j, o := range own {
			ktapCell(&b, j+1, o)
			if !ktapOK(o) {
				bad++
			}
			if o.Status != outcome.NotApplicable {
				run++
			}
		}
		why := ""
		if run == 0 {
			why = "SKIP nothing is applicable"
		}
		result(&b, "", bad == 0, i+1, name, why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plan opens a test. The line with its name is no part of the protocol; KUnit
// writes it, so that one can read from the top.
func plan(b *strings.Builder, indent, name string, n int) {
	fmt.Fprintf(b, "%sKTAP version 1\n", indent)
	if name != "" {
		fmt.Fprintf(b, "%s# Subtest: %s\n", indent, ktapName(name))
	}
	fmt.Fprintf(b, "%s1..%d\n", indent, n)
}

func ktapCell(b *strings.Builder, n int, o *entry) {
	name := workName(o.Cell.Work)
	ok := ktapOK(o)
	if len(o.Checks) > 0 {
		plan(b, "    ", name, len(o.Checks))
		for i, c := range o.Checks {
			why := ""
			if c.Verdict == string(judge.NotApplicable) {
				why = "SKIP " + c.Seen
			}
			for _, l := range lines(c) {
				fmt.Fprintf(b, "    # %s\n", l)
			}
			result(b, "    ", !judge.Verdict(c.Verdict).Failed(), i+1, c.ID, why)
		}
	}
	for _, c := range o.Claims {
		for i, l := range lines(c) {
			if i == 0 {
				l = "claim " + l
			}
			fmt.Fprintf(b, "  # %s\n", l)
		}
	}
	for _, l := range o.reports() {
		fmt.Fprintf(b, "  # %s\n", l)
	}
	if o.Record != "" {
		fmt.Fprintf(b, "  # record: %s\n", text.Line(o.Record, maxReason))
	}
	if !ok {
		for line := range strings.Lines(o.tail()) {
			fmt.Fprintf(b, "  # | %s\n", strings.TrimRight(line, "\n"))
		}
	}
	why := ""
	switch {
	case o.Status == outcome.NotApplicable:
		why = "SKIP " + o.reason()
	case o.Status == outcome.Deadline:
		why = "TIMEOUT " + o.reason()
	case o.broken():
		why = "ERROR " + o.verdict()
	case !ok:
		why = o.reason()
	case o.Flaky:
		why = "flaky: " + flakyLine(o)
	}
	result(b, "  ", ok, n, name, why)
}

// ktapOK reports whether a cell is ok: a test with a subtest that is not must not be.
func ktapOK(o *entry) bool { return !o.Status.Failed() && len(o.failing()) == 0 }

// result closes a test. A hash sign would start a directive.
func result(b *strings.Builder, indent string, ok bool, n int, name, why string) {
	word := "ok"
	if !ok {
		word = "not ok"
	}
	line := fmt.Sprintf("%s%s %d %s", indent, word, n, ktapName(name))
	if why = strings.TrimSpace(noHash(text.Line(why, maxReason))); why != "" {
		line += " # " + why
	}
	fmt.Fprintln(b, line)
}

func ktapName(s string) string { return cmp.Or(noHash(text.Line(s, 200)), "unnamed") }

func noHash(s string) string { return strings.ReplaceAll(s, "#", "♯") }
