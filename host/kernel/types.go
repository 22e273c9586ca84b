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

// Types parses all of the kernel's own BTF, which is megabytes. It returns nil for a
// kernel without BTF.
func (k *Kernel) Types(ctx context.Context) (_ *btf.Spec, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
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

// TypesFrom is where KnownTypes takes the types of a kernel from.
type TypesFrom string

const (
	TypesNone      TypesFrom = ""
	TypesBTF       TypesFrom = "BTF"           // its own
	TypesPackage   TypesFrom = "debug package" // see PullDebug
	TypesDebuginfo TypesFrom = "debuginfo"     // see SetDebuginfo
)

// TypesFrom returns where the kernel's types come from.
func (k *Kernel) TypesFrom() TypesFrom {
	if k.debuginfo != "" {
		return TypesDebuginfo
	}
	if _, ok := k.Files[btfFile]; ok {
		return TypesBTF
	}
	if path, _ := k.DebugFile(); path != "" {
		return TypesPackage
	}
	return TypesNone
}

// KnownTypes returns the types by which a running kernel's memory is read: the kernel's
// own, or those that debug information of it has. It returns nil if there are none.
//
// What is planned and judged knows the kernel's own alone (Types, Facts): it would depend
// on what somebody has pulled.
func (k *Kernel) KnownTypes(ctx context.Context) (_ *btf.Spec, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	switch k.TypesFrom() {
	case TypesDebuginfo:
		return k.debuginfoTypes(ctx)
	case TypesPackage:
		blob, err := k.debugBTF(ctx, func() {})
		if err != nil || blob == nil {
			return nil, err
		}
		spec, err := ctype.Read(blob)
		if err != nil {
			return nil, fmt.Errorf("types of the debug package of kernel %s: %w", k, err)
		}
		return spec, nil
	}
	return k.Types(ctx)
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
