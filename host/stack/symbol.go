package stack

// Symbol is what covers an address.
type Symbol struct {
	Name   string
	Module string // empty for the kernel's image
	Start  uint64
	Size   uint64 // bytes; 0 when the end is not known
}

// Lookup finds the symbol that covers an address.
type Lookup func(addr uint64) (Symbol, bool)

// returns are symbols that are put into a stack as return addresses by their
// start: by the tracers, by the making of a task, and by 32-bit arm where the
// kernel is entered (arch/arm/kernel/entry-common.S).
var returns = map[string]bool{
	"return_to_handler": true, "kretprobe_trampoline": true, "__kretprobe_trampoline": true, "arch_rethook_trampoline": true,
	"ret_from_fork": true, "ret_from_fork_asm": true,
	"ret_fast_syscall": true, "__ret_fast_syscall": true, "ret_slow_syscall": true, "ret_from_exception": true,
}

// At returns the frame at an address, not classified. A return address may already belong
// to the next symbol, so the byte before it is looked up unless exact is set: for the
// innermost frame, and for one where an exception came.
func At(find Lookup, pc uint64, exact bool) Frame {
	f := Frame{PC: pc, Kind: Unknown}
	s, ok := find(pc)
	if !exact && pc > 0 && !(ok && pc == s.Start && returns[s.Name]) {
		s, ok = find(pc - 1)
	}
	if ok {
		f.Name, f.Module, f.Offset, f.Size, f.Kind = Sanitise(s.Name), Sanitise(s.Module), pc-s.Start, s.Size, Function
	}
	return f
}
