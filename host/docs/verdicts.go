package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"labctl/host/lab/judge"
	"labctl/host/record"
	"labctl/host/scratch"
)

// labRun is one lab of `labctl lab run --json`.
type labRun struct {
	judge.Report
	Target record.Target `json:"target"`
	Kernel record.Kernel `json:"kernel"`
	Error  string        `json:"error"`
	// Before is what was wrong with the run before this one; it was run again.
	Before []string `json:"-"`
}

// column is all labs on one machine.
type column struct {
	name string // "5.10 amd64"
	runs []labRun
}

// boardLabs are the labs that are run on boards, which boot for each anew.
var boardLabs = []string{"P1", "P9", "K1"}

// judged runs labs on each kernel and architecture, and those of boardLabs on the
// boards.
func judged(ctx context.Context, labctl string, kernels, arches, boards []string, stderr io.Writer) ([]column, error) {
	var all []column
	add := func(name string, ids []string, machine ...string) error {
		fmt.Fprintln(stderr, "docs:", name)
		runs, err := runLabs(ctx, labctl, append(machine, ids...), stderr)
		for i := 0; err == nil && i < len(runs); i++ {
			// Is it so, or has the host been too busy? The page has both.
			if before := runs[i].wrong(); len(before) > 0 {
				fmt.Fprintf(stderr, "docs: %s on %s: %s; once more\n", runs[i].Lab, name, strings.Join(before, "; "))
				var again []labRun
				if again, err = runLabs(ctx, labctl, append(machine, runs[i].Lab), stderr); err == nil {
					runs[i], runs[i].Before = again[0], before
				}
			}
		}
		if err != nil {
			return fmt.Errorf("labs on %s: %w", name, err)
		}
		all = append(all, column{name, runs})
		return nil
	}
	for _, k := range kernels {
		for _, a := range arches {
			if err := add(k+" "+a, []string{"--all"}, "--kernel", k, "--arch", a); err != nil {
				return nil, err
			}
		}
	}
	for _, b := range boards {
		if err := add(b, boardLabs, "--board", b); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// wrong says what is not as it should be.
func (r *labRun) wrong() (out []string) {
	if r.Error != "" {
		out = append(out, r.Error)
	}
	for _, c := range r.Checks {
		if c.Verdict.Failed() {
			out = append(out, "`"+c.ID+"` fails")
		}
	}
	return out
}

func runLabs(ctx context.Context, labctl string, args []string, stderr io.Writer) (runs []labRun, err error) {
	records, err := scratch.MakeFolder(os.TempDir(), "labctl-docs-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	cmd := exec.CommandContext(ctx, labctl, append([]string{"lab", "run", "--json", "--out", records.Path}, args...)...)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	// Its status says that a check fails, or that a machine has crashed. Where it
	// has told which, that is for the page.
	var exit *exec.ExitError
	err = cmd.Run()
	if bad := json.Unmarshal(stdout.Bytes(), &runs); bad == nil && len(runs) > 0 && errors.As(err, &exit) {
		err = nil
	} else if err == nil {
		err = bad
	}
	return runs, err
}

// mark is how a claim's verdict stands in a table.
var mark = map[judge.Verdict]string{
	"": "", judge.Confirmed: "✓", judge.Refuted: "✗", judge.NotEnforced: "!", judge.Depends: "~", judge.NotApplicable: "–", judge.Unknown: "?",
}

// verdicts is the page of what every lab and claim came to on each machine.
func verdicts(all []column) string {
	var b strings.Builder
	b.WriteString(`# Verdicts of the labs

What ` + "`labctl lab run`" + ` says of every lab on each kernel and architecture. A cell has the
checks that hold, of those that apply there; "n/a" counts those that do not. Boards
boot for every lab anew, and run a few.

`)
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	head := strings.Join(names, " | ") + " |\n|---|---|---|" + strings.Repeat("---|", len(all)) + "\n"
	b.WriteString("| lab | | | " + head)
	ids := labsOf(all)
	for _, id := range ids {
		title := first(all, id).Title
		fmt.Fprintf(&b, "| %s | %s | %s |", id, cut(title.EN), cut(title.KO))
		for _, c := range all {
			fmt.Fprintf(&b, " %s |", checks(c.find(id)))
		}
		b.WriteString("\n")
	}
	failures(&b, all)

	b.WriteString(`
## Claims on which machines differ

What a source says, and what each machine shows: ✓ confirmed, ✗ refuted, ! not enforced (a rule that the
kernel lets a program break), ~ depends,
– not applicable. ` + "`labctl lab claims`" + ` prints the evidence; the lessons have the reasons.

| lab | claim | 주장 | ` + head)
	same := map[judge.Verdict][]string{}
	for _, id := range ids {
		for _, c := range first(all, id).Claims {
			row := make([]string, len(all))
			var seen []judge.Verdict
			for i := range all {
				v := all[i].claim(id, c.ID)
				row[i] = mark[v]
				// Where it does not apply nothing differs.
				if v != "" && v != judge.NotApplicable && !slices.Contains(seen, v) {
					seen = append(seen, v)
				}
			}
			if len(seen) < 2 {
				v := judge.NotApplicable
				if len(seen) == 1 {
					v = seen[0]
				}
				same[v] = append(same[v], id+"\u00a0"+c.ID)
				continue
			}
			fmt.Fprintf(&b, "| %s | `%s`: %s | %s | %s |\n", id, c.ID, cut(c.Says.EN), cut(c.Says.KO), strings.Join(row, " | "))
		}
	}
	b.WriteString("\n## Claims on which all agree to which they apply\n\n| verdict | claims |\n|---|---|\n")
	for _, v := range judge.ClaimVerdicts() {
		if len(same[v]) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", v, strings.Join(same[v], ", "))
		}
	}
	b.WriteString("\nThis page is written by `go run ./host/docs -page verdicts`, on these kernels:")
	for i, c := range all {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s", c.release())
	}
	b.WriteString(".\n")
	return b.String()
}

// labsOf are the ids of all labs, in the order of the first column that has each.
func labsOf(all []column) (ids []string) {
	for _, c := range all {
		for _, r := range c.runs {
			if !slices.Contains(ids, r.Lab) {
				ids = append(ids, r.Lab)
			}
		}
	}
	return ids
}

// first is a lab's run that has most to tell: one that was not kept from running.
func first(all []column, id string) *labRun {
	var best *labRun
	for _, c := range all {
		if r := c.find(id); r != nil && (best == nil || len(r.Claims) > len(best.Claims)) {
			best = r
		}
	}
	return best
}

func (c *column) find(id string) *labRun {
	for i := range c.runs {
		if c.runs[i].Lab == id {
			return &c.runs[i]
		}
	}
	return nil
}

// claim is the verdict of a lab's claim here; "" where the lab was not run.
func (c *column) claim(id, claim string) judge.Verdict {
	if r := c.find(id); r != nil {
		for _, c := range r.Claims {
			if c.ID == claim {
				return c.Verdict
			}
		}
	}
	return ""
}

func (c *column) release() string {
	for _, r := range c.runs {
		if r.Kernel.Release != "" {
			return fmt.Sprintf("%s (%s)", r.Kernel.Release, r.Target.Name)
		}
	}
	return c.name
}

// checks is a cell of the table of labs.
func checks(r *labRun) string {
	switch {
	case r == nil:
		return ""
	case r.Error != "":
		return "**error**"
	case len(r.Missing) > 0:
		return "not run"
	}
	s := fmt.Sprintf("%d/%d", r.Passed(), r.Passed()+r.Failed())
	if r.Failed() > 0 {
		s = "**" + s + "**"
	}
	if na := len(r.Checks) - r.Passed() - r.Failed(); na > 0 {
		s += fmt.Sprintf(", %d n/a", na)
	}
	return s
}

// failures lists what is not as it should be.
func failures(b *strings.Builder, all []column) {
	var lines []string
	for _, c := range all {
		for _, r := range c.runs {
			at := fmt.Sprintf("- %s on %s: ", r.Lab, c.name)
			wrong := r.wrong()
			for _, what := range slices.Concat(r.Missing, wrong) {
				lines = append(lines, at+what)
			}
			if len(wrong) == 0 && len(r.Before) > 0 {
				lines = append(lines, at+"all holds, at the second try; at the first: "+strings.Join(r.Before, "; "))
			}
		}
	}
	if len(lines) > 0 {
		b.WriteString("\n## What fails, and what was not run\n\n" + strings.Join(lines, "\n") + "\n")
	}
}

// cut makes words fit for a cell.
func cut(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
