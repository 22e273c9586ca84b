package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"

	"labctl/host/outcome"
)

// Prototypes gives the parameters of kernel functions, of those that BTF knows;
// a kernel without BTF knows none. Unlike Facts it takes any name, and nothing is
// remembered: it reads megabytes of types.
func (k *Kernel) Prototypes(ctx context.Context, functions ...string) (_ map[string][]Param, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	out := map[string][]Param{}
	if _, ok := k.Files[btfFile]; !ok || len(functions) == 0 {
		return out, nil
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
	for _, name := range functions {
		params, err := prototype(spec, name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("types of kernel %s: %w", k, err)
		}
		out[name] = params
	}
	return out, nil
}

// prototype looks one function up.
func prototype(spec *btf.Spec, name string) ([]Param, error) {
	var fn *btf.Func
	if err := spec.TypeByName(name, &fn); err != nil {
		return nil, fmt.Errorf("read BTF of %s(): %w", name, err)
	}
	params := []Param{}
	if proto, ok := fn.Type.(*btf.FuncProto); ok {
		for _, p := range proto.Params {
			params = append(params, Param{p.Name, paramType(p.Type, 0)})
		}
	}
	return params, nil
}
