package facts

import (
	"context"
	"errors"
	"fmt"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/show"
	"labctl/host/machine"
)

// List says of labs whether they can run on a machine, from what is known of its
// kernel without a boot. Nothing is downloaded for it.
func List(ctx context.Context, env machine.Env, spec machine.Spec, labs []*lab.Lab) ([]show.Listed, error) {
	if err := machine.Settle(env, &spec); err != nil {
		return nil, err
	}
	t, err := machine.FindTarget(spec.Arch, spec.Board)
	if err != nil {
		return nil, err
	}
	ref := env.Cache.Default(t.Arch)
	if spec.Kernel != "" {
		if ref, err = kernel.ParseRef(spec.Kernel); err != nil {
			return nil, fmt.Errorf("--kernel: %w", err)
		}
	}
	k, err := env.Cache.Find(ref, t.Arch)
	if err != nil && !errors.Is(err, kernel.ErrNotCached) {
		return nil, err
	}
	var all []show.Listed
	for _, l := range labs {
		one := show.Listed{Lab: l}
		if k == nil {
			one.Unknown = fmt.Sprintf("kernel %s for %s is not cached", ref, t.Arch)
		} else if known, err := Of(ctx, k, t, l.Asks()); err != nil {
			one.Unknown = show.Clean(err.Error())
		} else {
			one.Missing, one.Later = Missing(l.Needs, &known, t), Later(l.Needs)
			one.Ready = len(one.Missing) == 0
		}
		all = append(all, one)
	}
	return all, nil
}
