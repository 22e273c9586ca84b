package cell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/schedule"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/usage"
)

// Options are a matrix that is run in a directory.
type Options struct {
	Name  string        // of the plan
	Plan  []matrix.Cell // of all shards
	Shard matrix.Shard  // what is run of it
	Costs []int         // by which shards are divided; see matrix.Shards
	Out   string        // the directory; empty: labctl-out/TIME-Label
	Label string

	// Resume goes on in Out, whose plan must be this one unless Changes is set, with
	// the cells that have no result and those whose result does not stand.
	Resume  bool
	Changes bool // the plan may change before it is resumed
	Jobs    int  // cells at a time; 0: as many as the host has room for
	Retries int  // of a cell that fails
	// Again is how the command is called that would go on with it; empty if none would.
	Again string
	// Watch, when set, is called before the first cell, with the number of cells
	// and of those that have ended before. tell hears of every start and end.
	Watch func(total, done int) (tell func(schedule.Event), stop func())
	// Kept, when set, is called with the matrix's directory and the results so far, in
	// the plan's order, before the first cell and each time that one ended. Its error
	// ends the run.
	Kept func(dir string, soFar []matrix.Result) error
}

// Matrix is a matrix that was run, or as much of it as was done.
type Matrix struct {
	Dir string
	*matrix.Results
}

// Matrix runs the cells of a plan and keeps what each comes to as it ends, so that
// it can go on where it was stopped. A cell that fails stops no other and is no
// error. With an error that ended it early there may be a Matrix all the same.
func (r *Runner) Matrix(ctx context.Context, o Options) (*Matrix, error) {
	all := &matrix.Results{
		Name: o.Name, Labctl: r.Env.Version, Started: time.Now().UTC(), CPUs: runtime.GOMAXPROCS(0),
		Shard: o.Shard.String(), Plan: o.Plan, Costs: o.Costs,
	}
	dir, done, err := directory(&o, all)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	r.Record = dir.Record
	var mine []matrix.Cell
	for _, i := range all.Mine() {
		mine = append(mine, o.Plan[i])
	}
	todo, good := unfinished(mine, done)
	so := schedule.Options{Budget: schedule.Host(o.Jobs), Retries: o.Retries, Keep: dir.Keep}
	if o.Kept != nil {
		soFar := slices.Clone(good)
		if err := o.Kept(dir.Path, soFar); err != nil {
			return nil, err
		}
		so.Keep = func(res *matrix.Result) error {
			if err := dir.Keep(res); err != nil {
				return err
			}
			soFar = append(soFar, *res)
			return o.Kept(dir.Path, matrix.Sorted(o.Plan, soFar))
		}
	}
	stop := func() {}
	if o.Watch != nil {
		so.Tell, stop = o.Watch(len(mine), len(good))
	}
	var spent usage.Meter
	ran, err := r.Do(usage.With(ctx, &spent), todo, so)
	stop()
	all.Seconds = time.Since(all.Started).Seconds()
	all.CPUSeconds = spent.Total().Seconds()
	for _, res := range ran {
		all.CPUSeconds += res.CPUSeconds
	}
	all.Results = matrix.Sorted(o.Plan, append(good, ran...))
	m := &Matrix{dir.Path, all}
	if werr := r.leave(dir.Path, all); werr != nil {
		return m, errors.Join(err, werr)
	}
	if err != nil && r.Env.Say != nil && o.Again != "" {
		r.Env.Say(fmt.Sprintf("%d of %d cells are done; %s --resume --out %s continues", len(all.Results), len(mine), o.Again, dir.Path))
	}
	return m, err
}

// leave writes what a matrix came to into its directory, and its page.
func (r *Runner) leave(dir string, all *matrix.Results) error {
	if err := matrix.Write(dir, all); err != nil {
		return err
	}
	if r.Env.Page != nil {
		if err := r.Env.Page(dir); err != nil && r.Env.Warn != nil {
			r.Env.Warn(err)
		}
	}
	return nil
}

// directory makes the directory of a matrix, or takes one up.
func directory(o *Options, all *matrix.Results) (dir *matrix.Folder, done []matrix.Result, err error) {
	switch {
	case o.Resume && o.Out == "":
		return nil, nil, outcome.Inputf("--resume: which matrix? give its directory by --out")
	case o.Resume:
		dir, done, err = matrix.Resume(o.Out, all, o.Changes)
		return dir, done, outcome.Default(outcome.BadInput, err)
	}
	path := o.Out
	if path == "" {
		d, err := record.Create("", o.Label, time.Now())
		if err != nil {
			return nil, nil, err
		}
		path = d.Path
	}
	dir, err = matrix.Create(path, all)
	return dir, nil, outcome.Default(outcome.BadInput, err)
}

// unfinished are the cells to run, and the results that stand.
func unfinished(cells []matrix.Cell, done []matrix.Result) (todo []matrix.Cell, good []matrix.Result) {
	stands := map[string]bool{}
	for _, r := range done {
		if r.Stands() {
			stands[r.Cell.ID()] = true
			good = append(good, r)
		}
	}
	for _, c := range cells {
		if !stands[c.ID()] {
			todo = append(todo, c)
		}
	}
	return todo, good
}

// On returns a cell without work: the kernel and the machine that a user asks for,
// by what they are when nothing is said of them.
func On(env machine.Env, asked machine.Spec) (matrix.Cell, error) {
	if err := machine.Settle(env, &asked); err != nil {
		return matrix.Cell{}, err
	}
	t, err := machine.FindTarget(asked.Arch, asked.Board)
	if err != nil {
		return matrix.Cell{}, err
	}
	return matrix.Cell{
		Kernel: cmp.Or(asked.Kernel, env.Cache.Default(t.Arch).String()), Target: t.Name,
		CPUs: asked.CPUs, MemoryMB: asked.MemoryMB, Append: asked.Append,
	}, nil
}
