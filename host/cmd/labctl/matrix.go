package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/plan"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/labs"
)

func (a *app) matrixCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "matrix",
		Short: "Run labs, programs and tests on many kernels and machines",
		Long: `Run work on every kernel and machine of a plan, several cells at a time, and
keep a record of each. A plan is given by flags or by a file; it is the same on
every host, so that it can be run in shards and merged. See docs/matrix.md.`,
		Example: `  labctl matrix ls --kernels 5.10,7.2 --arch amd64,arm64 --labs 'P*'
  labctl matrix run --kernels 5.10,7.2 --arch amd64,arm64 --labs 'P*,K1'
  labctl matrix run --plan nightly.yaml --shard 2/4 --out shard-2
  labctl matrix merge shard-1 shard-2 shard-3 shard-4`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	c.AddCommand(a.matrixLs(), a.matrixRun(), a.matrixMerge(), a.matrixDiff(), a.matrixSubmit())
	return c
}

// planFlags are what a plan is made from.
type planFlags struct {
	kernels, archs, boards []string
	labs, tests, files     []string
	file                   string
	smp, mem               int
	shard, weights         string
}

// kernelsUsage is of --kernels, wherever it is.
const kernelsUsage = "kernels, as --kernel takes them elsewhere; 6.1..7.2: all between; cached: all that are in the cache"

func (f *planFlags) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.SetInterspersed(false) // what follows PROG is PROG's
	fl.StringSliceVar(&f.kernels, "kernels", nil, kernelsUsage)
	fl.StringSliceVar(&f.archs, "arch", nil, "architectures: amd64, arm64, arm (default: the host's)")
	fl.StringSliceVar(&f.boards, "board", nil, "boards: "+strings.Join(boards(), ", "))
	fl.StringSliceVar(&f.labs, "labs", nil, "labs by their ids, or globs over them: 'P*,K1'")
	fl.StringSliceVar(&f.tests, "gotest", nil, "Go packages whose tests are run, a cell each: ./pkg/...")
	fl.StringArrayVar(&f.files, "file", nil, "HOST[:GUEST]: a file or directory that the guest of a program or test gets; may be given again")
	fl.StringVar(&f.file, "plan", "", "a plan file, instead of all these")
	sizeFlags(fl, &f.smp, &f.mem)
	fl.StringVar(&f.shard, "shard", "", "only this part of the plan: 2/5")
	fl.StringVar(&f.weights, "weights", cell.Builtin, "what shards are divided by: the matrix.json of a former run, builtin, or none for as many cells each")
}

// planned is a plan as commands have it.
type planned struct {
	spec  *plan.Spec
	cells []matrix.Cell // of all shards
	shard matrix.Shard
	costs []int // of the cells, if there are shards
}

// mine are the cells of the shard.
func (p *planned) mine() (cells []matrix.Cell) {
	r := matrix.Results{Plan: p.cells, Costs: p.costs, Shard: p.shard.String()}
	for _, i := range r.Mine() {
		cells = append(cells, p.cells[i])
	}
	return cells
}

// divide finds the costs by which a plan's shards are divided.
func (p *planned) divide(weights string) (err error) {
	if p.costs, err = cell.Costs(p.cells, labs.FS, weights); err != nil {
		return outcome.Inputf("--weights: %w", err)
	}
	return nil
}

// plan makes the plan of a command line, whose errors are the user's to mend.
func (a *app) plan(ctx context.Context, f *planFlags, argv []string) (*planned, error) {
	spec, err := f.spec(argv)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	p := &planned{spec: spec}
	if p.cells, err = cell.Plan(ctx, spec, labs.FS); err != nil {
		return nil, err
	}
	if p.shard, err = matrix.ParseShard(f.shard); err == nil {
		err = p.shard.Fits(len(p.cells))
	}
	if err != nil {
		return nil, outcome.Inputf("--shard: %w", err)
	}
	if p.shard != (matrix.Shard{}) || f.weights != cell.Builtin {
		err = p.divide(f.weights)
	}
	return p, err
}

func (f *planFlags) spec(argv []string) (*plan.Spec, error) {
	byFlags := len(f.kernels)+len(f.archs)+len(f.boards)+len(f.labs)+len(f.tests)+len(f.files)+len(argv)+f.smp+f.mem != 0
	if f.file != "" {
		if byFlags {
			return nil, errors.New("--plan has all of the plan: leave the other flags of it, and a program, out")
		}
		return plan.Read(f.file)
	}
	s := &plan.Spec{Kernels: plan.FromFlags("--kernels", f.kernels), CPUs: f.smp, MemoryMB: f.mem}
	for _, name := range f.archs {
		t, err := machine.FindTarget(name, "")
		if err != nil {
			return nil, err
		}
		s.Targets = append(s.Targets, plan.FromFlags("--arch", []string{t.Name})...)
	}
	for _, name := range f.boards {
		t, err := machine.FindTarget("", name)
		if err != nil {
			return nil, err
		}
		s.Targets = append(s.Targets, plan.FromFlags("--board", []string{t.Name})...)
	}
	if len(f.labs) > 0 {
		s.Work = append(s.Work, plan.Work{Kind: matrix.Lab, Names: plan.FromFlags("--labs", f.labs)})
	}
	files := plan.FromFlags("--file", f.files)
	if len(f.tests) > 0 {
		s.Work = append(s.Work, plan.Work{Kind: matrix.GoTest, Names: plan.FromFlags("--gotest", f.tests), Files: files})
	}
	if len(argv) > 0 {
		s.Work = append(s.Work, plan.Work{Kind: matrix.Program, Names: plan.FromFlags("PROG", argv[:1]), Args: argv[1:], Files: files})
	}
	if len(f.files) > 0 && len(f.tests)+len(argv) == 0 {
		return nil, errors.New("--file is for a program or for --gotest, and there is neither")
	}
	return s, nil
}

func (a *app) matrixLs() *cobra.Command {
	var f planFlags
	var asJSON, github bool
	var shards int
	c := &cobra.Command{
		Use:   "ls [flags] [-- PROG ARGS]",
		Short: "Show a plan, and start nothing",
		Long: `Show the cells of a plan in their order. Nothing is started or downloaded.

--github prints one line of JSON for a job's strategy.matrix in GitHub Actions,
with a shard and a name for each job: as many as --shards, or as many as there
are kernels on machines.`,
		Example: `  labctl matrix ls --kernels 5.10,6.12 --arch amd64,arm64 --labs 'P*'
  labctl matrix ls --plan nightly.yaml --json
  labctl matrix ls --plan nightly.yaml --github --shards 4`,
		RunE: func(c *cobra.Command, argv []string) error {
			switch {
			case github && asJSON:
				return outcome.Inputf("give --json or --github")
			case github && f.shard != "":
				return outcome.Inputf("--github is of all shards: leave --shard out")
			case c.Flags().Changed("shards") && !github:
				return outcome.Inputf("--shards goes with --github")
			}
			p, err := a.plan(c.Context(), &f, argv)
			if err != nil {
				return err
			}
			if github {
				if err := p.divide(f.weights); err != nil {
					return err
				}
				jobs, err := plan.GitHub(p.cells, p.costs, shards)
				if err != nil {
					return err
				}
				return json.NewEncoder(a.stdout).Encode(jobs)
			}
			return a.printPlan(p, asJSON)
		},
	}
	f.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&github, "github", false, "print the JSON of a strategy.matrix for GitHub Actions")
	intFlag(c.Flags(), &shards, "shards", 1, 1000, "with --github: number of jobs")
	return c
}

// planJSON is `matrix ls --json`.
type planJSON struct {
	Name  string     `json:"name,omitempty"`
	Shard string     `json:"shard,omitempty"`
	Cells []cellJSON `json:"cells"`
}

type cellJSON struct {
	ID string `json:"id"`
	matrix.Cell
}

func (a *app) printPlan(p *planned, asJSON bool) error {
	if asJSON {
		out := planJSON{Name: p.spec.Name, Shard: p.shard.String()}
		for _, c := range p.mine() {
			out.Cells = append(out.Cells, cellJSON{c.ID(), c})
		}
		return a.printJSON(out)
	}
	w := a.table("KERNEL", "TARGET", "KIND", "WORK")
	for _, c := range p.mine() {
		w.Row(c.Kernel, c.Target, c.Work.Kind, workLine(c.Work))
	}
	if err := w.Write(a.stdout); err != nil {
		return err
	}
	a.say(fmt.Sprintf("%d cells", len(p.mine())))
	return nil
}

func workLine(w matrix.Work) string {
	line := w.Name
	for _, arg := range w.Args {
		line += " " + arg
	}
	return text.Line(line, 200)
}
