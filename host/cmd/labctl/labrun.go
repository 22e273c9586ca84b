package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/runner"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/matrix/schedule"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
)

type labRunOptions struct {
	labFlags *labFlags
	chosen   lab.Selection
	spec     machine.Spec
	asJSON   bool
	stacks   bool
	out      string
	jobs     int
}

func (o *labRunOptions) flags(c *cobra.Command) {
	filterFlags(c, &o.chosen)
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.StringVar(&o.out, "out", "", "folder of the run record, or of several (default: labctl-out/TIME-NAME)")
	f.IntVar(&o.jobs, "jobs", 0, "machines at a time (default: as many as this host has CPUs and memory for)")
}

func (a *app) labRun(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "run ID... | --all | --topic T",
		Short: "Run labs and say what their kernel shows",
		Long: `Run each lab in a machine of its own, which starts warm, and judge what came
out: every check and every claim. The record is kept; labctl lab judge judges it
again. Exit status 1 when a check fails. A lab that a kernel or machine cannot
run is reported as not run, which is no failure.`,
		Example: `  labctl lab run P1
  labctl lab run --all --arch arm64 --kernel 5.10
  labctl lab run K1 --board raspi3b --out k1`,
		RunE: func(c *cobra.Command, ids []string) error {
			runs, err := a.runLabs(c.Context(), &o, ids)
			if runs == nil {
				return err
			}
			return errors.Join(a.printLabs(&o, runs), endOfLabs(runs, err))
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&o.chosen.All, "all", false, "every lab")
	c.Flags().BoolVar(&o.stacks, "stacks", false, "print the stacks of every task that a lab made (of one lab: always)")
	return c
}

// oneRun is one lab on one machine.
type oneRun struct {
	*runner.Run
	err error
}

// runLabs runs labs, several at a time. Runs are given with an error of theirs
// inside; the error beside them ended all.
func (a *app) runLabs(ctx context.Context, o *labRunOptions, names []string) ([]*oneRun, error) {
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
	if err := machine.Settle(env.Env, &o.spec); err != nil {
		return nil, err
	}
	t, err := machine.FindTarget(o.spec.Arch, o.spec.Board)
	if err != nil {
		return nil, err
	}
	base, single := o.out, len(chosen) == 1
	if !single {
		d, err := record.Create(o.out, "labs-"+t.Name, time.Now())
		if err != nil {
			return nil, err
		}
		base = d.Path
		os.Remove(d.File(record.ConsoleFile)) // each lab has its own
	}
	runs := make([]*oneRun, len(chosen))
	turn := make(chan struct{}, jobs(o.jobs))
	told := newInOrder(len(chosen), a.say)
	var wg sync.WaitGroup
	for i, l := range chosen {
		r := &oneRun{Run: &runner.Run{Session: new(session.Session), Lab: l}}
		runs[i] = r
		out := base
		if !single {
			out = filepath.Join(base, l.ID)
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			if r.err = context.Cause(ctx); r.err == nil {
				*r = *a.runLab(ctx, env, o.spec, l, out)
			}
			if !single {
				told.tell(i, r.line(o.labFlags.lang))
			}
		})
	}
	wg.Wait()
	return runs, nil
}

// jobs is how many machines run at once.
func jobs(asked int) int {
	b := schedule.Host(asked)
	if b.Jobs > 0 {
		return b.Jobs
	}
	return max(1, min(b.CPUs, b.MemoryMB/(512+schedule.Overhead)))
}

// inOrder says lines in the order of their numbers, each as soon as those before
// it have been said.
type inOrder struct {
	mu    sync.Mutex
	say   func(string)
	lines []*string
	next  int
}

func newInOrder(n int, say func(string)) *inOrder {
	return &inOrder{say: say, lines: make([]*string, n)}
}

func (o *inOrder) tell(i int, line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines[i] = &line
	for ; o.next < len(o.lines) && o.lines[o.next] != nil; o.next++ {
		o.say(*o.lines[o.next])
	}
}

// runLab runs one lab in a machine of its own, with a record in out.
func (a *app) runLab(ctx context.Context, env session.Env, spec machine.Spec, l *lab.Lab, out string) *oneRun {
	r, err := runner.Lab(ctx, env, session.Options{Name: "lab-" + l.ID, Out: out, Spec: spec}, l)
	if outcome.Of(err) == outcome.CheckFailed {
		err = nil // the report has them
	}
	return &oneRun{r, err}
}

func (r *oneRun) line(lang string) string {
	s := fmt.Sprintf("%s %s: ", r.Lab.ID, show.Clean(r.Lab.Title.In(lang)))
	if r.Report == nil {
		return s + text.Line(fmt.Sprint(r.err), 200)
	}
	return s + show.Summary(r.Report, lang)
}

// ran are the runs as they are printed.
func ran(runs []*oneRun) (all []show.Ran) {
	for _, r := range runs {
		one := show.Ran{Run: r.Judged()}
		if r.err != nil {
			one.Why = r.err.Error()
		}
		all = append(all, one)
	}
	return all
}

// printLabs prints one lab at length, several as a table and what failed.
func (a *app) printLabs(o *labRunOptions, runs []*oneRun) error {
	if o.asJSON {
		return a.printJSON(show.JSON(ran(runs)))
	}
	return show.Labs(a.stdout, ran(runs), show.Options{Lang: o.labFlags.lang, Cells: a.cells(), Stacks: o.stacks})
}

// endOfLabs is the error of a whole run: errors of runs, else failed checks.
func endOfLabs(runs []*oneRun, err error) error {
	if err != nil {
		return err
	}
	var errs *multierror.Error
	failed := 0
	for _, r := range runs {
		if r.err != nil {
			e := r.err
			if len(runs) > 1 {
				e = fmt.Errorf("lab %s: %w", r.Lab.ID, e)
			}
			errs = multierror.Append(errs, e)
		} else {
			failed += r.Report.Failed()
		}
	}
	switch {
	case errs != nil && len(errs.Errors) == 1:
		return errs.Errors[0]
	case errs != nil:
		return errs
	}
	return outcome.Checks(failed)
}

func (a *app) labClaims(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "claims [ID...]",
		Short: "Say what becomes of the sources' claims on a kernel",
		Long: `Run the labs that state claims, all of them or those given, and list every claim
with its verdict on this kernel: confirmed, refuted or depends, and the evidence.`,
		RunE: func(c *cobra.Command, ids []string) error {
			o.chosen.All = len(ids) == 0 && !o.chosen.Filtered()
			runs, err := a.runLabs(c.Context(), &o, ids)
			if runs == nil {
				return err
			}
			return errors.Join(a.printClaims(&o, runs), a.claimsEnd(runs))
		},
	}
	o.flags(c)
	return c
}

func (a *app) printClaims(o *labRunOptions, runs []*oneRun) error {
	all := show.ClaimsOf(ran(runs))
	if o.asJSON {
		return a.printJSON(all)
	}
	return show.Claims(a.stdout, all, o.labFlags.lang)
}

// claimsEnd is endOfLabs without the checks, which are not asked for here.
func (a *app) claimsEnd(runs []*oneRun) error {
	err := endOfLabs(runs, nil)
	var failed *outcome.ChecksError
	if errors.As(err, &failed) {
		a.say(fmt.Sprintf("%d checks of these labs fail: labctl lab run shows them", failed.Failed))
		return nil
	}
	return err
}

func (a *app) labJudge(lf *labFlags) *cobra.Command {
	o := labRunOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "judge DIR...",
		Short: "Judge run records of labs again",
		Long: `Judge what earlier runs recorded, by the labs as they are now. No machine is
started: the record is all that is read. DIR is what --out named, or the folder
of one lab in it.`,
		RunE: func(_ *cobra.Command, dirs []string) error {
			if len(dirs) == 0 {
				return outcome.Inputf("which record? give its folder")
			}
			var runs []*oneRun
			for _, d := range dirs {
				more, err := a.judgeDir(&o, d)
				if err != nil {
					return outcome.Default(outcome.BadInput, err)
				}
				runs = append(runs, more...)
			}
			return errors.Join(a.printLabs(&o, runs), endOfLabs(runs, nil))
		},
	}
	c.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return c
}

func (a *app) judgeDir(o *labRunOptions, dir string) ([]*oneRun, error) {
	all, err := judge.ReadAll(dir, func(id string) (*lab.Lab, error) { return a.find(o.labFlags, id) })
	if err != nil {
		return nil, err
	}
	var runs []*oneRun
	for _, r := range all {
		if r.Report.Changed {
			a.say(fmt.Sprintf("%s: %s has changed since the run", r.Dir.Path, r.Lab.File))
		}
		s := &session.Session{Dir: r.Dir, Run: r.Record}
		runs = append(runs, &oneRun{Run: &runner.Run{Session: s, Lab: r.Lab, Result: r.Result, Report: r.Report}})
	}
	return runs, nil
}
