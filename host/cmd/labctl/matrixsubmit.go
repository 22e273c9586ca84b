package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/slurm"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
)

func (a *app) matrixSubmit() *cobra.Command {
	var o matrixRunOptions
	var onSlurm, dryRun, asJSON bool
	var shards int
	var junit string
	var sbatch []string
	c := &cobra.Command{
		Use:   "submit --slurm --shards N [flags] [-- PROG ARGS]",
		Short: "Give a plan to Slurm, a job for each shard",
		Long: `Submit a plan to Slurm as an array of jobs, one for each shard, and a job that merges
what they leave when all have ended. A task whose node fails is started again by Slurm,
on another node, and goes on with the cells that it has not done. --out is a directory
that all nodes reach by the same path: it has shard-1, shard-2, … with their logs, and
merged. labctl is run on the nodes by the path that it has here. --resume with the same plan,
--out and --shards submits what scancel, a time limit or failures have left undone; what was
merged before stays beside merged-2.

Of sbatch's options --sbatch adds what your cluster wants; --dry-run prints what would be
submitted. See docs/ci.md for the same by hand.`,
		Example: `  labctl matrix submit --slurm --shards 4 --kernels 5.10..7.2 --arch amd64,arm64 --labs '*' --out /shared/labs
  labctl matrix submit --slurm --shards 8 --plan nightly.yaml --weights last/matrix.json --sbatch=--cpus-per-task=2 --sbatch=--mem=4G
  labctl matrix submit --slurm --shards 8 --plan nightly.yaml --out /shared/labs --resume
  labctl matrix submit --slurm --shards 2 --kernels 6.12 --labs P1,P2 --dry-run`,
		RunE: func(c *cobra.Command, argv []string) error {
			switch {
			case !onSlurm:
				return outcome.Inputf("where to? give --slurm")
			case shards == 0:
				return outcome.Inputf("give --shards N, the number of jobs")
			case o.plan.shard != "":
				return outcome.Inputf("all shards are submitted: leave --shard out")
			}
			if err := checkOutput("--junit", junit); err != nil {
				return err
			}
			p, err := a.plan(c.Context(), &o.plan, argv)
			if err != nil {
				return err
			}
			if err := cell.CheckFiles(p.spec, p.cells); err != nil {
				return err
			}
			if err := (matrix.Shard{Index: 1, Of: shards}).Fits(len(p.cells)); err != nil {
				return outcome.Inputf("--shards %d: the plan has %d cells", shards, len(p.cells))
			}
			if err := p.divide(o.plan.weights); err != nil {
				return err
			}
			job := &slurm.Array{Name: "labctl", Shards: shards, Args: runArgs(c.Flags(), argv), Sbatch: sbatch}
			if job.Labctl, err = os.Executable(); err != nil {
				return fmt.Errorf("submit: %w", err)
			}
			if junit != "" {
				if junit, err = filepath.Abs(junit); err != nil {
					return fmt.Errorf("submit: %w", err)
				}
				job.Merge = []string{"--junit=" + junit}
			}
			if job.Dir, err = submitFolder(o.out, o.resume, dryRun); err != nil {
				return err
			}
			if o.resume {
				if err := resumable(job, p); err != nil {
					return err
				}
			}
			if dryRun {
				_, err := fmt.Fprintf(a.stdout, "# sbatch %q\n%s# sbatch %q\n%s", job.Options(), job.Script(), job.MergeOptions("ID"), job.MergeScript())
				return err
			}
			jobs, err := job.Submit(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(jobs)
			}
			_, err = fmt.Fprintf(a.stdout, "job %s: %d tasks, %d cells; job %s merges them into %s\n", jobs.Array, jobs.Tasks, len(p.cells), jobs.Merge, jobs.Merged)
			return err
		},
	}
	o.plan.flags(c)
	o.runFlags(c)
	f := c.Flags()
	f.BoolVar(&onSlurm, "slurm", false, "submit to Slurm, by sbatch")
	intFlag(f, &shards, "shards", 1, 1000, "number of jobs")
	f.StringVar(&o.out, "out", "", "directory that all nodes reach (default: labctl-out/TIME-matrix)")
	f.BoolVar(&o.resume, "resume", false, "continue the submission in --out: cells that are missing or failed")
	f.StringVar(&junit, "junit", "", "write JUnit XML of the whole to this file")
	f.StringArrayVar(&sbatch, "sbatch", nil, "an option for sbatch: --sbatch=--partition=labs; may be given again")
	f.BoolVar(&dryRun, "dry-run", false, "print the jobs and submit nothing")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// submitFolder is the directory of the shards, absolute. It is made, unless that of a former
// submission is taken up or nothing is submitted.
func submitFolder(out string, resume, dryRun bool) (string, error) {
	switch {
	case resume && out == "":
		return "", outcome.Inputf("--resume: which submission? give its directory by --out")
	case dryRun && out == "":
		out = "labctl-out/TIME-matrix"
	case resume || dryRun:
	case out == "":
		d, err := record.Create("", "matrix", time.Now())
		if err != nil {
			return "", err
		}
		out = d.Path
	default:
		if err := emptyFolder(out, "submit: "); err != nil {
			return "", outcome.Default(outcome.BadInput, err)
		}
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return "", fmt.Errorf("submit: %w", err)
	}
	return out, nil
}

// resumable says why the shards in the job's directory cannot be gone on with by a plan. It
// finds a name for the whole: what was merged before stays.
func resumable(job *slurm.Array, p *planned) error {
	there, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(job.Dir), "shard-*", matrix.PlanFile))
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	for _, file := range there {
		dir := filepath.Dir(file)
		i, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "shard-"))
		if err != nil {
			continue
		}
		shard := matrix.Shard{Index: i, Of: job.Shards}
		if err := matrix.Resumable(dir, &matrix.Results{Name: p.spec.Name, Plan: p.cells, Shard: shard.String()}); err != nil {
			return err
		}
	}
	if len(there) == 0 {
		return outcome.Inputf("--resume: no shard of a former submission is in %s", job.Dir)
	}
	for i := 2; ; i++ {
		if _, err := os.Lstat(filepath.Join(job.Dir, job.Merged())); err != nil {
			return nil
		}
		job.Whole = fmt.Sprint("merged-", i)
	}
}

// ownOfSubmit are the flags of matrix submit that matrix run gets otherwise, or not.
var ownOfSubmit = []string{"slurm", "shards", "out", "junit", "sbatch", "dry-run", "json", "quiet", "resume"}

// runArgs are the flags and arguments of a submission as labctl matrix run takes them.
func runArgs(f *pflag.FlagSet, argv []string) (args []string) {
	f.Visit(func(f *pflag.Flag) {
		if slices.Contains(ownOfSubmit, f.Name) {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	if len(argv) > 0 {
		args = append(append(args, "--"), argv...)
	}
	return args
}
