package kernel

import (
	"context"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"

	"labctl/host/kernel/ctype"
	"labctl/host/outcome"
)

// Types is the kernel's BTF, all of it: megabytes to parse. It is nil for a kernel
// that has none.
func (k *Kernel) Types(ctx context.Context) (_ *btf.Spec, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if _, ok := k.Files[btfFile]; !ok {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := k.verifyFile(btfFile, true); err != nil {
		return nil, err
	}
	blob, err := os.ReadFile(k.file(btfFile))
	if err != nil {
		return nil, fmt.Errorf("BTF of kernel %s: %w", k, err)
	}
	spec, err := ctype.Read(blob)
	if err != nil {
		return nil, fmt.Errorf("types of kernel %s: %w", k, err)
	}
	return spec, nil
}

// Prototypes gives the parameters of kernel functions, of those that BTF knows;
// a kernel without BTF knows none. Unlike Facts it takes any name, and nothing is
// remembered: it parses megabytes of BTF.
func (k *Kernel) Prototypes(ctx context.Context, functions ...string) (map[string][]Param, error) {
	out := map[string][]Param{}
	if len(functions) == 0 {
		return out, nil
	}
	spec, err := k.Types(ctx)
	if spec == nil || err != nil {
		return out, err
	}
	for _, name := range functions {
		params, ok, err := ctype.Params(spec, name)
		if err != nil {
			return nil, outcome.Default(outcome.BadInput, fmt.Errorf("types of kernel %s: %w", k, err))
		}
		if ok {
			out[name] = params
		}
	}
	return out, nil
}

// ImageSHA256 returns the sha256 of the image, in hex.
func (k *Kernel) ImageSHA256() string { return k.Files[imageFile].SHA256 }
