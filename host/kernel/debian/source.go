package debian

import (
	"context"
)

// Lookup fetches the suite's index and gives one package as it describes it.
func (r *Root) Lookup(ctx context.Context, name string, report func(Progress)) (Package, error) {
	if err := r.update(ctx, report); err != nil {
		return Package{}, err
	}
	stanzas, err := r.show(ctx, []exactDep{{name: name}})
	if err != nil {
		return Package{}, err
	}
	return packageOf(stanzas[0])
}
