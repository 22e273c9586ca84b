package probe

import (
	"context"
	"errors"

	"labctl/guest/catalogue"
	"labctl/host/kernel"
)

// Lacks returns the system calls that probes need and a kernel lacks, by the probes'
// names. Of a kernel whose symbols cannot be read nothing is known before the boot.
func Lacks(ctx context.Context, k *kernel.Kernel, names []string) (map[string]string, error) {
	lacks := map[string]string{}
	var have map[string][]string
	for _, name := range names {
		p, _ := catalogue.Find(name)
		if p.Needs == "" {
			continue
		}
		if have == nil {
			var err error
			if have, err = k.Creation(ctx); errors.Is(err, kernel.ErrNoKallsyms) {
				return lacks, nil
			} else if err != nil {
				return nil, err
			}
		}
		if len(have[p.Needs]) == 0 {
			lacks[name] = p.Needs
		}
	}
	return lacks, nil
}
