package debian

import (
	"context"

	"labctl/host/outcome"
)

// Lookup fetches the suite's index and returns its entry for one package, of any version
// if version is "". The error is a *MissingError if there is none.
func (r *Root) Lookup(ctx context.Context, name, version string, report func(Progress)) (_ Package, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	if err := r.update(ctx, report); err != nil {
		return Package{}, err
	}
	stanzas, err := r.show(ctx, []exactDep{{name, version}})
	if err != nil {
		return Package{}, err
	}
	return packageOf(stanzas[0])
}
