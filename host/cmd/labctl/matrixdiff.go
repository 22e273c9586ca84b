package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/diff"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/labs"
)

type matrixDiffOptions struct {
	kernels, arches, labs []string
	only                  []string
	out                   string
	jobs                  int
	resume                bool
	asJSON, markdown      bool
	all, exitCode         bool
}

func (a *app) matrixDiff() *cobra.Command {
	var o matrixDiffOptions
	c := &cobra.Command{
		Use:   "diff RECORD RECORD... | --kernels A,B",
		Short: "Show what differs between kernels: stacks, structures, claims, tracepoints, system calls",
		Long: `Compare kernels by the records of labs that ran on them. RECORD is the record
of a lab's run, or a directory with several: what --out named, or a matrix's. One
with several kernels is enough. With --kernels the labs are run first, as a matrix,
which is kept; --resume continues one that was stopped.

Each kernel is compared with the one to the left of it: = is the same, – is not
there, ? is not known. Layouts, tracepoints, system calls and prototypes are from
the kernels' images (kernel.json of a record); stacks and verdicts from the runs.
Several kernels of each architecture are compared by architecture.

The exit status is 0 if the kernels could be compared; with --exit-code it is 1 if
they differ.`,
		Example: `  labctl matrix diff --kernels 5.10,7.2 --arch arm64
  labctl matrix diff --kernels 5.10,6.1,6.12,7.2 --arch amd64,arm64 --labs 'K*,C6' --markdown
  labctl lab run --all --kernel 5.10 --out old && labctl lab run --all --kernel 7.2 --out new
  labctl matrix diff old new --only members,stacks`,
		RunE: func(c *cobra.Command, paths []string) error { return a.diffKernels(c.Context(), &o, paths) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.kernels, "kernels", nil, "run labs on these kernels: 5.10,7.2; 6.1..7.2: all between")
	f.StringSliceVar(&o.arches, "arch", nil, "architectures to run on: amd64, arm64, arm (default: the host's)")
	f.StringSliceVar(&o.labs, "labs", []string{"K1", "K2", "C6"}, "labs to run; K* is all that begin so")
	f.StringVar(&o.out, "out", "", "directory of the matrix of these runs (default: labctl-out/TIME-diff)")
	f.BoolVar(&o.resume, "resume", false, "continue the runs in --out: those that are missing or failed")
	intFlag(f, &o.jobs, "jobs", 1, 1000, "machines at a time (default: as many as this host has CPUs and memory for)")
	f.StringSliceVar(&o.only, "only", nil, "parts: "+strings.Join(diff.Parts, ", "))
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print Markdown")
	f.BoolVar(&o.all, "all", false, "cut no list")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 when the kernels differ")
	return c
}

// diffKernels runs what there is to run and compares what was recorded.
func (a *app) diffKernels(ctx context.Context, o *matrixDiffOptions, paths []string) error {
	for _, part := range o.only {
		if !slices.Contains(diff.Parts, part) {
			return nearest.Unknown("--only", part, diff.Parts)
		}
	}
	switch {
	case o.asJSON && o.markdown:
		return outcome.Inputf("--json or --markdown, not both")
	case len(o.kernels) > 0 && len(paths) > 0:
		return outcome.Inputf("give records, or --kernels to run labs on, not both")
	case len(o.kernels) == 0 && (len(o.arches) > 0 || o.out != "" || o.resume):
		return outcome.Inputf("--arch, --out and --resume are for runs: give --kernels")
	case len(o.kernels) == 0 && len(paths) == 0:
		return outcome.Inputf("which kernels? give the records of runs, or --kernels 5.10,7.2")
	}
	if len(o.kernels) > 0 {
		dir, err := a.runForDiff(ctx, o)
		if err != nil {
			return err
		}
		paths = []string{dir}
	}
	kernels, problems, err := diff.Load(paths, func(id string) (*lab.Lab, error) { return lab.One(labs.FS, id) })
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	if len(kernels) < 2 {
		switch {
		case len(problems) > 0:
			return outcome.Inputf("%s", problems[0])
		case len(kernels) == 1:
			return outcome.Inputf("there is one kernel in these records, %s: nothing to compare it with", kernels[0].Release)
		}
	}
	rep := &diff.Report{Schema: diff.Schema, Problems: problems, Diffs: diff.New(kernels, o.only)}
	if o.asJSON {
		err = a.printJSON(rep)
	} else {
		err = diff.Print(a.stdout, rep, diff.Options{Markdown: o.markdown, Cells: a.cells(), All: o.all})
	}
	if err == nil && o.exitCode && slices.ContainsFunc(rep.Diffs, (*diff.Diff).Differs) {
		err = &outcome.StatusError{Status: outcome.CheckFailed.ExitStatus()}
	}
	return err
}

// runForDiff runs the labs on every kernel of every architecture, and returns the
// directory with their records. A lab that does not come to its end is a gap in the
// diff, unless all are so.
func (a *app) runForDiff(ctx context.Context, o *matrixDiffOptions) (string, error) {
	env, err := a.env()
	if err != nil {
		return "", err
	}
	f := planFlags{kernels: o.kernels, archs: o.arches, labs: o.labs}
	spec, err := f.spec(nil)
	if err != nil {
		return "", outcome.Default(outcome.BadInput, err)
	}
	cells, err := cell.Plan(ctx, spec, labs.FS)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(cells, func(c matrix.Cell) bool { return c.Kernel != cells[0].Kernel || c.Target != cells[0].Target }) {
		return "", outcome.Inputf("--kernels %s: one kernel on one machine: nothing to compare it with", text.Line(o.kernels[0], 80))
	}
	r := &cell.Runner{Env: env, Lab: a.ownLab}
	defer r.Close()
	if err := r.Check(cells); err != nil {
		return "", outcome.Inputf("--kernels: %w", err)
	}
	m, err := r.Matrix(ctx, cell.Options{
		Name: "diff", Plan: cells, Out: o.out, Label: "diff", Resume: o.resume, Jobs: o.jobs,
		Again: "labctl matrix diff", Watch: a.progress.Cells,
	})
	if err != nil {
		return "", err
	}
	a.say("run records: " + m.Dir)
	if !slices.ContainsFunc(m.Results.Results, func(r matrix.Result) bool { return len(r.Checks) > 0 || r.Status == outcome.NotApplicable }) {
		return "", matrixEnd(m.Results, m.Dir, matrixOutput{asJSON: true})
	}
	return m.Dir, nil
}
