package kernel

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"labctl/host/bounded"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
)

// Types parses all of the kernel's BTF, which is megabytes. It returns nil for a
// kernel without BTF.
func (k *Kernel) Types(ctx context.Context) (_ *btf.Spec, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if k.debuginfo != "" {
		return k.debuginfoTypes(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	blob, err := k.BTF()
	if err != nil || blob == nil {
		return nil, err
	}
	spec, err := ctype.Read(blob)
	if err != nil {
		return nil, fmt.Errorf("BTF of kernel %s: %w", k, err)
	}
	return spec, nil
}

// BTF returns the kernel's types as it holds them itself; nil for a kernel without.
func (k *Kernel) BTF() (_ []byte, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if _, ok := k.Files[btfFile]; !ok {
		return nil, nil
	}
	if err := k.verifyFile(btfFile, true); err != nil {
		return nil, err
	}
	blob, err := bounded.ReadFile(k.file(btfFile), image.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("BTF of kernel %s: %w", k, err)
	}
	return blob, nil
}

// Prototypes returns the parameters of those of the kernel functions that are in the
// BTF; none for a kernel without BTF. Unlike Facts it accepts any function and caches
// nothing: each call parses megabytes of BTF.
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
			return nil, outcome.Default(outcome.BadInput, fmt.Errorf("BTF of kernel %s: %w", k, err))
		}
		if ok {
			out[name] = params
		}
	}
	return out, nil
}

// ImageSHA256 returns the sha256 of the image, in hex.
func (k *Kernel) ImageSHA256() string { return k.Files[imageFile].SHA256 }
