package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

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
// about a millisecond to load. Those of data are in kallsyms with CONFIG_KALLSYMS_ALL
// alone; else the vmlinux of the debug package has them, see PullDebug. Without either there is
// no BannerSymbol, and TextSymbol only on some architectures: they are found in the image. The error wraps image.ErrNoKallsyms if the image has no readable kallsyms table.
func (k *Kernel) Symbols(ctx context.Context) (_ *symtab.Table, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	name := symbolsFile
	debug, _ := k.DebugFile()
	if debug != "" { // which may be pulled, and removed, at any time
		name = "debug-" + name
	}
	b, err := k.DerivedData(name, func() ([]byte, error) {
		text, err := k.Kallsyms(ctx)
		if err != nil {
			return nil, err
		}
		more, err := k.missingSymbols(text)
		if err == nil && debug != "" && !hasSymbol(text, BannerSymbol) {
			more, err = dataSymbols(debug, more)
		}
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

func hasSymbol(kallsyms []byte, name string) bool {
	return bytes.Contains(kallsyms, []byte(" "+name+"\n"))
}

// maxDataSymbols bounds the symbols of data of a vmlinux.
const maxDataSymbols = 1 << 20

// dataSymbols returns the symbols of data of a vmlinux, and those that are known already.
func dataSymbols(vmlinux string, known []symtab.Symbol) (all []symtab.Symbol, err error) {
	f, err := elf.Open(vmlinux)
	if err != nil {
		return nil, fmt.Errorf("symbols of %s: %w", vmlinux, err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("symbols of %s: %w", vmlinux, err)
	}
	all = slices.Clone(known)
	has := make(map[string]bool, len(known))
	for _, k := range known {
		has[k.Name] = true
	}
	for _, s := range syms {
		kind := elf.ST_TYPE(s.Info)
		if int(s.Section) >= len(f.Sections) || kind != elf.STT_OBJECT && kind != elf.STT_NOTYPE || s.Name == "" ||
			strings.ContainsAny(s.Name, "$\x00\t ") || len(all) == maxDataSymbols { // $d and the like mark what is data for disassemblers
			continue
		}
		flags := f.Sections[s.Section].Flags
		if flags&elf.SHF_ALLOC == 0 || flags&elf.SHF_EXECINSTR != 0 || has[s.Name] {
			continue
		}
		letter := byte('r')
		switch {
		case f.Sections[s.Section].Type == elf.SHT_NOBITS && flags&elf.SHF_WRITE != 0:
			letter = 'b'
		case flags&elf.SHF_WRITE != 0:
			letter = 'd'
		}
		if elf.ST_BIND(s.Info) == elf.STB_GLOBAL {
			letter -= 'a' - 'A'
		}
		all = append(all, symtab.Symbol{Addr: s.Value, Type: letter, Name: s.Name})
	}
	return all, nil
}

// missingSymbols finds in the image what its symbols do not tell.
func (k *Kernel) missingSymbols(kallsyms []byte) (more []symtab.Symbol, err error) {
	has := func(name string) bool { return hasSymbol(kallsyms, name) }
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
