package decode

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync"

	"labctl/guest/ksym"
	"labctl/host/stack"
)

// Symbol is what covers an address.
type Symbol struct {
	Name   string
	Module string // empty for the kernel's image
	Start  uint64
	Size   uint64 // bytes; 0 when the end is not known
}

// Lookup finds the symbol that covers an address.
type Lookup func(addr uint64) (Symbol, bool)

// Symbols is a table of a kernel's symbols.
type Symbols struct {
	syms []Symbol // by Start; of several names of one address the first in the text
	// The image goes from start to end; outside it only modules have symbols.
	start, end uint64
}

const (
	maxSymbols = 1 << 22
	pageBytes  = 4096
)

// tables are the symbols of the kernels that were read last: clones of one template
// have the same, and reading a hundred thousand takes longer than a short capture.
var tables struct {
	mu   sync.Mutex
	last []table
}

type table struct {
	text []byte
	syms *Symbols
}

const maxTables = 4

// SymbolsOf is ParseKallsyms, which is not done again for one of the latest texts.
// The text must not be changed afterwards.
func SymbolsOf(kallsyms []byte) *Symbols {
	tables.mu.Lock()
	defer tables.mu.Unlock()
	i := slices.IndexFunc(tables.last, func(t table) bool { return bytes.Equal(t.text, kallsyms) })
	t := table{text: kallsyms}
	if i >= 0 {
		t = tables.last[i]
		tables.last = slices.Delete(tables.last, i, i+1)
	} else {
		t.syms = ParseKallsyms(kallsyms)
	}
	tables.last = append(tables.last, t)
	if len(tables.last) > maxTables {
		tables.last = slices.Delete(tables.last, 0, 1)
	}
	return t.syms
}

// ParseKallsyms reads the text of /proc/kallsyms: "ffffffff81000000 T _text",
// with "\t[module]" behind. Lines of another form are passed over, and so are
// symbols without an address, as one sees them without the right to.
func ParseKallsyms(b []byte) *Symbols {
	t := &Symbols{}
	all := string(b)
	var text, last, end uint64
	for all != "" && len(t.syms) < maxSymbols {
		var line string
		line, all, _ = strings.Cut(all, "\n")
		addr, rest, _ := strings.Cut(line, " ")
		if len(rest) < 3 || rest[1] != ' ' {
			continue
		}
		v, err := strconv.ParseUint(addr, 16, 64)
		if err != nil || v == 0 {
			continue
		}
		name, module, _ := strings.Cut(rest[2:], "\t")
		name = stack.Sanitise(name)
		if name == "" {
			continue
		}
		module = stack.Sanitise(strings.Trim(strings.TrimSpace(module), "[]"))
		if module == "" {
			switch name {
			case "_text", "_stext":
				if text == 0 || v < text {
					text = v
				}
			case "_end":
				end = v
			}
			last = max(last, v)
		}
		t.syms = append(t.syms, Symbol{Name: name, Module: module, Start: v})
	}
	t.start, t.end = text, max(end, last)
	slices.SortStableFunc(t.syms, func(a, b Symbol) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	// A symbol ends where the next one of the same image starts. A module's
	// last one is not known to end anywhere: its memory is whole pages.
	kept := t.syms[:0]
	for i, s := range t.syms {
		if len(kept) > 0 && kept[len(kept)-1].Start == s.Start {
			continue
		}
		for j := i + 1; j < len(t.syms); j++ {
			if next := t.syms[j]; next.Start > s.Start {
				if next.Module == s.Module {
					s.Size = next.Start - s.Start
				} else if s.Module != "" {
					s.Size = min(next.Start, (s.Start/pageBytes+1)*pageBytes) - s.Start
				}
				break
			}
		}
		kept = append(kept, s)
	}
	t.syms = kept
	return t
}

// Find is a Lookup.
func (t *Symbols) Find(addr uint64) (Symbol, bool) {
	i, exact := slices.BinarySearchFunc(t.syms, addr, func(s Symbol, addr uint64) int {
		switch {
		case s.Start < addr:
			return -1
		case s.Start > addr:
			return 1
		}
		return 0
	})
	if !exact {
		i--
	}
	if i < 0 {
		return Symbol{}, false
	}
	s := t.syms[i]
	if s.Module == "" && (addr < t.start || addr > t.end) || s.Size > 0 && addr-s.Start >= s.Size {
		return Symbol{}, false
	}
	return s, true
}

// SetSymbols makes the decoder take symbols from find in place of the capture's
// own kallsyms.
func (d *Decoder) SetSymbols(find Lookup) { d.syms = func() Lookup { return find } }

// Symbol finds the symbol that covers an address.
func (d *Decoder) Symbol(addr uint64) (Symbol, bool) { return d.syms()(addr) }

// trampoline stands in a stack for code that ftrace generated
// (FTRACE_TRAMPOLINE_MARKER in kernel/trace/trace.h).
const trampoline = 1<<31 - 1

// returns are symbols that are put into a stack as return addresses by their
// start: by the tracers, by the making of a task, and by 32-bit arm where the
// kernel is entered (arch/arm/kernel/entry-common.S).
var returns = map[string]bool{
	"return_to_handler": true, "kretprobe_trampoline": true, "__kretprobe_trampoline": true, "arch_rethook_trampoline": true,
	"ret_from_fork": true, "ret_from_fork_asm": true,
	"ret_fast_syscall": true, "__ret_fast_syscall": true, "ret_slow_syscall": true, "ret_from_exception": true,
}

// Frames are the frames of a kernel stack as taken, not classified. A return
// address may already belong to the next symbol, so the byte before it is looked
// up; the innermost one, and one where an exception came, are exact.
func (d *Decoder) Frames(pcs []uint64) []stack.Frame {
	find := d.syms()
	frames := make([]stack.Frame, len(pcs))
	exact := true
	for i, pc := range pcs {
		f := stack.Frame{PC: pc, Kind: stack.Unknown}
		s, ok := find(pc)
		if !exact && pc > 0 && !(ok && pc == s.Start && returns[s.Name]) {
			s, ok = find(pc - 1)
		}
		if ok {
			f.Name, f.Module, f.Offset, f.Size, f.Kind = stack.Sanitise(s.Name), stack.Sanitise(s.Module), pc-s.Start, s.Size, stack.Function
		} else if pc == trampoline {
			f = stack.Frame{Name: "ftrace_trampoline", Kind: stack.Asm}
		}
		sym, _ := ksym.Family(f.Name)
		exact = sym.Family == ksym.FamilyEntry && sym.Exception
		frames[i] = f
	}
	return frames
}
