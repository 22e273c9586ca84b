package unwind

import "labctl/host/outside/kern"

// frames unwinds by frame records: the frame pointer points to the caller's frame pointer
// and the return address.
type frames struct {
	word uint64
	// clear are the bits of a kernel address that a pointer authentication code may
	// be in: all ones without one (Documentation/arch/arm64/pointer-authentication.rst).
	clear uint64
	// meta says that a record of two zeroes is followed by a word that tells what it
	// is (arch/arm64/include/asm/stacktrace/frame.h, 6.13).
	meta    bool
	record  uint64 // offset of the record in struct pt_regs
	pc, fp  uint64 // of the registers there
	lr      uint64
	hasRegs bool
	// The code that enters the kernel (ENTRY_TEXT in include/asm-generic/vmlinux.lds.h).
	entry, entryEnd uint64
}

// Types of records in frame.h.
const (
	metaFinal = 1
	metaRegs  = 2
)

func newFrames(k *kern.Kernel) *frames {
	f := &frames{word: uint64(k.Word())}
	if k.Image.Arch == "arm64" {
		f.clear = ^uint64(0) << k.Table().Format.VABits()
	}
	record, err1 := k.Member("pt_regs", "stackframe")
	pc, err2 := k.Member("pt_regs", "pc")
	regs, err3 := k.Member("pt_regs", "regs")
	if err1 == nil && err2 == nil && err3 == nil {
		f.record, f.pc, f.fp, f.hasRegs = uint64(record.Offset), uint64(pc.Offset), uint64(regs.Offset+29*8), true
		f.lr = uint64(regs.Offset + 30*8)
		f.meta = record.Size > 16
	}
	f.entry, _ = k.Addr("__entry_text_start")
	f.entryEnd, _ = k.Addr("__entry_text_end")
	return f
}

// Unwind follows the frame records. A record lies above the one before it, except where
// the kernel changes stacks, which it does a few times at most.
func (f *frames) Unwind(l *kern.Look, r Regs, exact bool) []PC {
	pcs := []PC{{Addr: f.strip(r[RegPC]), Exact: exact}}
	const maxSwitches = 8
	switches := 0
	for fp := r[RegFP]; fp != 0 && fp%f.word == 0 && len(pcs) < maxFrames; {
		next, err1 := l.Pointer(fp)
		ret, err2 := l.Pointer(fp + f.word)
		if err1 != nil || err2 != nil {
			break
		}
		if next == 0 && ret == 0 {
			kind, err := l.Uint(fp+16, 8)
			if !f.meta || err != nil || kind != metaRegs {
				break
			}
			regs := fp - f.record
			pc, err1 := l.Pointer(regs + f.pc)
			old, err2 := l.Pointer(regs + f.fp)
			if err1 != nil || err2 != nil {
				break
			}
			pcs = append(pcs, PC{Addr: f.strip(pc), Exact: true, Link: f.link(l, regs, pc)})
			next = old
		} else {
			if ret == 0 {
				break
			}
			one := PC{Addr: f.strip(ret)}
			if in := pcs[len(pcs)-1].Addr; f.hasRegs && in >= f.entry && in < f.entryEnd {
				// Before 6.13 the record in the registers that an exception saved has
				// where it stopped.
				one.Link = f.link(l, fp-f.record, ret)
			}
			pcs = append(pcs, one)
		}
		if next <= fp {
			if switches++; next != 0 && switches > maxSwitches {
				pcs[len(pcs)-1].Note = "the frame records form a loop"
				break
			}
		}
		fp = next
	}
	return pcs
}

// link is the link register in a struct pt_regs of an exception that stopped code at pc, 0
// if it is not one.
func (f *frames) link(l *kern.Look, regs, pc uint64) uint64 {
	if at, err := l.Pointer(regs + f.pc); err != nil || at != pc {
		return 0
	}
	lr, err := l.Pointer(regs + f.lr)
	if err != nil {
		return 0
	}
	return f.strip(lr)
}

// strip removes a pointer authentication code.
func (f *frames) strip(pc uint64) uint64 {
	if f.clear != 0 && pc>>55&1 == 1 {
		return pc | f.clear
	}
	return pc
}
