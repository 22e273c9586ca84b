package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/runner"
	"labctl/host/machine"
	"labctl/host/matrix/diff"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
	"labctl/labs"
)

type matrixDiffOptions struct {
	kernels, arches, labs []string
	only                  []string
	out                   string
	jobs                  int
	asJSON, markdown      bool
	all, exitCode         bool
}

func (a *app) matrixDiff() *cobra.Command {
	var o matrixDiffOptions
	c := &cobra.Command{
		Use:   "diff RECORD RECORD... | --kernels A,B",
		Short: "Say what differs between kernels: stacks, structures, claims, tracepoints, system calls",
		Long: `Compare kernels by the records of labs that ran on them. RECORD is the record
of a lab's run, or a folder with several: what --out named, or a matrix's folder.
One folder with several kernels is enough. With --kernels the labs are run first
and their records kept.

Each kernel is compared with the one to the left of it: = is the same, – is not
there, ? is not known. Layouts, tracepoints, system calls and prototypes are from
the kernels' images (kernel.json of a record); stacks and verdicts from the runs.
Several kernels of each architecture are compared by architecture.

Exit status 0 when there is a diff, whatever it says; with --exit-code 1 when the
kernels differ.`,
		Example: `  labctl matrix diff --kernels 5.10,7.2 --arch arm64
  labctl matrix diff --kernels 5.10,6.1,6.12,7.2 --arch amd64,arm64 --labs 'K*,C6' --markdown
  labctl lab run --all --kernel 5.10 --out old && labctl lab run --all --kernel 7.2 --out new
  labctl matrix diff old new --only members,stacks`,
		RunE: func(c *cobra.Command, paths []string) error { return a.diffKernels(c.Context(), &o, paths) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.kernels, "kernels", nil, "run labs on these kernels: 5.10,7.2")
	f.StringSliceVar(&o.arches, "arch", nil, "architectures to run on: amd64, arm64, arm (default: the host's)")
	f.StringSliceVar(&o.labs, "labs", []string{"K1", "K2", "C6"}, "labs to run; K* is all that begin so")
	f.StringVar(&o.out, "out", "", "folder for the records of these runs (default: labctl-out/TIME-diff)")
	f.IntVar(&o.jobs, "jobs", 0, "machines at a time (default: as many as this host has CPUs and memory for)")
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
			return unknown("--only", part, diff.Parts)
		}
	}
	switch {
	case o.asJSON && o.markdown:
		return outcome.Inputf("--json or --markdown, not both")
	case len(o.kernels) > 0 && len(paths) > 0:
		return outcome.Inputf("give records, or --kernels to run labs on, not both")
	case len(o.kernels) == 0 && (len(o.arches) > 0 || o.out != ""):
		return outcome.Inputf("--arch and --out are for runs: give --kernels")
	case len(o.kernels) == 0 && len(paths) == 0:
		return outcome.Inputf("which kernels? give the records of runs, or --kernels 5.10,7.2")
	}
	if len(o.kernels) > 0 {
		var err error
		if paths, err = a.runForDiff(ctx, o); err != nil {
			return err
		}
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

// runForDiff runs the labs on every kernel of every architecture, and gives the
// folders of their records, one a kernel. A lab that does not come to its end is
// a gap in the diff, unless all are so.
func (a *app) runForDiff(ctx context.Context, o *matrixDiffOptions) (paths []string, err error) {
	chosen, err := (&lab.Selection{Names: o.labs}).Of(labs.FS)
	if err != nil {
		return nil, fmt.Errorf("--labs: %w", err)
	}
	if len(o.arches) == 0 {
		o.arches = []string{""}
	}
	var targets []string
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	for _, arch := range o.arches {
		t, err := machine.FindTarget(arch, "")
		if err != nil {
			return nil, err
		}
		targets = append(targets, t.Arch)
		for _, k := range o.kernels { // before anything is run
			ref, err := kernel.ParseRef(k)
			if err == nil {
				if _, err = env.Cache.Find(ref, t.Arch); errors.Is(err, kernel.ErrNotCached) {
					err = nil // it is pulled
				}
			}
			if err != nil {
				return nil, outcome.Inputf("--kernels: %w", err)
			}
		}
	}
	if len(o.kernels)*len(o.arches) < 2 {
		return nil, outcome.Inputf("--kernels %s: one kernel on one machine: nothing to compare it with", text.Line(o.kernels[0], 80))
	}
	base, err := record.Create(o.out, "diff", time.Now())
	if err != nil {
		return nil, err
	}
	os.Remove(base.File(record.ConsoleFile)) // each lab has its own
	turn := make(chan struct{}, jobs(o.jobs))
	var wg sync.WaitGroup
	var runs []*oneRun
	for _, arch := range targets {
		for _, k := range o.kernels {
			dir := filepath.Join(base.Path, arch, strings.ReplaceAll(k, "/", "-"))
			paths = append(paths, dir)
			for _, l := range chosen {
				r := &oneRun{Run: &runner.Run{Session: new(session.Session), Lab: l}}
				runs = append(runs, r)
				turn <- struct{}{}
				wg.Go(func() {
					defer func() { <-turn }()
					if r.err = context.Cause(ctx); r.err == nil {
						*r = *a.runLab(ctx, env, machine.Spec{Arch: arch, Kernel: k}, l, filepath.Join(dir, l.ID))
					}
					a.say(fmt.Sprintf("%s on %s: %s", text.Line(k, 80), arch, r.line("en")))
				})
			}
		}
	}
	wg.Wait()
	ran := 0
	for _, r := range runs {
		if r.Report != nil {
			ran++
		} else if err == nil {
			err = r.err
		}
	}
	if ran > 0 && ctx.Err() == nil {
		err = nil
	}
	a.say("run records: " + base.Path)
	return paths, err
}
