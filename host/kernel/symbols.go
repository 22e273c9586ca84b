package kernel

import (
	"bytes"
	"context"
	"fmt"

	"labctl/host/kernel/symtab"
	"labctl/host/outcome"
)

// symbolsFile is derived from vmlinuz; increment the number when its contents change.
const symbolsFile = "symbols-1"

// Symbols that every table has. TextSymbol is the image's first byte, BannerSymbol the
// kernel's banner, "Linux version …" (init/version.c).
const (
	TextSymbol   = "_text"
	BannerSymbol = "linux_banner"
)

// Symbols returns the kernel's symbols at their link addresses, in a form that takes
// about a millisecond to load. A kernel without symbols of data (CONFIG_KALLSYMS_ALL) has
// no BannerSymbol, and TextSymbol only on some architectures: they are then found in its
// image. The error wraps image.ErrNoKallsyms if the image has no readable kallsyms table.
func (k *Kernel) Symbols(ctx context.Context) (_ *symtab.Table, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	b, err := k.DerivedData(symbolsFile, func() ([]byte, error) {
		text, err := k.Kallsyms(ctx)
		if err != nil {
			return nil, err
		}
		more, err := k.missingSymbols(text)
		if err != nil {
			return nil, err
		}
		return symtab.Encode(text, more...), nil
	})
	if err != nil {
		return nil, err
	}
	t, err := symtab.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("symbols of kernel %s: %w", k, err)
	}
	return t, nil
}

// missingSymbols finds in the image what its symbols do not tell.
func (k *Kernel) missingSymbols(kallsyms []byte) (more []symtab.Symbol, err error) {
	has := func(name string) bool { return bytes.Contains(kallsyms, []byte(" "+name+"\n")) }
	if has(TextSymbol) && has(BannerSymbol) {
		return nil, nil
	}
	img, err := k.open()
	if err != nil {
		return nil, err
	}
	if addr, ok := img.BannerAddress(kallsyms); ok && !has(BannerSymbol) {
		more = append(more, symtab.Symbol{Addr: addr, Type: 'R', Name: BannerSymbol})
	}
	if _, elf := img.VmlinuxELF(); !elf && !has(TextSymbol) {
		if addr, ok := img.FlatBase(kallsyms); ok {
			more = append(more, symtab.Symbol{Addr: addr, Type: 'T', Name: TextSymbol})
		}
	}
	return more, nil
}
