// Package stack holds a kernel call stack and what is known of the symbols in
// it, whoever took it: ftrace in the guest, /proc/PID/stack or a debugger from
// outside. It reads and prints stacks in the forms that people paste.
package stack

import (
	"cmp"
	"slices"
	"strings"

	"labctl/guest/ksym"
)

// Kind says what a frame is.
type Kind string

const (
	Function Kind = "function" // a C function
	Asm      Kind = "asm"      // assembly: a kernel entry, a raw kernel address
	Inline   Kind = "inline"   // inlined into the next frame
	User     Kind = "user"     // outside the kernel
	Unknown  Kind = "unknown"  // an address without a symbol
)

// Arg is one argument of a frame's function.
type Arg struct {
	Name  string `json:"name,omitempty"` // empty when only its place in the list is known
	Value string `json:"value"`          // as it is to be printed; "?" is not known
}

// Frame is one call.
type Frame struct {
	// Name is the symbol as the kernel prints it, a compiler's suffix such as
	// ".constprop.0" included (see ksym.Strip), of the characters that Sanitise
	// lets through. Empty when only PC is known.
	Name   string `json:"name,omitempty"`
	PC     uint64 `json:"pc,omitempty"`     // 0 when not known
	Offset uint64 `json:"offset,omitempty"` // of PC in the symbol, bytes
	Size   uint64 `json:"size,omitempty"`   // of the symbol, bytes; 0 when neither is known
	Module string `json:"module,omitempty"` // empty for the kernel image
	Kind   Kind   `json:"kind"`
	Args   []Arg  `json:"args,omitempty"`
	// AllArgs says that Args is the whole list, an empty one included.
	AllArgs bool `json:"all_args,omitempty"`
	// Exception says that the frames outside this one were left by an exception
	// or a system call, not by a call: this frame is where the kernel was entered.
	Exception bool   `json:"exception,omitempty"`
	Note      string `json:"note,omitempty"`
}

// Base is the frame's name without a compiler's suffix, for comparing.
func (f Frame) Base() string { return ksym.Strip(f.Name) }

// Stack is one call stack.
type Stack struct {
	Frames []Frame `json:"frames"` // innermost first
	// Trimmed is what Trim took off above Frames[0], innermost first: the
	// machinery that took the stack.
	Trimmed []Frame `json:"trimmed,omitempty"`
	// Truncated says that the outermost frame is no known end of a kernel
	// stack: the unwinder gave up there, or kept to a bound.
	Truncated bool   `json:"truncated,omitempty"`
	Origin    string `json:"origin,omitempty"` // what took it: "sched_process_fork", "gdb"
	Note      string `json:"note,omitempty"`   // why there are no frames
}

// Index is the place of the innermost frame whose symbol has the family, or -1.
func (s *Stack) Index(family string) int {
	for i, f := range s.Frames {
		if sym, ok := ksym.Family(f.Name); ok && sym.Family == family {
			return i
		}
	}
	return -1
}

// Trim moves all frames inside the innermost one that is accepted to Trimmed.
// It reports false, and changes nothing, when no frame is accepted.
func (s *Stack) Trim(top func(Frame) bool) bool {
	for i, f := range s.Frames {
		if top(f) {
			s.Trimmed = append(s.Trimmed, s.Frames[:i:i]...)
			s.Frames = s.Frames[i:]
			return true
		}
	}
	return false
}

// TrimToCreation trims above the creation function. One rule is enough on every
// kernel: whatever machinery took the stack stands above it.
func (s *Stack) TrimToCreation() bool {
	return s.Trim(func(f Frame) bool {
		sym, ok := ksym.Family(f.Name)
		return ok && sym.Family == ksym.FamilyCreation
	})
}

// InsertCaller puts the direct caller of frame i after it, unless it is there. A stack
// that was taken at a function's first instruction lacks it where the caller's frame
// record is not written yet (arm64): the link register has it. A caller without a note is
// from there.
func (s *Stack) InsertCaller(i int, caller Frame) {
	if len(s.Frames) <= i || len(s.Frames) > i+1 && s.Frames[i+1].Base() == caller.Base() {
		return
	}
	caller.Note = cmp.Or(caller.Note, FromLinkRegister)
	s.Frames = slices.Insert(slices.Clone(s.Frames), i+1, caller)
}

// FromLinkRegister marks a caller that a register tells, and not the stack.
const FromLinkRegister = "from the link register"

// FromReturnAddress marks one that a probe read from the top of the stack, where the
// unwinder does not look.
const FromReturnAddress = "from the return address"

// startOfSymbol marks a return address that is the first byte of a symbol. The
// instruction before it is the call, so the caller is the symbol before: a
// function that ends in a call which never returns.
const startOfSymbol = "return address at the start of the symbol: the caller is the function before it"

// Classify sets each frame's Kind, Exception and Note and the stack's Truncated
// by what is known of the symbols, and drops the zero words that mark the end of
// some stacks. Call it on the whole stack, after Trim.
func (s *Stack) Classify() {
	for n := len(s.Frames); n > 0 && s.Frames[n-1].Name == "" && s.Frames[n-1].PC == 0; n-- {
		s.Frames = s.Frames[:n-1]
	}
	// Past the entry from user mode nothing is kernel code. What some
	// unwinders still print there are words of the user's registers.
	user, kernelEnd := false, -1
	for i := range s.Frames {
		f := &s.Frames[i]
		switch {
		case f.Name == "" && (user || f.Kind == User):
			f.Kind = User
		case f.Name == "":
			f.Kind = Unknown
		case f.Kind == Inline || f.Kind == User:
		default:
			f.Kind = Function
		}
		outermost := i == len(s.Frames)-1 || s.Frames[i+1].Name == ""
		if sym, ok := ksym.Family(f.Name); ok && (sym.Family == ksym.FamilyEntry || sym.Ends) && (outermost || !sym.OutermostOnly) {
			if f.Exception = sym.Exception; !sym.C {
				f.Kind = Asm
			}
			if outermost {
				user, kernelEnd = sym.Exception, i
			}
		}
		if i > 0 && !interrupted(s.Frames[i-1].Name) && f.Kind == Function && f.Size > 0 && f.Offset == 0 && f.Note == "" {
			f.Note = startOfSymbol
		}
	}
	s.Truncated = kernelEnd < 0
	// The first function of an idle task has a return address all the same.
	if rest := s.Frames[kernelEnd+1:]; kernelEnd >= 0 && !user && !slices.ContainsFunc(rest, func(f Frame) bool { return f.Name != "" }) {
		s.Frames = s.Frames[:kernelEnd+1]
	}
}

// DropUser drops what is no address of the kernel's at the outer end: the words of the
// user's registers outside the entry from user mode, and what an unwinder that was
// interrupted before a function had written its frame took for a return address.
// Call it after Classify.
func (s *Stack) DropUser() {
	for n := len(s.Frames); n > 0 && s.Frames[n-1].Kind == User; n-- {
		s.Frames = s.Frames[:n-1]
	}
}

// interrupted says of a frame's symbol that the frame outside it did not call: an
// exception stopped it, at that very instruction.
func interrupted(name string) bool {
	sym, ok := ksym.Family(name)
	return ok && sym.Family == ksym.FamilyEntry && sym.Exception && !sym.OutermostOnly
}

// SameCalls reports whether two stacks are the same calls, and where they first
// differ. Suffixes of the compiler, offsets and frames without a symbol are not
// compared.
func SameCalls(a, b *Stack) (same bool, at int) {
	for i := 0; i < len(a.Frames) || i < len(b.Frames); i++ {
		if i >= len(a.Frames) || i >= len(b.Frames) {
			return false, i
		}
		if x, y := a.Frames[i].Base(), b.Frames[i].Base(); x != y && x != "" && y != "" {
			return false, i
		}
	}
	return true, 0
}

// maxName is KSYM_NAME_LEN, the kernel's own bound on a symbol (include/linux/kallsyms.h).
const maxName = 512

// Sanitise makes a name fit for any terminal and file: characters that no
// kernel symbol has become "?", and it is cut at the kernel's own bound.
func Sanitise(name string) string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	ok := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '$'
	}
	for i := 0; i < len(name); i++ {
		if !ok(name[i]) {
			var b strings.Builder
			for j := 0; j < len(name); j++ {
				if ok(name[j]) {
					b.WriteByte(name[j])
				} else {
					b.WriteByte('?')
				}
			}
			return b.String()
		}
	}
	return name
}
