package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/strictjson"
	"labctl/host/text"
)

// Names in the directory of a matrix.
const (
	File    = "matrix.json" // Results, written at the end
	CellDir = "cells"       // a Result for each cell, written as it ends
	RunDir  = "runs"        // a run record for each try of a cell
)

// Bounds on what is read. It may come from anywhere.
const (
	maxCells  = 20_000
	maxName   = 4096 // bytes of a name in a cell
	MaxOutput = 4 << 10
	maxReason = 2000

	maxReports = 16 // of the kernel's, in one cell

	MaxCost = 24 * 3600 * 1000 // of a cell, in milliseconds: a day
)

// What a directory's files must be: matrix.json and plan.json, and one cell's.
var (
	format     = strictjson.Format{Schema: Schema, Older: older, Max: 128 << 20}
	cellFormat = strictjson.Format{Schema: Schema, Older: older, Max: 4 << 20}
)

// Read reads the matrix.json of a directory.
func Read(dir string) (*Results, error) {
	if err := bounded.CheckDir(dir); err != nil {
		return nil, outcome.Default(outcome.BadInput, fmt.Errorf("read matrix %s: %w", dir, err))
	}
	return ReadFile(filepath.Join(dir, File))
}

// ReadFile reads a matrix.json, whatever it is called.
func ReadFile(name string) (_ *Results, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	b, err := bounded.ReadFile(name, format.Max)
	if err != nil {
		return nil, fmt.Errorf("read matrix: %w", err)
	}
	r, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read matrix %s: %w", name, err)
	}
	return r, nil
}

// Decode reads the bytes of a matrix.json strictly: another schema, an unknown
// field, a result that is not of the plan, one that is there twice, and a record
// that is not below the directory are errors. Texts come out clean.
func Decode(b []byte) (*Results, error) {
	r := new(Results)
	if err := format.Decode(b, r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	r.Name, r.Labctl = clip(r.Name), clip(r.Labctl)
	for i := range r.Results {
		r.Results[i].clean()
	}
	return r, nil
}

// Encode is the opposite of Decode.
func Encode(r *Results) ([]byte, error) {
	r.Schema = Schema
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// Write writes the matrix.json of a directory, whole or not at all.
func Write(dir string, r *Results) error {
	b, err := Encode(r)
	if err == nil {
		err = scratch.Write(filepath.Join(dir, File), b, 0o644)
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("write matrix: %w", err))
	}
	return nil
}

// check holds results against their plan.
func (r *Results) check() error {
	if err := CheckPlan(r.Plan); err != nil {
		return err
	}
	sh, err := ParseShard(r.Shard)
	if err == nil {
		err = sh.Fits(len(r.Plan))
	}
	if err != nil {
		return err
	}
	if len(r.Costs) > 0 {
		if len(r.Costs) != len(r.Plan) {
			return fmt.Errorf("%d costs of %d cells", len(r.Costs), len(r.Plan))
		}
		if slices.Min(r.Costs) < 1 || slices.Max(r.Costs) > MaxCost {
			return fmt.Errorf("a cost of a cell is not from 1 to %d ms", MaxCost)
		}
	}
	place := places(r.Plan)
	mine := make([]bool, len(r.Plan))
	for _, i := range r.Mine() {
		mine[i] = true
	}
	last := -1
	for i := range r.Results {
		res := &r.Results[i]
		id := res.Cell.ID()
		p, ok := place[id]
		switch {
		case !ok || !res.Cell.Equal(r.Plan[p]):
			return fmt.Errorf("cell %s: it is not in the plan", clip(id))
		case !mine[p]:
			return fmt.Errorf("cell %s: it is not in shard %s", id, sh)
		case p == last:
			return fmt.Errorf("cell %s: it is there twice", id)
		case p < last:
			return fmt.Errorf("cell %s: it is not in the plan's order, or there twice", id)
		}
		if err := res.check(); err != nil {
			return fmt.Errorf("cell %s: %w", id, err)
		}
		last = p
	}
	return nil
}

// CheckPlan finds what no plan can have: no cells, too many, two of one id, a
// name that is none.
func CheckPlan(plan []Cell) error {
	if len(plan) == 0 {
		return errors.New("the plan has no cells")
	}
	if len(plan) > maxCells {
		return fmt.Errorf("the plan has %d cells; at most %d can be", len(plan), maxCells)
	}
	seen := make(map[string]bool, len(plan))
	for i := range plan {
		c := &plan[i]
		id := c.ID()
		if err := c.check(); err != nil {
			return fmt.Errorf("cell %s: %w", clip(id), err)
		}
		if seen[id] {
			return fmt.Errorf("cell %s: it is in the plan twice", id)
		}
		seen[id] = true
	}
	return nil
}

func (c *Cell) check() error {
	for _, s := range slices.Concat([]string{c.Kernel, c.Target, c.Work.Name, c.Input}, c.Work.Args, c.Work.Files, c.Append) {
		if len(s) > maxName || text.Clean(s) != s || strings.ContainsAny(s, "\n\t") {
			return errors.New("a name in it is too long, or has bytes in it that are no text")
		}
	}
	switch {
	case c.Kernel == "" || c.Target == "" || c.Work.Name == "":
		return errors.New("it lacks a kernel, a target or work")
	case !slices.Contains(kinds, c.Work.Kind):
		return fmt.Errorf("kind of work %q is not known", clip(c.Work.Kind))
	case c.Work.Kind == Exercise && len(c.Work.Args) != 1:
		return errors.New("an exercise needs one argument, the submission's name")
	case c.CPUs < 0 || c.MemoryMB < 0:
		return errors.New("CPUs and memory are numbers above 0")
	}
	return nil
}

// Equal reports whether two cells are the same.
func (c Cell) Equal(d Cell) bool {
	return c.Kernel == d.Kernel && c.Target == d.Target && c.CPUs == d.CPUs && c.MemoryMB == d.MemoryMB &&
		c.Work.Kind == d.Work.Kind && c.Work.Name == d.Work.Name && slices.Equal(c.Work.Args, d.Work.Args) && slices.Equal(c.Work.Files, d.Work.Files) &&
		slices.Equal(c.Append, d.Append) && c.Input == d.Input
}

// Stands reports whether a resumed run keeps the result. A cell that failed runs
// again, but a submission is graded once, however badly it ended, unless the fault
// was not its own: then the result has neither a verdict nor a How.
func (r *Result) Stands() bool {
	if r.Cell.Work.Kind == Exercise {
		return !r.Status.Broken() || r.How != ""
	}
	return !r.Status.Failed()
}

// places returns the index of each cell in a plan, by its id.
func places(plan []Cell) map[string]int {
	m := make(map[string]int, len(plan))
	for i, c := range plan {
		m[c.ID()] = i
	}
	return m
}

func (r *Result) check() error {
	switch {
	case !r.Status.Known():
		return fmt.Errorf("status %q is not known", clip(string(r.Status)))
	case r.Tries < 1:
		return fmt.Errorf("%d tries", r.Tries)
	case r.Record != "" && (!filepath.IsLocal(r.Record) || filepath.Clean(r.Record) != r.Record):
		return fmt.Errorf("record %q is not below the matrix's folder", clip(r.Record))
	case len(r.Reports) > maxReports || r.Reported < len(r.Reports):
		return fmt.Errorf("%d reports of the kernel's, of %d", len(r.Reports), r.Reported)
	case r.Seconds < 0 || r.CPUSeconds < 0:
		return errors.New("it took less than no time")
	}
	return nil
}

// clean makes all texts fit for a terminal. It is idempotent.
func (r *Result) clean() {
	r.Reason, r.How = line(r.Reason, maxReason), outcome.How(clip(string(r.How)))
	r.Output = Tail(r.Output)
	r.Record = text.Clean(r.Record)
	for i := range r.Reports {
		r.Reports[i] = r.Reports[i].Clean()
	}
	k := &r.Kernel
	for _, s := range []*string{&k.Ref, &k.Source, &k.Release, &k.Version, &k.SHA256} {
		*s = clip(*s)
	}
	for _, checks := range [][]Check{r.Checks, r.Claims} {
		for i := range checks {
			c := &checks[i]
			*c = Check{ID: clip(c.ID), Text: line(c.Text, maxReason), Verdict: clip(c.Verdict), Seen: line(c.Seen, maxReason)}
		}
	}
}

// Tail is the end of what a program has written, clean, at most MaxOutput bytes.
func Tail(s string) string {
	if s = text.Clean(s); len(s) <= MaxOutput {
		return s
	}
	// With the byte before, which may be the newline that a whole line follows.
	s = s[len(s)-MaxOutput-1:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < len(s)-1 {
		return s[i+1:]
	}
	return strings.ToValidUTF8(s[1:], "")
}

func clip(s string) string { return line(s, 300) }

// line is s on one clean line of at most max bytes, the mark of the cut included.
func line(s string, max int) string {
	if l := text.Line(s, max); len(l) <= max {
		return l
	}
	return text.Line(s, max-len("…"))
}
