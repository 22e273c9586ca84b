package cell

import (
	"context"
	"errors"
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
