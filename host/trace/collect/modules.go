package collect

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"labctl/host/kernel"
)

// Bounds of what a guest can have the host look up.
const (
	maxModules       = 256
	maxModuleSymbols = 1 << 20
)

// moduleSymbols writes the symbols of a guest's modules as /proc/kallsyms does,
// "ffffffffc0000000 t probe [virtio]". places tells where the code of each is,
// "virtio .text 0xffffffffc0000000" a line; find gives a module as the kernel was
// packaged with it. Modules that it has not are left out.
func moduleSymbols(find func(...string) ([]kernel.Module, error), places []byte) []byte {
	sections := map[string]map[string]uint64{}
	for line := range bytes.Lines(places) {
		f := strings.Fields(string(line))
		if len(f) != 3 {
			continue
		}
		addr, err := strconv.ParseUint(f[2], 0, 64)
		// What it began with is gone, and the memory another's.
		if strings.HasPrefix(f[1], ".init") || err != nil || addr == 0 || sections[f[0]] == nil && len(sections) == maxModules {
			continue
		}
		if sections[f[0]] == nil {
			sections[f[0]] = map[string]uint64{}
		}
		sections[f[0]][f[1]] = addr
	}
	var out []byte
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		// One by one: a module that is not packaged must not cost the others.
		mods, err := find(name)
		if err != nil {
			continue
		}
		for _, m := range mods {
			if m.Name == name && !m.BuiltIn {
				out = appendModule(out, name, m.Data, sections[name])
			}
		}
	}
	return out
}

// appendModule writes the functions of one module.
func appendModule(out []byte, name string, object []byte, sections map[string]uint64) []byte {
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return out
	}
	symbols, err := f.Symbols()
	if err != nil || len(symbols) > maxModuleSymbols {
		return out
	}
	type symbol struct {
		addr uint64
		typ  byte
		name string
	}
	var found []symbol
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Name == "" || int(s.Section) >= len(f.Sections) {
			continue
		}
		base, ok := sections[f.Sections[s.Section].Name]
		if !ok {
			continue
		}
		typ := byte('t')
		if elf.ST_BIND(s.Info) == elf.STB_GLOBAL {
			typ = 'T'
		}
		found = append(found, symbol{base + s.Value, typ, s.Name})
	}
	slices.SortStableFunc(found, func(a, b symbol) int { return cmp.Compare(a.addr, b.addr) })
	for _, s := range found {
		out = fmt.Appendf(out, "%016x %c %s\t[%s]\n", s.addr, s.typ, s.name, name)
	}
	return out
}
