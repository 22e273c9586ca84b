package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"labctl/host/outcome"
)

// kallsymsFile is derived from vmlinuz; the number rises with what is in it.
const kallsymsFile = "kallsyms-1"

// Kallsyms is the kernel's own symbols in the form of /proc/kallsyms, at the
// addresses that it was linked to. They are decoded from the image on first use
// and kept beside it. The error wraps image.ErrNoKallsyms when the image has no
// table that can be read.
func (k *Kernel) Kallsyms(ctx context.Context) (_ []byte, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	name := filepath.Join(k.Dir, kallsymsFile)
	if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
		return b, nil
	}
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
	// A cache that cannot be written costs time on the next call, no more.
	if err := writeFile(name, b); err != nil && !os.IsPermission(err) {
		return nil, fmt.Errorf("symbols of kernel %s: %w", k, err)
	}
	return b, nil
}
