package stack

import (
	"fmt"
	"strings"
)

// Style is a form that stacks are printed in.
type Style struct {
	Name    string // as --style takes it
	Summary string // whose form it is
	Print   func(*Stack) string
}

// Styles are the forms for people, each as the tool that it is named after
// prints a stack. What a tool would print and a trace cannot know is left out,
// never made up; what a tool has no word for, a cut stack above all, is said in
// that tool's way of saying things. See each method.
var Styles = []Style{
	{"trace32", "Lauterbach TRACE32, Frame.view", (*Stack).TRACE32},
	{"ftrace", "the kernel's trace files", (*Stack).Ftrace},
	{"gdb", "gdb, backtrace", (*Stack).GDB},
	{"crash", "crash(8), bt", (*Stack).Crash},
	{"drgn", "drgn, stack_trace", (*Stack).Drgn},
	{"folded", "one line for a flame graph, outermost first", func(s *Stack) string { return s.Folded() + "\n" }},
}

// FindStyle looks a style up by its name.
func FindStyle(name string) (Style, bool) {
	for _, s := range Styles {
		if s.Name == name {
			return s, true
		}
	}
	return Style{}, false
}

// GDB prints the stack as gdb's backtrace does for a program without debugging
// information:
//
//	#0  kernel_clone (flags=CLONE_VFORK, exit_signal=17, ...)
//	#1  0xffffffff810a5e8b in __do_sys_clone (...)
//	#2  0xffffffff82000130 in entry_SYSCALL_64_after_hwframe ()
//	Backtrace stopped: the unwinder gave up here
//
// As there, an address is that of the instruction to return to; it is left out
// for frame 0, for an inlined function, and where it is not known. "()" is for
// assembly and for a list known to be empty.
func (s *Stack) GDB() string {
	var b strings.Builder
	for i, f := range s.Frames {
		fmt.Fprintf(&b, "#%-3d", i)
		if f.PC != 0 && i > 0 && f.Kind != Inline {
			fmt.Fprintf(&b, "0x%016x in ", f.PC)
		}
		name := f.Name
		if name == "" {
			name = "??"
		}
		var args []string
		for _, a := range f.Args {
			if a.Name == "" {
				args = append(args, a.Value)
			} else {
				args = append(args, a.Name+"="+a.Value)
			}
		}
		if !f.AllArgs && f.Name != "" && f.Kind == Function {
			args = append(args, "...")
		}
		b.WriteString(name + " (" + strings.Join(args, ", ") + ")")
		if f.Module != "" {
			b.WriteString(" from " + f.Module) // gdb's word for a shared library
		}
		b.WriteString(remark(f) + "\n")
	}
	if s.Truncated {
		b.WriteString("Backtrace stopped: the unwinder gave up here\n")
	}
	return b.String()
}

// Crash prints the stack as crash(8)'s bt does. Its brackets hold where on the
// stack the return address was, which no trace knows:
//
//	#0 [----------------] kernel_clone at ffffffff810a5d20
//	#1 [----------------] __do_sys_clone at ffffffff810a5e8b
//	   --- <exception> ---
//
// A frame whose address is not known has its offset in place of it.
func (s *Stack) Crash() string {
	var b strings.Builder
	number := 0
	for _, f := range s.Frames {
		if f.Kind == Inline {
			fmt.Fprintf(&b, "    (inlined by) %s%s\n", f.Name, remark(f))
			continue
		}
		name := f.Name
		if name == "" {
			name = "(unknown)"
		}
		place := fmt.Sprintf("%016x", f.PC)
		if f.PC == 0 {
			place = fmt.Sprintf("+%#x", f.Offset)
		}
		fmt.Fprintf(&b, "%3s [----------------] %s at %s", fmt.Sprintf("#%d", number), name, place)
		number++
		if f.Module != "" {
			b.WriteString(" [" + f.Module + "]")
		}
		b.WriteString(remark(f) + "\n")
		if f.Exception {
			b.WriteString("    --- <exception> ---\n")
		}
	}
	if s.Truncated {
		b.WriteString("bt: cannot go on from here: the stack is truncated\n")
	}
	return b.String()
}

// Drgn prints the stack as drgn prints a stack trace without debugging
// information:
//
//	#0  kernel_clone+0x0/0x478
//	#1  __do_sys_clone+0x6b/0x90
//	#2  ???
func (s *Stack) Drgn() string {
	var b strings.Builder
	for i, f := range s.Frames {
		what := "???"
		switch {
		case f.Name != "" && f.Kind == Inline:
			what = f.Name + " (inlined)"
		case f.Name != "" && f.Size > 0:
			what = fmt.Sprintf("%s+0x%x/0x%x", f.Name, f.Offset, f.Size)
		case f.Name != "":
			what = f.Name
		case f.PC != 0:
			what = fmt.Sprintf("0x%x", f.PC)
		}
		fmt.Fprintf(&b, "#%-2d %s%s\n", i, what, remark(f))
	}
	if s.Truncated {
		b.WriteString("... (truncated)\n")
	}
	return b.String()
}

// remark is what is to be said of a frame, as a comment at the line's end.
func remark(f Frame) string {
	if f.Note == "" {
		return ""
	}
	return "  # " + f.Note
}

// Folded is the stack as flamegraph.pl and speedscope take it, without a count:
// the names of its functions, outermost first, with ";" between them:
//
//	[truncated];el0_svc;invoke_syscall;__do_sys_clone;kernel_clone
//
// Suffixes of the compiler are kept off, so that one function is one box. The
// frame "[truncated]" stands where the outer ones are missing.
func (s *Stack) Folded() string {
	names := make([]string, 0, len(s.Frames)+1)
	if s.Truncated {
		names = append(names, "[truncated]")
	}
	for i := len(s.Frames) - 1; i >= 0; i-- {
		f := s.Frames[i]
		switch {
		case f.Name != "":
			names = append(names, Sanitise(f.Base()))
		case f.Kind == User:
			names = append(names, "[user]")
		default:
			names = append(names, "[unknown]")
		}
	}
	return strings.Join(names, ";")
}
