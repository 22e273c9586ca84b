package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"labctl/host/bounded"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/render"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
	"labctl/host/text"
)

// matrixOutput is how results are shown, beside the table.
type matrixOutput struct {
	asJSON, ktap   bool
	junit, summary string
}

func (o *matrixOutput) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.asJSON, "json", false, "print JSON instead of the table: matrix.json")
	f.BoolVar(&o.ktap, "ktap", false, "print KTAP instead of the table")
	f.StringVar(&o.junit, "junit", "", "write JUnit XML to this file")
	f.StringVar(&o.summary, "summary", "", "append a summary in Markdown to this file (default: the one that GITHUB_STEP_SUMMARY names)")
}

// check finds before a long run what cannot be written after it.
func (o *matrixOutput) check() error {
	if o.asJSON && o.ktap {
		return outcome.Inputf("give --json or --ktap")
	}
	if o.summary == "" {
		o.summary = os.Getenv("GITHUB_STEP_SUMMARY")
	}
	return cmp.Or(checkOutput("--junit", o.junit), checkOutput("--summary", o.summary))
}

// checkOutput finds before a long run that a file cannot be written after it; name may be
// empty for none.
func checkOutput(flag, name string) error {
	if name == "" {
		return nil
	}
	if dir := filepath.Dir(name); bounded.CheckDir(dir) != nil {
		return fmt.Errorf("%s %s: %s: %w", flag, name, dir, bounded.CheckDir(dir))
	}
	if bounded.CheckDir(name) == nil {
		return outcome.Inputf("%s %s: a directory; want a file", flag, name)
	}
	return nil
}

type matrixRunOptions struct {
	plan     planFlags
	output   matrixOutput
	out      string
	jobs     int
	resume   bool
	retries  int
	timeout  time.Duration
	patience float64
	failOn   record.FailOn
}

func (a *app) matrixRun() *cobra.Command {
	var o matrixRunOptions
	c := &cobra.Command{
		Use:   "run [flags] [-- PROG ARGS]",
		Short: "Run a plan, or a shard of it",
		Long: `Run the cells of a plan, as many at a time as this host has CPUs and memory for,
and keep a record of each. A cell is a lab, a program as labctl exec takes it, or
the tests of a Go package, on one kernel and one machine. Kernels that are not
cached are pulled first. A cell that fails stops no other.

The directory --out has matrix.json at the end, cells/ with the result of each cell as
soon as it ended, and runs/ with the run records. If a run was cut short, --resume with
the same plan runs the cells that are missing or failed.

Exit status: 0 if nothing fails; else by the worst result: 4 a guest
crashed; 5 a deadline; 70 a defect of labctl; 3 this host lacks something; 2 a
kernel or program that is not there; 4 a kernel reported what --fail-on names; 1 a
check, a program or a test fails. What a kernel or machine cannot run is not
applicable and no failure. A cell that was good only when tried again (--retry) is
marked flaky. What the kernels reported is in the table, JUnit and KTAP.`,
		Example: `  labctl matrix run --kernels 5.10,6.1,6.12,7.2 --arch amd64,arm64 --labs 'P*,K1'
  labctl matrix run --kernels cached --board raspi3b -- ./cmd/x -v
  labctl matrix run --kernels 5.10,7.2 --arch arm64 --gotest ./...
  labctl matrix run --kernels ./bzImage --fail-on warn -- ./stress
  labctl matrix run --plan nightly.yaml --shard 2/4 --out shard-2 --junit shard-2.xml
  labctl matrix run --plan nightly.yaml --shard 2/4 --out shard-2 --resume`,
		RunE: func(c *cobra.Command, argv []string) error { return a.runMatrix(c.Context(), &o, argv) },
	}
	o.plan.flags(c)
	o.output.flags(c)
	o.runFlags(c)
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "directory of the matrix (default: labctl-out/TIME-matrix)")
	f.BoolVar(&o.resume, "resume", false, "continue the matrix in --out: cells that are missing or failed")
	return c
}

// runFlags are those of a run that do not say where it is kept.
func (o *matrixRunOptions) runFlags(c *cobra.Command) {
	f := c.Flags()
	intFlag(f, &o.jobs, "jobs", 1, 1000, "machines at a time (default: as many as this host has CPUs and memory for)")
	intFlag(f, &o.retries, "retry", 0, 100, "try a cell that fails so many times more")
	timeFlag(f, &o.timeout, "timeout", "end a cell after this long, boot included (default: the plan's)")
	patienceFlag(f, &o.patience)
	failOnFlag(c, &o.failOn)
	f.Lookup("fail-on").Usage += " (default: the plan's, or oops)"
	f.Lookup("fail-on").DefValue = ""
}

func (a *app) runMatrix(ctx context.Context, o *matrixRunOptions, argv []string) error {
	if err := o.output.check(); err != nil {
		return err
	}
	p, err := a.plan(ctx, &o.plan, argv)
	if err != nil {
		return err
	}
	if err := cell.CheckFiles(p.spec, p.cells); err != nil {
		return err
	}
	if o.timeout == 0 {
		o.timeout = p.spec.Timeout
	}
	if o.failOn == "" {
		o.failOn = p.spec.FailOn
	}
	env, err := a.env()
	if err != nil {
		return err
	}
	r := &cell.Runner{Env: env, Spec: machine.Spec{Patience: o.patience}, Timeout: o.timeout, FailOn: o.failOn, Lab: a.ownLab}
	defer r.Close()
	m, err := r.Matrix(ctx, cell.Options{
		Name: p.spec.Name, Plan: p.cells, Shard: p.shard, Costs: p.costs, Out: o.out, Label: "matrix", Resume: o.resume, Jobs: o.jobs, Retries: o.retries,
		Again: "labctl matrix run", Watch: a.progress.Cells,
	})
	if err != nil {
		return err
	}
	if err := a.showMatrix(m.Results, m.Dir, o.output); err != nil {
		return err
	}
	a.sayCost(m.Results)
	return matrixEnd(m.Results, m.Dir, o.output)
}

// showMatrix prints the results and writes the files that were asked for.
func (a *app) showMatrix(all *matrix.Results, dir string, o matrixOutput) error {
	format := "text"
	switch {
	case o.asJSON:
		format = "json"
	case o.ktap:
		format = "ktap"
	}
	opts := render.Options{Width: a.cells(), Colour: isTerminal(a.stdout) && os.Getenv("NO_COLOR") == "", Dir: dir}
	err := render.Write(a.stdout, format, all, opts)
	if o.junit != "" {
		var b strings.Builder
		jerr := render.Write(&b, "junit", all, opts)
		if jerr == nil {
			jerr = scratch.Write(o.junit, []byte(b.String()), 0o644)
		}
		err = errors.Join(err, jerr)
	}
	if o.summary != "" {
		err = errors.Join(err, appendTo(o.summary, func(w io.Writer) error { return render.Write(w, "markdown", all, opts) }))
	}
	return err
}

// appendTo adds to a file, which others of the same job have written to.
func appendTo(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return errors.Join(write(f), f.Close())
}

// sayCost holds the wall time against the least that it could be, all CPUs being
// busy all the time.
func (a *app) sayCost(all *matrix.Results) {
	if all.CPUSeconds > 0 && all.CPUs > 0 {
		least := all.CPUSeconds / float64(all.CPUs)
		a.say(fmt.Sprintf("%.1f s, %.2f times the %.1f s that %.1f CPU seconds take on %d CPUs", all.Seconds, all.Seconds/least, least, all.CPUSeconds, all.CPUs))
	}
}

// matrixEnd is the error of a matrix in which a cell fails: all that fail, a line
// each, with their records, unless the table has listed them.
func matrixEnd(all *matrix.Results, dir string, o matrixOutput) error {
	var errs *multierror.Error
	for _, r := range all.Results {
		if !r.Status.Failed() {
			continue
		}
		line := fmt.Sprintf("%s: %s", r.Cell.ID(), r.Status)
		if r.Reason != "" {
			line += ": " + text.Line(r.Reason, 300)
		}
		if r.Record != "" {
			line += " (" + filepath.Join(dir, r.Record) + ")"
		}
		errs = multierror.Append(errs, errors.New(line))
	}
	if errs == nil {
		return nil
	}
	errs.ErrorFormat = func(each []error) string {
		var b strings.Builder
		fmt.Fprintf(&b, "%d of %d cells fail", len(each), len(all.Results))
		if o.asJSON || o.ktap {
			for _, e := range each {
				fmt.Fprintf(&b, "\n  %v", e)
			}
		}
		return b.String()
	}
	return outcome.As(all.Worst(), errs)
}
