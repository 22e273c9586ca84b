package stack

import (
	"fmt"
	"strings"
)

// TRACE32 prints the stack as the debugger's Frame.view does:
//
//	-000|kernel_clone(flags = CLONE_VM|CLONE_VFORK, exit_signal = 17, ...)
//	-001|__do_sys_clone(...)
//	-002|el0t_64_sync(asm)
//	 -->|exception
//	 ---|end of frame
//
// "()" is a list that is known to be empty; "..." stands for arguments that are
// not known, because a trace holds no locals. A frame without a symbol has its
// address in the debugger's notation for Arm, NSX for kernel and NUX for user
// code, whatever the architecture. What the notation has no word for is a
// comment: "// truncated" after the last line, and a frame's Note.
func (s *Stack) TRACE32() string {
	var b strings.Builder
	number := 0
	for _, f := range s.Frames {
		fmt.Fprintf(&b, "-%03d|%s", number, f.trace32())
		if f.Note != "" {
			b.WriteString("  // " + f.Note)
		}
		b.WriteByte('\n')
		if f.Exception {
			b.WriteString(" -->|exception\n")
		}
		if f.Kind != Inline {
			number++
		}
	}
	b.WriteString(" ---|end of frame")
	if s.Truncated {
		b.WriteString("  // truncated")
	}
	b.WriteByte('\n')
	return b.String()
}

func (f Frame) trace32() string {
	name := f.Name
	switch {
	case name == "" && f.Kind == User:
		return fmt.Sprintf("NUX:0x%X(asm)", f.PC)
	case name == "":
		return fmt.Sprintf("NSX:0x%X(asm)", f.PC)
	case f.Kind == Asm:
		return name + "(asm)"
	case f.Kind == Inline:
		return name + "(inline)"
	}
	var args []string
	for _, a := range f.Args {
		if a.Name == "" {
			args = append(args, a.Value)
		} else {
			args = append(args, a.Name+" = "+a.Value)
		}
	}
	if !f.AllArgs {
		args = append(args, "...")
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}
