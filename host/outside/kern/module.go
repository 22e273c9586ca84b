package kern

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"labctl/host/stack"
	"labctl/host/text"
)

// Module is a loaded module.
type Module struct {
	Name   string   `json:"name"`
	Addr   uint64   `json:"addr"`  // of its struct module
	State  string   `json:"state"` // as in /proc/modules: "Live"
	Size   uint64   `json:"size"`  // bytes of memory
	Refs   int64    `json:"refs"`
	Users  []string `json:"users,omitempty"` // modules that need it
	Ranges []Range  `json:"ranges"`

	// ORC is its unwind table on x86.
	ORC ORCTable `json:"-"`

	kallsyms uint64
	symbols  []moduleSymbol // once they are read
	read     bool
}

// Range is memory of a module, from Start on.
type Range struct {
	Start uint64 `json:"start"`
	Size  uint64 `json:"size"`
}

// ORCTable is where a module's ORC table is.
type ORCTable struct {
	IP, Entries uint64
	Count       int
}

type moduleSymbol struct {
	addr uint64
	name uint64 // address of the name
}

// Limits on what a guest says of its modules.
const (
	maxModules       = 4096
	maxModuleRanges  = 16
	maxModuleSymbols = 1 << 18
	maxModuleUsers   = 256
	moduleNameLen    = 64
)

// moduleStates are the values of enum module_state (include/linux/module.h), in the words
// of /proc/modules.
var moduleStates = []string{"Live", "Loading", "Unloading", "Unformed"}

// Modules lists the loaded modules, the newest first, as the kernel's list has them.
func (l *Look) Modules() ([]*Module, error) {
	k := l.K
	head, err := k.MustAddr("modules")
	if err != nil {
		return nil, err
	}
	list, err := k.Member("module", "list")
	if err != nil {
		return nil, err
	}
	var all []*Module
	var bad error
	err = l.List(head, list.Offset, maxModules, func(addr uint64) bool {
		m, err := l.module(addr)
		if err != nil {
			bad = err
			return false
		}
		all = append(all, m)
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return all, fmt.Errorf("list of modules: %w", err)
	}
	names := map[uint64]string{}
	for _, m := range all {
		names[m.Addr] = m.Name
	}
	for _, m := range all {
		m.Users = l.moduleUsers(m.Addr, names)
	}
	return all, nil
}

func (l *Look) module(addr uint64) (*Module, error) {
	o := l.Object("module", addr)
	m := &Module{Addr: addr, Name: text.Line(o.String("name"), moduleNameLen), kallsyms: o.Uint("kallsyms")}
	state := o.Uint("state")
	m.State = "?"
	if state < uint64(len(moduleStates)) {
		m.State = moduleStates[state]
	}
	if o.Has("refcnt.counter") {
		// The module itself holds one (MODULE_REF_BASE in kernel/module/main.c).
		m.Refs = o.Int("refcnt.counter") - 1
	}
	if o.Has("mem") { // 6.4
		mem, err := l.K.Member("module", "mem")
		size, err2 := l.K.Size("module_memory")
		if err != nil || err2 != nil || size == 0 {
			return nil, cmp.Or(err, err2)
		}
		for i := range min(mem.Size/size, maxModuleRanges) {
			part := l.Object("module_memory", addr+uint64(mem.Offset+i*size))
			m.Ranges = append(m.Ranges, Range{part.Uint("base"), part.Uint("size")})
			if part.Err() != nil {
				return nil, part.Err()
			}
		}
	} else {
		m.Ranges = []Range{
			{o.Uint("core_layout.base"), o.Uint("core_layout.size")},
			{o.Uint("init_layout.base"), o.Uint("init_layout.size")},
		}
	}
	m.Ranges = slices.DeleteFunc(m.Ranges, func(r Range) bool { return r.Size == 0 || r.Start+r.Size < r.Start })
	for _, r := range m.Ranges {
		m.Size += r.Size
	}
	if o.Has("arch.num_orcs") {
		m.ORC = ORCTable{o.Uint("arch.orc_unwind_ip"), o.Uint("arch.orc_unwind"), int(min(o.Uint("arch.num_orcs"), 1<<24))}
	}
	return m, o.Err()
}

// moduleUsers lists the modules that use one: its source_list has a struct module_use of
// each.
func (l *Look) moduleUsers(addr uint64, names map[uint64]string) (users []string) {
	list, err1 := l.K.Member("module", "source_list")
	link, err2 := l.K.Member("module_use", "source_list")
	if err1 != nil || err2 != nil {
		return nil
	}
	_ = l.List(addr+uint64(list.Offset), link.Offset, maxModuleUsers, func(use uint64) bool {
		if name := names[l.Object("module_use", use).Uint("source")]; name != "" {
			users = append(users, name)
		}
		return true
	}) // what is broken of it is no more than a column of a listing
	return users
}

// contains reports whether an address is in the module.
func (m *Module) contains(addr uint64) (Range, bool) {
	for _, r := range m.Ranges {
		if addr >= r.Start && addr-r.Start < r.Size {
			return r, true
		}
	}
	return Range{}, false
}

// find finds a symbol of the module, from its own kallsyms: those that it keeps after its
// initialisation (struct mod_kallsyms in include/linux/module.h).
func (m *Module) find(l *Look, addr uint64) (stack.Symbol, bool) {
	r, ok := m.contains(addr)
	if !ok {
		return stack.Symbol{}, false
	}
	s := stack.Symbol{Module: m.Name, Start: r.Start, Size: r.Size}
	if !m.read {
		m.read = true
		m.symbols = m.load(l)
	}
	i, exact := slices.BinarySearchFunc(m.symbols, addr, func(s moduleSymbol, addr uint64) int { return cmp.Compare(s.addr, addr) })
	if !exact {
		i--
	}
	for i > 0 && m.symbols[i-1].addr == m.symbols[i].addr {
		i--
	}
	if i < 0 || m.symbols[i].addr < r.Start {
		return s, false
	}
	name, err := l.CString(m.symbols[i].name, 512)
	if err != nil {
		return s, false
	}
	end := r.Start + r.Size
	for _, next := range m.symbols[i:] {
		if next.addr > m.symbols[i].addr {
			end = min(end, next.addr)
			break
		}
	}
	s.Name, s.Start = text.Line(name, 512), m.symbols[i].addr
	s.Size = end - s.Start
	return s, true
}

// load reads a module's symbols that have an address and a name of the kernel's kind, in
// ascending order.
func (m *Module) load(l *Look) []moduleSymbol {
	o := l.Object("mod_kallsyms", m.kallsyms)
	symtab, strtab, n := o.Uint("symtab"), o.Uint("strtab"), o.Uint("num_symtab")
	if o.Err() != nil || n > maxModuleSymbols {
		return nil
	}
	// Elf64_Sym or Elf32_Sym (include/uapi/linux/elf.h).
	size := uint64(24)
	if l.K.bits == 32 {
		size = 16
	}
	raw := make([]byte, n*size)
	if l.Read(raw, symtab) != nil {
		return nil
	}
	le := binary.LittleEndian
	var out []moduleSymbol
	for s := range slices.Chunk(raw, int(size)) {
		name, value, section := le.Uint32(s), uint64(0), uint16(0)
		if size == 24 {
			value, section = le.Uint64(s[8:]), le.Uint16(s[6:])
		} else {
			value, section = uint64(le.Uint32(s[4:])), le.Uint16(s[14:])
		}
		first, err := l.Uint(strtab+uint64(name), 1)
		// Not: undefined ones, those without a name, and the marks of the assembler.
		if section == 0 || err != nil || first == 0 || first == '$' || first == '.' {
			continue
		}
		if _, ok := m.contains(value); ok {
			out = append(out, moduleSymbol{value, strtab + uint64(name)})
		}
	}
	slices.SortStableFunc(out, func(a, b moduleSymbol) int { return cmp.Compare(a.addr, b.addr) })
	return out
}

// Finder returns a function that finds the symbol at an address of the running kernel, in
// its image or in one of the modules.
func (l *Look) Finder(modules []*Module) stack.Lookup {
	k := l.K
	return func(addr uint64) (stack.Symbol, bool) {
		for _, m := range modules {
			if _, ok := m.contains(addr); ok {
				return m.find(l, addr)
			}
		}
		if !k.inImage(addr) {
			return stack.Symbol{}, false
		}
		i, end, ok := k.syms.Covering(addr - k.anchor.Slide)
		if !ok {
			return stack.Symbol{}, false
		}
		s := stack.Symbol{Name: k.syms.Symbol(i).Name, Start: k.running(k.syms.Addr(i))}
		if end != 0 {
			s.Size = end - k.syms.Addr(i)
		}
		return s, true
	}
}

// inImage reports whether an address is in the kernel's image.
func (k *Kernel) inImage(addr uint64) bool {
	lo, ok := k.Addr("_text")
	if stext, ok2 := k.Addr("_stext"); !ok || ok2 && stext < lo {
		lo = stext
	}
	hi, ok := k.Addr("_end")
	if !ok && k.syms.Len() > 0 {
		hi = k.running(k.syms.Addr(k.syms.Len()-1)) + pageSize
	}
	return addr >= lo && addr < hi
}
