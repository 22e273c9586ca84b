package unwind

import (
	"encoding/binary"
	"iter"

	"labctl/guest/ksym"
	"labctl/host/outside/kern"
)

// Row says how a function's frame is left from an address on, up to the next row's: what
// call frame information has, for other debuggers.
type Row struct {
	Addr uint64
	End  bool // nothing is known of the caller, or there is none
	// Base is the register (RegSP or RegFP) that the caller's stack pointer is at
	// Offset from.
	Base   string
	Offset int
	// Return and FP are where the return address and the caller's frame pointer are,
	// from the caller's stack pointer; 0 if they are in their registers.
	Return, FP int
}

// Rows yields the rows of a kernel's code in ascending order of addresses: from ORC tables,
// or, on arm64, from the instructions that make and unmake frame records. There are none
// for others.
func Rows(l *kern.Look) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		switch l.K.Image.Arch {
		case "amd64":
			o, err := newORC(l, nil)
			if err != nil {
				return
			}
			o.rows(l, yield)
		case "arm64":
			records(l, yield)
		}
	}
}

// rows yields those of the kernel's own table.
func (o *orc) rows(l *kern.Look, yield func(Row) bool) {
	t := o.tables[0]
	for i := range t.count {
		addr, err1 := t.addr(l, i)
		offsets, w, err2 := t.entry(l, i)
		if err1 != nil || err2 != nil {
			return
		}
		e := o.decode(offsets, w)
		r := Row{Addr: addr, Offset: int(e.sp), Return: -8}
		switch {
		case e.typ != orcCall:
			r = Row{Addr: addr, End: true}
		case e.spReg == regSP:
			r.Base = RegSP
		case e.spReg == regBP:
			r.Base = RegFP
		default:
			r = Row{Addr: addr, End: true}
		}
		if e.bpReg == regPrevSP && !r.End {
			r.FP = int(e.bp)
		}
		if !yield(r) {
			return
		}
	}
}

// records yields the rows of arm64 code. A function has its frame record when it has set
// the frame pointer (add x29, sp, #imm), and no more from where it loads the caller's
// (ldp x29, x30, …) to its return.
func records(l *kern.Look, yield func(Row) bool) {
	k := l.K
	lo, ok1 := k.Addr("_stext")
	hi, ok2 := k.Addr("_etext")
	if !ok1 || !ok2 || hi <= lo || hi-lo > maxText {
		return
	}
	code := make([]byte, hi-lo)
	if l.Read(code, lo) != nil {
		return
	}
	syms := k.Symbols()
	next, framed, seen := 0, false, false
	for at := uint64(0); at+4 <= hi-lo; at += 4 {
		for next < syms.Len() && k.Running(syms.Addr(next)) < lo+at {
			next++
		}
		if next < syms.Len() && k.Running(syms.Addr(next)) == lo+at && syms.Symbol(next).Text() {
			framed, seen = false, false
			r := Row{Addr: lo + at, Base: RegSP}
			if sym, ok := ksym.Family(syms.Symbol(next).Name); ok && sym.Family == ksym.FamilyEntry && !sym.C && !sym.OutermostOnly {
				r = Row{Addr: lo + at, End: true} // nothing is outside
			}
			if !yield(r) {
				return
			}
		}
		ins := binary.LittleEndian.Uint32(code[at:])
		was := framed
		switch {
		case ins&0xffc003ff == 0x910003fd: // add x29, sp, #imm
			framed, seen = true, true
		case ins&0xfe407fff == 0xa8407bfd: // ldp x29, x30, [sp…
			framed = false
		case ins == 0xd65f03c0 || ins == 0xd65f0bff || ins>>26 == 5: // ret, retaa, b
			framed = seen
		}
		if framed == was {
			continue
		}
		r := Row{Addr: lo + at + 4, Base: RegSP}
		if framed {
			r = Row{Addr: lo + at + 4, Base: RegFP, Offset: 16, FP: -16, Return: -8}
		}
		if !yield(r) {
			return
		}
	}
}

// maxText limits the code that is read, in bytes.
const maxText = 256 << 20
