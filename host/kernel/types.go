package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"

	"labctl/host/outcome"
)

// Types is the kernel's type information, all of it: megabytes to parse. It is
// nil for a kernel that has none.
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
		return nil, fmt.Errorf("types of kernel %s: %w", k, err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return nil, fmt.Errorf("types of kernel %s: read BTF: %w", k, err)
	}
	return spec, nil
}

// CType writes a type in C around a name, which may be empty: "int (*)(void *)",
// "pid_t kernel_clone(struct kernel_clone_args *)".
func CType(t btf.Type, name string) string { return cType(t, name, 0) }

// ImageSHA256 is the sha256 of the image, hex.
func (k *Kernel) ImageSHA256() string { return k.Files[imageFile].SHA256 }
