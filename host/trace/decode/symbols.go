package decode

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"labctl/guest/ksym"
	"labctl/host/stack"
)

// Symbol is what covers an address, and Lookup finds it.
type (
	Symbol = stack.Symbol
	Lookup = stack.Lookup
)

// Symbols is a table of a kernel's symbols. It is safe for concurrent use.
type Symbols struct {
	text []byte
	syms []entry // by start, each start once
	// found has the symbols of syms that were looked up: a table has a hundred
	// thousand, and a trace names a few hundred of them.
	found []atomic.Pointer[Symbol]
	// The image goes from start to end; outside it only modules have symbols.
	start, end uint64
}

// entry is a line of kallsyms.
type entry struct {
	start uint64
	name  int // where it begins in the text
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
// symbols without an address, as one sees them without the right to. Of several
// names of one address the first in the text counts. The text must not be changed
// afterwards.
func ParseKallsyms(b []byte) *Symbols {
	t := &Symbols{text: b, syms: make([]entry, 0, min(len(b)/40, maxSymbols))}
	var text, last, end uint64
	sorted := true
	for at, next := 0, 0; at < len(b) && len(t.syms) < maxSymbols; at = next {
		next = len(b)
		if i := bytes.IndexByte(b[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		v, digits := hexNumber(b[at:next])
		// " T name", and what is behind it
		rest := bytes.TrimSuffix(b[at+digits:next], []byte{'\n'})
		if v == 0 || len(rest) < 4 || rest[0] != ' ' || rest[2] != ' ' || rest[3] == '\t' {
			continue
		}
		s := entry{v, at + digits + 3}
		name, _, tab := bytes.Cut(rest[3:], []byte{'\t'})
		if !tab || t.module(s) == "" {
			switch string(name) {
			case "_text", "_stext":
				if text == 0 || v < text {
					text = v
				}
			case "_end":
				end = v
			}
			last = max(last, v)
		}
		if n := len(t.syms); n > 0 && v <= t.syms[n-1].start {
			if v == t.syms[n-1].start {
				continue
			}
			sorted = false
		}
		t.syms = append(t.syms, s)
	}
	t.start, t.end = text, max(end, last)
	if !sorted {
		slices.SortStableFunc(t.syms, func(a, b entry) int { return cmp.Compare(a.start, b.start) })
		t.syms = slices.CompactFunc(t.syms, func(a, b entry) bool { return a.start == b.start })
	}
	t.found = make([]atomic.Pointer[Symbol], len(t.syms))
	return t
}

// hexNumber reads the number that b begins with and says how many digits it has; 0
// for one of more than 64 bits.
func hexNumber(b []byte) (n uint64, digits int) {
	for i, c := range b {
		d := uint64(c)
		switch {
		case '0' <= c && c <= '9':
			d -= '0'
		case 'a' <= c && c <= 'f':
			d -= 'a' - 10
		case 'A' <= c && c <= 'F':
			d -= 'A' - 10
		default:
			return n, i
		}
		if n>>60 != 0 {
			return 0, 0
		}
		n = n<<4 | d
	}
	return n, len(b)
}

// words are an entry's name and module as they stand in the text.
func (t *Symbols) words(s entry) (name, module string) {
	text := t.text[s.name:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	name, module, _ = strings.Cut(string(text), "\t")
	return name, module
}

// module is the name of the module that an entry is of, empty for the image.
func (t *Symbols) module(s entry) string {
	_, module := t.words(s)
	return stack.Sanitise(strings.Trim(strings.TrimSpace(module), "[]"))
}

// symbol is the symbol of an entry. It ends where the next one of the same image
// starts. A module's last one is not known to end anywhere: its memory is whole
// pages.
func (t *Symbols) symbol(i int) *Symbol {
	if s := t.found[i].Load(); s != nil {
		return s
	}
	name, _ := t.words(t.syms[i])
	s := &Symbol{Name: stack.Sanitise(name), Module: t.module(t.syms[i]), Start: t.syms[i].start}
	if i+1 < len(t.syms) {
		next := t.syms[i+1]
		if t.module(next) == s.Module {
			s.Size = next.start - s.Start
		} else if s.Module != "" {
			s.Size = min(next.start, (s.Start/pageBytes+1)*pageBytes) - s.Start
		}
	}
	t.found[i].Store(s)
	return s
}

// Find is a Lookup.
func (t *Symbols) Find(addr uint64) (Symbol, bool) {
	i, exact := slices.BinarySearchFunc(t.syms, addr, func(s entry, addr uint64) int { return cmp.Compare(s.start, addr) })
	if !exact {
		i--
	}
	if i < 0 {
		return Symbol{}, false
	}
	s := t.symbol(i)
	if s.Module == "" && (addr < t.start || addr > t.end) || s.Size > 0 && addr-s.Start >= s.Size {
		return Symbol{}, false
	}
	return *s, true
}

// The kernel's part of a 32-bit address space begins at a multiple of kernelAlign, and
// modules may be as much as moduleSpace below the image (arch/arm/include/asm/memory.h).
const (
	kernelAlign = 1 << 28
	moduleSpace = 16 << 20
)

// lowest is the lowest address that may be the kernel's, whose longs have longSize bytes;
// 0 when it is not known.
func (t *Symbols) lowest(longSize int) uint64 {
	switch {
	case longSize == 8:
		return 1 << 63
	case len(t.syms) == 0:
		return 0
	}
	start := t.start
	if start == 0 { // a table that was kept has the symbols that were used
		start = t.syms[0].start
	}
	return max(start&^(kernelAlign-1), moduleSpace) - moduleSpace
}

// SetSymbols makes the decoder take symbols from find in place of the capture's
// own kallsyms.
func (d *Decoder) SetSymbols(find Lookup) { d.syms = func() Lookup { return find } }

// Symbol finds the symbol that covers an address.
func (d *Decoder) Symbol(addr uint64) (Symbol, bool) { return d.syms()(addr) }

// trampoline stands in a stack for code that ftrace generated
// (FTRACE_TRAMPOLINE_MARKER in kernel/trace/trace.h).
const trampoline = 1<<31 - 1

// Frames are the frames of a kernel stack as taken, not classified. A return
// address may already belong to the next symbol, so the byte before it is looked
// up; the innermost one, and one where an exception came, are exact.
func (d *Decoder) Frames(pcs []uint64) []stack.Frame {
	find := d.syms()
	frames := make([]stack.Frame, len(pcs))
	exact := true
	for i, pc := range pcs {
		f := stack.At(find, pc, exact)
		if f.Name == "" && pc == trampoline {
			f = stack.Frame{Name: "ftrace_trampoline", Kind: stack.Asm}
		} else if f.Name == "" && pc < d.kernelFrom() {
			f.Kind = stack.User
		}
		sym, _ := ksym.Family(f.Name)
		exact = sym.Family == ksym.FamilyEntry && sym.Exception
		frames[i] = f
	}
	return frames
}
