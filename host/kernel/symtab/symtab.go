// Package symtab holds a kernel's symbols in a form that needs no parsing: looked up by
// address and by name in the bytes of a file. A kernel has a hundred to two hundred
// thousand; reading them from the text of /proc/kallsyms takes longer than anything that
// is done with them.
package symtab

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"labctl/host/outcome"
)

// Symbol is one symbol.
type Symbol struct {
	Addr uint64
	Type byte // as in /proc/kallsyms: 'T', 'd'
	Name string
}

// Text reports whether the symbol is code.
func (s Symbol) Text() bool { return strings.IndexByte("tTwW", s.Type) >= 0 }

// Table is a table of symbols in ascending order of addresses; those with the same
// address are in kallsyms' order. The form, little-endian:
//
//	magic     "labsym1\n"
//	count     uint32, bytes of names uint32
//	addresses count × uint64
//	names     count × uint32, offsets of names: of a type letter and the name, then NUL
//	by name   count × uint32, indices in ascending order of names
//	names
type Table struct {
	n      int
	addrs  []byte
	names  []byte
	byName []byte
	text   []byte
}

const (
	magic  = "labsym1\n"
	header = len(magic) + 8
	entry  = 8 + 4 + 4
)

// maxSymbols limits a plausible table.
const maxSymbols = 4 << 20

var errDamaged = outcome.New(outcome.HostLacks, "table of symbols is damaged")

// Encode returns the table of the symbols in the text of kallsyms, "ffffffff81000000 T
// _text" by line, and of more. Lines of another form are skipped.
func Encode(kallsyms []byte, more ...Symbol) []byte {
	syms := slices.Clone(more)
	for line := range bytes.Lines(kallsyms) {
		addr, rest, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		v, err := strconv.ParseUint(addr, 16, 64)
		if !ok || err != nil || len(rest) < 3 || rest[1] != ' ' || strings.ContainsAny(rest, "\x00\t") || len(syms) == maxSymbols {
			continue
		}
		syms = append(syms, Symbol{v, rest[0], rest[2:]})
	}
	slices.SortStableFunc(syms, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	var text []byte
	offsets := make([]uint32, len(syms))
	byName := make([]uint32, len(syms))
	for i, s := range syms {
		offsets[i], byName[i] = uint32(len(text)), uint32(i)
		text = append(append(append(text, s.Type), s.Name...), 0)
	}
	slices.SortStableFunc(byName, func(a, b uint32) int { return strings.Compare(syms[a].Name, syms[b].Name) })
	le := binary.LittleEndian
	out := make([]byte, 0, header+entry*len(syms)+len(text))
	out = append(out, magic...)
	out = le.AppendUint32(out, uint32(len(syms)))
	out = le.AppendUint32(out, uint32(len(text)))
	for _, s := range syms {
		out = le.AppendUint64(out, s.Addr)
	}
	for _, list := range [][]uint32{offsets, byName} {
		for _, v := range list {
			out = le.AppendUint32(out, v)
		}
	}
	return append(out, text...)
}

// Decode returns the table in b, which must not be changed afterwards.
func Decode(b []byte) (*Table, error) {
	le := binary.LittleEndian
	if len(b) < header || string(b[:len(magic)]) != magic {
		return nil, errDamaged
	}
	n, text := uint64(le.Uint32(b[len(magic):])), uint64(le.Uint32(b[len(magic)+4:]))
	if n > maxSymbols || uint64(len(b)) != uint64(header)+entry*n+text || text > 0 && b[len(b)-1] != 0 {
		return nil, errDamaged
	}
	at := uint64(header)
	cut := func(size uint64) []byte { at += size; return b[at-size : at] }
	return &Table{n: int(n), addrs: cut(8 * n), names: cut(4 * n), byName: cut(4 * n), text: cut(text)}, nil
}

// Len returns the number of symbols.
func (t *Table) Len() int { return t.n }

// Addr returns the address of the i-th symbol.
func (t *Table) Addr(i int) uint64 { return binary.LittleEndian.Uint64(t.addrs[8*i:]) }

// Symbol returns the i-th symbol.
func (t *Table) Symbol(i int) Symbol {
	typ, name := t.name(i)
	return Symbol{t.Addr(i), typ, string(name)}
}

// name returns a symbol's type and name without copying it. In a damaged table it is
// empty.
func (t *Table) name(i int) (typ byte, name []byte) {
	at := binary.LittleEndian.Uint32(t.names[4*i:])
	if uint64(at) >= uint64(len(t.text)) {
		return 0, nil
	}
	name, _, _ = bytes.Cut(t.text[at:], []byte{0})
	if len(name) == 0 {
		return 0, nil
	}
	return name[0], name[1:]
}

// Covering returns the index of the symbol that covers an address, and where it ends: at
// the next symbol with another address, 0 if there is none. As in the kernel, of several
// with the same address the first counts (kernel/kallsyms.c, get_symbol_pos).
func (t *Table) Covering(addr uint64) (i int, end uint64, ok bool) {
	lo, hi := 0, t.n // the first symbol above addr
	for lo < hi {
		if mid := (lo + hi) / 2; t.Addr(mid) > addr {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return 0, 0, false
	}
	if lo < t.n {
		end = t.Addr(lo)
	}
	i = lo - 1
	for i > 0 && t.Addr(i-1) == t.Addr(i) {
		i--
	}
	return i, end, true
}

// Named returns the symbols of a name in ascending order of addresses. Static functions
// may share one.
func (t *Table) Named(name string) []Symbol {
	at := func(i int) uint32 { return min(binary.LittleEndian.Uint32(t.byName[4*i:]), uint32(t.n-1)) }
	lo, hi := 0, t.n
	for lo < hi {
		mid := (lo + hi) / 2
		if _, got := t.name(int(at(mid))); string(got) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	var out []Symbol
	for ; lo < t.n; lo++ {
		s := t.Symbol(int(at(lo)))
		if s.Name != name {
			break
		}
		out = append(out, s)
	}
	return out
}
