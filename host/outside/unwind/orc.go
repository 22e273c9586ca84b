package unwind

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"labctl/host/outcome"
	"labctl/host/outside/kern"
)

// orc unwinds by ORC tables.
type orc struct {
	tables []orcTable // the kernel's, then those of modules
	layout orcLayout
	regs   map[byte]orcReg
}

// orcTable is a table in the guest's memory: offsets of addresses relative to where they
// are, in ascending order, and as many entries.
type orcTable struct {
	ip, entries uint64
	count       int
	lo, hi      uint64 // addresses of the first and of the last entry
}

// orcReg is what an entry's register number stands for.
type orcReg int

const (
	regUndefined orcReg = iota
	regPrevSP
	regSP
	regBP
	regR10
	regR13
	regDI
	regDX
	regAX
	regSPIndirect
	regBPIndirect
)

// orcNumbers are the numberings that kernels had (arch/x86/include/asm/orc_types.h), told
// apart by the number of the stack pointer, on which most entries rest.
var orcNumbers = []struct {
	sp   byte
	regs map[byte]orcReg
}{
	{5, map[byte]orcReg{1: regPrevSP, 2: regDX, 3: regDI, 4: regBP, 5: regSP, 6: regR10, 7: regR13, 8: regBPIndirect, 9: regSPIndirect}},
	{3, map[byte]orcReg{1: regAX, 2: regDX, 3: regSP, 4: regBP, 5: regDI, 6: regR10, 7: regR13, 8: regPrevSP, 9: regSPIndirect, 10: regBPIndirect}},
}

// orcNames are the names of the registers in Regs.
var orcNames = map[orcReg]string{regR10: "r10", regR13: "r13", regDI: "rdi", regDX: "rdx", regAX: "rax"}

// orcLayout says which bits of the last two bytes of an entry are what. To 6.3 types have
// two bits, and there may be one for the end of the stack; later it is a type.
type orcLayout struct {
	spReg, bpReg, typ, signal, end bits
}

// bits are a field of a 16-bit word; width 0 is none.
type bits struct{ shift, width int }

func (b bits) of(w uint16) byte { return byte(w >> b.shift & (1<<b.width - 1)) }

// orcEntryBytes is the size of struct orc_entry: two offsets and 16 bits of fields.
const orcEntryBytes = 6

// maxORC limits the entries of a table; the largest kernels have a million.
const maxORC = 8 << 20

func newORC(l *kern.Look, modules []ModuleTable) (*orc, error) {
	k := l.K
	o := &orc{}
	for _, f := range []struct {
		name string
		bits *bits
	}{{"sp_reg", &o.layout.spReg}, {"bp_reg", &o.layout.bpReg}, {"type", &o.layout.typ}, {"signal", &o.layout.signal}, {"end", &o.layout.end}} {
		m, err := k.Member("orc_entry", f.name)
		if err != nil {
			continue
		}
		*f.bits = bits{(m.Offset-4)*8 + m.Shift, m.Bits}
	}
	if o.layout.spReg.width == 0 || o.layout.typ.width == 0 {
		return nil, outcome.Inputf("unwind stacks of kernel %s: the layout of its ORC tables is not known", k.Image)
	}
	start, ok1 := k.Addr("__start_orc_unwind_ip")
	stop, ok2 := k.Addr("__stop_orc_unwind_ip")
	entries, ok3 := k.Addr("__start_orc_unwind")
	if !ok1 || !ok2 || !ok3 || stop < start || (stop-start)/4 > maxORC {
		return nil, outcome.Inputf("unwind stacks of kernel %s: it has no ORC tables", k.Image)
	}
	main, err := newORCTable(l, ModuleTable{IP: start, Entries: entries, Count: int(stop-start) / 4})
	if err != nil {
		return nil, fmt.Errorf("ORC tables: %w", err)
	}
	o.tables = append(o.tables, main)
	for _, m := range modules {
		if t, err := newORCTable(l, m); err == nil {
			o.tables = append(o.tables, t)
		}
	}
	if o.regs, err = o.numbering(l, main); err != nil {
		return nil, err
	}
	return o, nil
}

func newORCTable(l *kern.Look, m ModuleTable) (t orcTable, err error) {
	t = orcTable{ip: m.IP, entries: m.Entries, count: m.Count}
	if m.Count < 1 || m.Count > maxORC {
		return t, fmt.Errorf("%d entries", m.Count)
	}
	if t.lo, err = t.addr(l, 0); err != nil {
		return t, err
	}
	t.hi, err = t.addr(l, m.Count-1)
	return t, err
}

// numbering finds out how registers are numbered, from entries all over the table.
func (o *orc) numbering(l *kern.Look, t orcTable) (map[byte]orcReg, error) {
	const samples = 512
	var seen [16]int
	for i := range samples {
		_, w, err := t.entry(l, i*(t.count-1)/samples)
		if err != nil {
			return nil, fmt.Errorf("ORC tables: %w", err)
		}
		seen[o.layout.spReg.of(w)&15]++
	}
	best := orcNumbers[0]
	for _, n := range orcNumbers {
		if seen[n.sp] > seen[best.sp] {
			best = n
		}
	}
	if seen[best.sp] < samples/4 {
		return nil, outcome.Inputf("unwind stacks: the registers of the ORC tables have numbers that labctl does not know")
	}
	return best.regs, nil
}

// addr returns the address of the i-th entry.
func (t orcTable) addr(l *kern.Look, i int) (uint64, error) {
	at := t.ip + uint64(4*i)
	v, err := l.Uint(at, 4)
	return at + uint64(int64(int32(v))), err
}

// entry reads the i-th entry: its offsets, and its fields.
func (t orcTable) entry(l *kern.Look, i int) (offsets [2]int16, fields uint16, err error) {
	var b [orcEntryBytes]byte
	err = l.Read(b[:], t.entries+uint64(orcEntryBytes*i))
	le := binary.LittleEndian
	return [2]int16{int16(le.Uint16(b[:])), int16(le.Uint16(b[2:]))}, le.Uint16(b[4:]), err
}

// table returns the table that has an address. The last entry of a table ends where no
// other starts.
func (o *orc) table(pc uint64) (best orcTable, ok bool) {
	const last = 64 << 10
	for _, t := range o.tables {
		if pc >= t.lo && pc < t.hi+last && (!ok || t.lo > best.lo) {
			best, ok = t, true
		}
	}
	return best, ok
}

// orcType is the type of an entry, by the later numbering.
type orcType byte

const (
	orcUndefined orcType = iota
	orcEnd
	orcCall
	orcRegs
	orcRegsPartial
)

// entry is what a table says of an address.
type orcEntry struct {
	sp, bp       int16
	spReg, bpReg orcReg
	typ          orcType
	signal       bool
}

// find finds the entry of an address.
func (o *orc) find(l *kern.Look, pc uint64) (e orcEntry, ok bool) {
	t, ok := o.table(pc)
	if !ok {
		return e, false
	}
	lo, hi := 0, t.count // the first entry above pc
	for lo < hi {
		mid := (lo + hi) / 2
		at, err := t.addr(l, mid)
		if err != nil {
			return e, false
		}
		if at > pc {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return e, false
	}
	offsets, w, err := t.entry(l, lo-1)
	if err != nil {
		return e, false
	}
	return o.decode(offsets, w), true
}

// decode decodes an entry.
func (o *orc) decode(offsets [2]int16, w uint16) orcEntry {
	f := o.layout
	e := orcEntry{
		sp: offsets[0], bp: offsets[1], spReg: o.regs[f.spReg.of(w)], bpReg: o.regs[f.bpReg.of(w)],
		typ: orcType(f.typ.of(w)), signal: f.signal.width > 0 && f.signal.of(w) != 0,
	}
	if f.typ.width == 2 { // types start with a call; the end is a bit, or (to 4.19) no register
		switch {
		case f.end.width == 0 && e.spReg == regUndefined, f.end.width > 0 && f.end.of(w) != 0:
			e.typ = orcEnd
		case e.spReg == regUndefined:
			e.typ = orcUndefined
		default:
			e.typ += orcCall
		}
	}
	return e
}

// Offsets in struct pt_regs of x86-64 (arch/x86/include/asm/ptrace.h), whose end is what
// the CPU pushes at an exception.
const (
	ptregsBP = 32
	ptregsIP = 128
	ptregsCS = 136
	ptregsSP = 152
)

// Unwind follows the tables.
func (o *orc) Unwind(l *kern.Look, r Regs, exact bool) []PC {
	pc, sp, bp := r[RegPC], r[RegSP], r[RegFP]
	pcs := []PC{{Addr: pc, Exact: exact}}
	last := func() *PC { return &pcs[len(pcs)-1] }
	// Registers other than these two are those of the innermost frame only.
	for regs := r; len(pcs) < maxFrames; regs = nil {
		look := pc
		if !exact {
			look--
		}
		e, ok := o.find(l, look)
		switch {
		case !ok || e.typ == orcUndefined:
			last().Note = "no ORC entry"
			return pcs
		case e.typ == orcEnd:
			return pcs
		}
		cfa, why := o.cfa(l, e, sp, bp, regs)
		if why != "" {
			last().Note = why
			return pcs
		}
		prevSP, prevBP := sp, bp
		var err error
		switch e.typ {
		case orcCall:
			pc, err = l.Pointer(cfa - 8)
			sp, exact = cfa, false
		case orcRegs, orcRegsPartial:
			base := cfa
			if e.typ == orcRegsPartial {
				base -= ptregsIP // the CPU's part alone
			}
			cs, err1 := l.Pointer(base + ptregsCS)
			if err1 != nil || cs&3 != 0 {
				return pcs // it came from user mode
			}
			pc, err = l.Pointer(base + ptregsIP)
			sp, err1 = l.Pointer(base + ptregsSP)
			err = cmp.Or(err, err1)
			if e.typ == orcRegs {
				bp, _ = l.Pointer(base + ptregsBP)
			}
			exact = true
		default:
			last().Note = "an ORC entry of an unknown type"
			return pcs
		}
		if err != nil {
			last().Note = "its stack cannot be read"
			return pcs
		}
		switch e.bpReg {
		case regPrevSP:
			bp, err = l.Pointer(cfa + uint64(int64(e.bp)))
		case regBP:
			bp, err = l.Pointer(prevBP + uint64(int64(e.bp)))
		}
		if err != nil {
			bp = 0
		}
		if pc == 0 || pc == last().Addr && sp == prevSP {
			return pcs
		}
		pcs = append(pcs, PC{Addr: pc, Exact: exact})
	}
	last().Note = "the stack has no end"
	return pcs
}

// cfa computes the address above the frame: the caller's stack pointer.
func (o *orc) cfa(l *kern.Look, e orcEntry, sp, bp uint64, regs Regs) (cfa uint64, why string) {
	off := uint64(int64(e.sp))
	var err error
	switch e.spReg {
	case regSP:
		return sp + off, ""
	case regBP:
		return bp + off, ""
	case regSPIndirect:
		cfa, err = l.Pointer(sp)
		cfa += off
	case regBPIndirect:
		cfa, err = l.Pointer(bp + off)
	default:
		name := orcNames[e.spReg]
		v, ok := regs[name]
		if !ok {
			return 0, "its frame is found by a register that is not known"
		}
		return v + off, ""
	}
	if err != nil {
		return 0, "its stack cannot be read"
	}
	return cfa, ""
}
