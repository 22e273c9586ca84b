package unwind

import (
	"encoding/binary"

	"labctl/host/outcome"
	"labctl/host/outside/kern"
)

// ehabi unwinds by the tables of the Arm EHABI ("Exception Handling ABI for the Arm
// Architecture", section 9), which kernels of 32-bit Arm have in place of frame pointers
// (arch/arm/kernel/unwind.c).
type ehabi struct {
	index uint64 // address of the index
	count int    // of its entries, of eight bytes
	ends  map[uint64]bool
}

const maxEHABI = 4 << 20

func newEHABI(l *kern.Look) (*ehabi, error) {
	k := l.K
	start, ok1 := k.Addr("__start_unwind_idx")
	stop, ok2 := k.Addr("__stop_unwind_idx")
	if !ok2 { // it ends where the table of instructions starts
		stop, ok2 = k.Addr("__start_unwind_tab")
	}
	if !ok1 || !ok2 || stop < start || (stop-start)/8 > maxEHABI || stop == start {
		return nil, outcome.Inputf("unwind stacks of kernel %s: its symbols do not tell where its unwind tables are", k.Image)
	}
	e := &ehabi{index: start, count: int(stop-start) / 8, ends: map[uint64]bool{}}
	// Where the kernel is entered from, and where a new task starts: there is no
	// caller.
	for _, name := range []string{"ret_fast_syscall", "__ret_fast_syscall", "ret_slow_syscall", "ret_from_fork", "ret_to_user", "ret_from_exception", "vector_swi"} {
		if at, ok := k.Addr(name); ok {
			e.ends[at] = true
		}
	}
	return e, nil
}

// prel31 is a place relative to where it is written.
func prel31(at, word uint64) uint64 {
	return (at + uint64(int64(int32(uint32(word)<<1))>>1)) & 0xffffffff
}

// instructions returns the unwind instructions of the function at an address, at most a
// few bytes; none if its frame cannot be unwound.
func (e *ehabi) instructions(l *kern.Look, pc uint64) []byte {
	fn := func(i int) (uint64, error) {
		at := e.index + uint64(8*i)
		w, err := l.Uint(at, 4)
		return prel31(at, w), err
	}
	lo, hi := 0, e.count
	for lo < hi {
		mid := (lo + hi) / 2
		at, err := fn(mid)
		if err != nil {
			return nil
		}
		if at > pc {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return nil
	}
	const cantUnwind = 1
	at := e.index + uint64(8*(lo-1)) + 4
	w, err := l.Uint(at, 4)
	if err != nil || w == cantUnwind {
		return nil
	}
	if w>>31 == 0 { // the instructions are elsewhere
		at = prel31(at, w)
		if w, err = l.Uint(at, 4); err != nil {
			return nil
		}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(w))
	switch b[0] {
	case 0x80:
		return b[1:]
	case 0x81, 0x82:
		out := append([]byte{}, b[2:]...)
		for i := range uint64(b[1]) {
			w, err := l.Uint(at+4+4*i, 4)
			if err != nil {
				return nil
			}
			out = binary.BigEndian.AppendUint32(out, uint32(w))
		}
		return out
	}
	return nil
}

// armRegs are r0 to r15.
type armRegs [16]uint64

const (
	armSP = 13
	armLR = 14
	armPC = 15
)

// Unwind runs the instructions of each frame's function. Regs may have r4 to r11.
func (e *ehabi) Unwind(l *kern.Look, r Regs, exact bool) []PC {
	var regs armRegs
	for i, name := range []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12"} {
		regs[i] = r[name]
	}
	if fp, ok := r[RegFP]; ok {
		regs[11] = fp
	}
	regs[armSP], regs[armLR], regs[armPC] = r[RegSP], r[RegLR], r[RegPC]
	pcs := []PC{{Addr: regs[armPC], Exact: exact}}
	for len(pcs) < maxFrames {
		pc := regs[armPC]
		if !exact {
			if e.ends[pc] {
				break
			}
			pc--
		}
		code := e.instructions(l, pc)
		if code == nil {
			// Assembly without tables that was stopped has its caller in the link
			// register.
			if lr := regs[armLR]; len(pcs) == 1 && exact && lr != 0 {
				regs[armPC], exact = lr, false
				pcs = append(pcs, PC{Addr: lr})
				continue
			}
			break
		}
		before := regs
		if !regs.run(l, code) || regs[armPC] == 0 || regs == before {
			break
		}
		exact = false
		pcs = append(pcs, PC{Addr: regs[armPC]})
	}
	return pcs
}

// run runs the unwind instructions of one frame (EHABI, 9.3). It reports false for what
// cannot be read, or is none.
func (r *armRegs) run(l *kern.Look, code []byte) bool {
	vsp := r[armSP]
	ok, returned := true, false
	pop := func(n int) {
		v, err := l.Uint(vsp, 4)
		if err != nil {
			ok = false
		}
		r[n] = v
		vsp += 4
		returned = returned || n == armPC
	}
	popMask := func(mask uint64, first int) {
		sp := false
		for i := 0; mask>>i != 0 && ok; i++ {
			if mask>>i&1 != 0 {
				pop(first + i)
				sp = sp || first+i == armSP
			}
		}
		if sp {
			vsp = r[armSP]
		}
	}
	for i := 0; i < len(code) && ok; i++ {
		op := uint64(code[i])
		arg := func() uint64 {
			if i++; i < len(code) {
				return uint64(code[i])
			}
			ok = false
			return 0
		}
		switch {
		case op < 0x40:
			vsp += op&0x3f<<2 + 4
		case op < 0x80:
			vsp -= op&0x3f<<2 + 4
		case op < 0x90:
			mask := op&0xf<<8 | arg()
			if mask == 0 { // refuse to unwind
				return false
			}
			popMask(mask, 4)
		case op < 0xa0:
			if n := op & 0xf; n == armSP || n == armPC {
				return false
			}
			vsp = r[op&0xf]
		case op < 0xb0:
			popMask(1<<(op&7+1)-1, 4)
			if op&8 != 0 {
				pop(armLR)
			}
		case op == 0xb0: // finish
			i = len(code)
		case op == 0xb1:
			mask := arg()
			if mask == 0 || mask > 0xf {
				return false
			}
			popMask(mask, 0)
		case op == 0xb2:
			var n, shift uint64
			for b := uint64(0x80); b&0x80 != 0 && ok && shift < 28; shift += 7 {
				b = arg()
				n |= b & 0x7f << shift
			}
			vsp += 0x204 + n<<2
		default: // of coprocessors, which the kernel does not save so
			return false
		}
		vsp &= 0xffffffff
	}
	if !returned {
		r[armPC] = r[armLR]
	}
	r[armSP] = vsp
	return ok
}
