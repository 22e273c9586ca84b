package cell

import (
	"context"
	"errors"
	"io/fs"
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
