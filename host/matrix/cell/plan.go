package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/matrix"
	"labctl/host/matrix/plan"
	"labctl/host/outcome"
	"labctl/host/targets"
	"labctl/host/text"
)

// Plan returns the cells of what is asked for, with the kernels of the user's cache,
// the labs of a directory, and the Go packages that the go command knows.
func Plan(ctx context.Context, spec *plan.Spec, labs fs.FS) ([]matrix.Cell, error) {
	known := plan.Known{
		Cached: cached,
		Within: func(span kernel.Span, archs []string) ([]kernel.Spanned, error) {
			cache, err := kernel.Open("")
			if err != nil {
				return nil, err
			}
			return cache.Within(span, archs)
		},
		Packages: func(pattern, arch string) ([]string, error) {
			found, err := program.Tests(ctx, pattern, arch)
			if err != nil {
				return nil, errors.New(text.Line(err.Error(), 400))
			}
			return found, nil
		},
	}
	var err error
	if known.Labs, err = lab.IDs(labs); err != nil {
		return nil, err
	}
	cells, err := spec.Cells(known)
	return cells, outcome.Default(outcome.BadInput, err)
}

// CheckFiles says which of the kernels, programs and other files of this host that a
// plan names is not there, or cannot be used on any of its machines, before each cell says
// so. Nothing is built or analysed for it.
func CheckFiles(spec *plan.Spec, cells []matrix.Cell) error {
	var archs []string
	for _, c := range cells {
		if t, _ := targets.Find(c.Target); !slices.Contains(archs, t.Arch) {
			archs = append(archs, t.Arch)
		}
	}
	bad := func(i plan.Item, err error) error { return &plan.Error{Where: i.Where, Msg: err.Error()} }
	for _, k := range spec.Kernels {
		if ref, err := kernel.ParseRef(k.Text); err == nil && ref.Path != "" {
			if _, err := os.Stat(ref.Path); err != nil {
				return bad(k, fmt.Errorf("kernel %s: %w", ref.Path, errors.Unwrap(err)))
			}
		}
	}
	for _, w := range spec.Work {
		for _, f := range w.Files {
			if err := program.CheckFile(f.Text); err != nil {
				return bad(f, err)
			}
		}
		if w.Kind != matrix.Program {
			continue
		}
		var err error
		for _, arch := range archs { // another's program is a cell's failure
			if err = program.Check(w.Names[0].Text, arch); err == nil {
				break
			}
		}
		if err != nil {
			return bad(w.Names[0], err)
		}
	}
	return nil
}

// Builtin names the costs that labctl has, in place of a file.
const Builtin = "builtin"

// Costs are what the cells of a plan are thought to take, by which shards of it are
// divided (plan.Costs). weights is Builtin, or the matrix.json of a former run or its
// directory, or "none": then there are no costs, and shards have as many cells each.
func Costs(cells []matrix.Cell, labs fs.FS, weights string) (_ []int, err error) {
	var former *matrix.Results
	switch weights {
	case "none":
		return nil, nil
	case Builtin:
	default:
		if fi, err := os.Stat(weights); err == nil && fi.IsDir() {
			weights = filepath.Join(weights, matrix.File)
		}
		if former, err = matrix.ReadFile(weights); err != nil {
			return nil, err
		}
	}
	own := map[string]bool{}
	return plan.Costs(cells, func(w matrix.Work) bool {
		if w.Kind != matrix.Lab {
			return false
		}
		boots, ok := own[w.Name]
		if !ok {
			l, err := lab.One(labs, w.Name)
			boots = err == nil && (len(l.Needs.Append) > 0 || l.Needs.CPUs > 0 || l.Needs.MemoryMB > 0)
			own[w.Name] = boots
		}
		return boots
	}, former), nil
}

// cached names the kernels at hand, by the shortest name of each.
func cached(arch string) ([]string, error) {
	cache, err := kernel.Open("")
	if err != nil {
		return nil, err
	}
	rows, err := cache.Sources(arch)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range rows {
		if r.Kernel != nil && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	return names, nil
}
