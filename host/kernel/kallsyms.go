package kernel

import (
	"context"
	"fmt"

	"labctl/host/outcome"
)

// kallsymsFile is derived from vmlinuz; increment the number when its contents
// change.
const kallsymsFile = "kallsyms-1"

// Kallsyms returns the kernel's symbols in the form of /proc/kallsyms, at their
// link addresses. They are decoded from the image on first use and cached next to
// it. The error wraps image.ErrNoKallsyms if the image has no readable kallsyms
// table.
func (k *Kernel) Kallsyms(ctx context.Context) (_ []byte, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	return k.DerivedData(kallsymsFile, func() ([]byte, error) {
		img, err := k.open()
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := img.Kallsyms()
		if err != nil {
			return nil, fmt.Errorf("symbols of kernel %s: %w", k, err)
		}
		return b, nil
	})
}
