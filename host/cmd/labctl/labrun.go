package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/lab/runner"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
)

type labRunOptions struct {
	labFlags *labFlags
	chosen   lab.Selection
	spec     machine.Spec
	asJSON   bool
	stacks   bool
	verbose  bool
	out      string
	jobs     int
	resume   bool
	failOn   record.FailOn
}

func (o *labRunOptions) flags(c *cobra.Command) {
	filterFlags(c, &o.chosen)
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.StringVar(&o.out, "out", "", "directory of the run record, of several labs of a matrix (default: labctl-out/TIME-NAME)")
	f.BoolVar(&o.resume, "resume", false, "continue the run in --out: labs that are missing or failed")
	intFlag(f, &o.jobs, "jobs", 1, 1000, "machines at a time (default: as many as this host has CPUs and memory for)")
	failOnFlag(c, &o.failOn)
}

func (a *app) labRun(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "run ID... | --all | --topic T",
		Short: "Run labs and judge what the kernel shows",
		Long: `Run each lab in a machine of its own, which starts warm, and judge every check and
claim by what the kernel showed. The record is kept; labctl lab judge judges it again.
Labs are named by their ids, or by globs over them. The exit status is 1 if a check
fails, 4 if the kernel reported what --fail-on names. A lab that a kernel or machine
cannot run is reported as not run, which is not a failure.

Several labs are run as a matrix: as many at a time as this host has CPUs and memory
for. The directory has matrix.json, cells/ with the result of each lab as soon as it
ended, and runs/ with the records. --resume continues a run that was stopped.`,
		Example: `  labctl lab run P1
  labctl lab run --all --arch arm64 --kernel 5.10 --out all
  labctl lab run --all --arch arm64 --kernel 5.10 --out all --resume
  labctl lab run K1 --board raspi3b --out k1`,
		RunE: func(c *cobra.Command, names []string) error {
			runs, err := a.runLabs(c.Context(), &o, names)
			if runs == nil {
				return err
			}
			for _, r := range runs {
				if r.Report != nil && len(r.Report.Missing) == 0 {
					a.note(c.Context(), r.Lab.ID, func(p *progress.Lab) { p.Run(r.Report.Passed(), r.Report.Passed()+r.Report.Failed()) })
				}
			}
			return errors.Join(a.printLabs(&o, runs), err)
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&o.chosen.All, "all", false, "every lab")
	c.Flags().BoolVar(&o.stacks, "stacks", false, "print the stacks of every task that a lab made, too")
	verboseFlag(c, &o)
	return c
}

func verboseFlag(c *cobra.Command, o *labRunOptions) {
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "every check and reason, what programs printed, all stacks")
}

// runLabs runs labs. Of one there is a record in --out, of several a matrix. The
// error says what went wrong with any of them; there are no runs when it ended all.
func (a *app) runLabs(ctx context.Context, o *labRunOptions, names []string) ([]show.Ran, error) {
	root, err := o.labFlags.root()
	if err != nil {
		return nil, err
	}
	o.chosen.Names = names
	chosen, err := o.chosen.Of(root)
	if err != nil {
		return nil, err
	}
	if strings.Contains(o.spec.Arch, ",") {
		return nil, outcome.Inputf("--arch %s: one at a time, please", o.spec.Arch)
	}
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	if len(chosen) > 1 {
		return a.runSeveral(ctx, env, o, chosen)
	}
	if o.resume {
		return nil, outcome.Inputf("--resume continues a run of several labs; this is one")
	}
	if err := machine.Settle(env.Env, &o.spec); err != nil {
		return nil, err
	}
	l := chosen[0]
	r, err := runner.Lab(ctx, env, session.Options{Name: "lab-" + l.ID, Out: o.out, Spec: o.spec, FailOn: o.failOn}, l)
	return []show.Ran{{Run: r.Judged(), Why: why(err)}}, err
}

// why is what an error says of a lab that was not judged.
func why(err error) string {
	switch outcome.Of(err) {
	case outcome.OK, outcome.CheckFailed, outcome.Tampered:
		return ""
	}
	return err.Error()
}

// runSeveral runs labs as the cells of a matrix.
func (a *app) runSeveral(ctx context.Context, env session.Env, o *labRunOptions, chosen []*lab.Lab) ([]show.Ran, error) {
	on, err := cell.On(env.Env, o.spec)
	if err != nil {
		return nil, err
	}
	byID := map[string]*lab.Lab{}
	var plan []matrix.Cell
	for _, l := range chosen {
		byID[l.ID] = l
		on.Work = matrix.Work{Kind: matrix.Lab, Name: l.ID}
		plan = append(plan, on)
	}
	find := func(id string) (*lab.Lab, error) { return byID[id], nil }
	r := &cell.Runner{Env: env, Spec: o.spec, FailOn: o.failOn, Lab: find}
	defer r.Close()
	m, err := r.Matrix(ctx, cell.Options{
		Name: "labs", Plan: plan, Out: o.out, Label: "labs-" + on.Target, Resume: o.resume, Jobs: o.jobs,
		Again: "labctl lab run", Watch: a.progress.Cells,
	})
	if err != nil {
		return nil, err
	}
	a.say("run records: " + m.Dir)
	runs, err := cell.Labs(m.Dir, m.Results, find)
	if err != nil {
		return nil, err
	}
	return runs, matrixEnd(m.Results, m.Dir, matrixOutput{asJSON: o.asJSON})
}

// printLabs prints one lab at length, several as a table and what failed.
func (a *app) printLabs(o *labRunOptions, runs []show.Ran) error {
	if o.asJSON {
		return a.printJSON(show.JSON(runs))
	}
	return show.Labs(a.stdout, runs, show.Options{
		Lang: o.labFlags.lang, Cells: a.cells(), Plain: a.plain(), Stacks: o.stacks, Verbose: o.verbose,
	})
}

func (a *app) labClaims(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "claims [ID...]",
		Short: "List the sources' claims and their verdicts on a kernel",
		Long: `Run the labs that state claims, all of them or those given, and list every claim
with its verdict on this kernel: confirmed, refuted or depends, and the evidence.`,
		RunE: func(c *cobra.Command, names []string) error {
			o.chosen.All = len(names) == 0 && !o.chosen.Filtered()
			runs, err := a.runLabs(c.Context(), &o, names)
			if runs == nil {
				return err
			}
			if outcome.Of(err) == outcome.CheckFailed { // checks are not asked for here
				a.say(fmt.Sprintf("%d checks of these labs fail: labctl lab run shows them", failed(runs)))
				err = nil
			}
			all := show.ClaimsOf(runs)
			if o.asJSON {
				return errors.Join(a.printJSON(all), err)
			}
			return errors.Join(show.Claims(a.stdout, all, lf.lang), err)
		},
	}
	o.flags(c)
	return c
}

// failed counts the checks that fail.
func failed(runs []show.Ran) (n int) {
	for _, r := range runs {
		if r.Report != nil {
			n += r.Report.Failed()
		}
	}
	return n
}

func (a *app) labJudge(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "judge DIR...",
		Short: "Judge run records of labs again",
		Long: `Judge what earlier runs recorded, by the labs as they are now. No machine is
started: the record is all that is read. DIR is what --out named, or the directory
of one lab in it.`,
		RunE: func(_ *cobra.Command, dirs []string) error {
			if len(dirs) == 0 {
				return outcome.Inputf("which record? give its directory")
			}
			var runs []show.Ran
			for _, d := range dirs {
				more, err := cell.ReadLabs(d, func(id string) (*lab.Lab, error) { return a.find(lf, id) })
				if err != nil {
					return outcome.Default(outcome.BadInput, err)
				}
				runs = append(runs, more...)
			}
			lacking := 0
			for _, r := range runs {
				if r.Why != "" {
					lacking++
				} else if r.Report.Changed {
					a.say(fmt.Sprintf("%s: %s has changed since the run", r.Dir.Path, r.Lab.File))
				}
			}
			err := outcome.Checks(failed(runs))
			if lacking > 0 {
				err = outcome.Inputf("%d of %d records have no result to judge", lacking, len(runs))
			}
			return errors.Join(a.printLabs(&o, runs), err)
		},
	}
	c.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	verboseFlag(c, &o)
	return c
}
