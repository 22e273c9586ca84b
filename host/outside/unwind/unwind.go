// Package unwind walks kernel stacks from outside the guest, with what the kernel's own
// unwinder works from: frame records (arm64, x86 with frame pointers), ORC tables (x86;
// Documentation/arch/x86/orc-unwinder.rst) and the tables of the Arm EHABI (32-bit Arm).
// The tables are read from the guest's memory, those of modules included.
package unwind

import (
	"labctl/guest/ksym"
	"labctl/host/outside/kern"
	"labctl/host/stack"
)

// PC is one address of a stack.
type PC struct {
	Addr uint64
	// Exact says that it is the instruction that runs next, or that an exception
	// stopped, and not a return address.
	Exact bool
	Note  string
	// Link is the link register of a function that an exception stopped, as saved; 0
	// if it is not known.
	Link uint64
}

// Regs are the registers that unwinding starts from, by the names of Names.
type Regs map[string]uint64

// Registers by name: the program counter, the stack pointer, the frame pointer and, where
// there is one, the link register.
const (
	RegPC = "pc"
	RegSP = "sp"
	RegFP = "fp"
	RegLR = "lr"
)

// maxFrames limits a stack. The deepest of real kernels have some sixty frames.
const maxFrames = 192

// Unwinder walks stacks of one kernel. It is not safe for concurrent use.
type Unwinder interface {
	// Unwind returns the addresses of a stack, innermost first. exact says that
	// the program counter is not a return address.
	Unwind(l *kern.Look, r Regs, exact bool) []PC
}

// Of returns the unwinder of a kernel. modules are its loaded modules' tables.
func Of(l *kern.Look, modules []ModuleTable) (Unwinder, error) {
	k := l.K
	switch k.Image.Arch {
	case "amd64":
		if _, ok := k.Addr("__start_orc_unwind_ip"); ok {
			return newORC(l, modules)
		}
	case "arm":
		return newEHABI(l)
	}
	return newFrames(k), nil
}

// ModuleTable is the ORC table of a module.
type ModuleTable struct {
	IP, Entries uint64 // addresses of the table of addresses and of the entries
	Count       int
}

// Frames makes frames of a stack, classified, as host/stack prints them.
func Frames(find stack.Lookup, pcs []PC) stack.Stack {
	var s stack.Stack
	entered := false
	for _, pc := range pcs {
		f := stack.At(find, pc.Addr, pc.Exact || entered)
		f.Note = pc.Note
		sym, _ := ksym.Family(f.Name)
		entered = sym.Family == ksym.FamilyEntry && sym.Exception
		s.Frames = append(s.Frames, f)
	}
	s.Classify()
	return s
}
