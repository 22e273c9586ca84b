// Package clone names the flags and the exit signal that task creation takes
// (include/uapi/linux/sched.h).
package clone

import (
	"fmt"
	"strings"
)

// Flags are clone flags as the kernel keeps them: without the exit signal.
type Flags uint64

// CSIGNAL is the part of clone's flags argument that is the exit signal.
const CSIGNAL = 0xff

// names are the flags of one bit each, by the header's order. CLONE_NEWTIME lies
// within CSIGNAL: it is a flag for clone3 and unshare alone, and clone's flags
// must go through Split first. CLONE_DETACHED is ignored by kernels since 2.6.
var names = []struct {
	bit  Flags
	name string
}{
	{0x00000100, "CLONE_VM"},
	{0x00000200, "CLONE_FS"},
	{0x00000400, "CLONE_FILES"},
	{0x00000800, "CLONE_SIGHAND"},
	{0x00001000, "CLONE_PIDFD"},
	{0x00002000, "CLONE_PTRACE"},
	{0x00004000, "CLONE_VFORK"},
	{0x00008000, "CLONE_PARENT"},
	{0x00010000, "CLONE_THREAD"},
	{0x00020000, "CLONE_NEWNS"},
	{0x00040000, "CLONE_SYSVSEM"},
	{0x00080000, "CLONE_SETTLS"},
	{0x00100000, "CLONE_PARENT_SETTID"},
	{0x00200000, "CLONE_CHILD_CLEARTID"},
	{0x00400000, "CLONE_DETACHED"},
	{0x00800000, "CLONE_UNTRACED"},
	{0x01000000, "CLONE_CHILD_SETTID"},
	{0x02000000, "CLONE_NEWCGROUP"},
	{0x04000000, "CLONE_NEWUTS"},
	{0x08000000, "CLONE_NEWIPC"},
	{0x10000000, "CLONE_NEWUSER"},
	{0x20000000, "CLONE_NEWPID"},
	{0x40000000, "CLONE_NEWNET"},
	{0x80000000, "CLONE_IO"},
	{0x100000000, "CLONE_CLEAR_SIGHAND"},
	{0x200000000, "CLONE_INTO_CGROUP"},
	{1 << 34, "CLONE_AUTOREAP"},
	{1 << 35, "CLONE_NNP"},
	{1 << 36, "CLONE_PIDFD_AUTOKILL"},
	{1 << 37, "CLONE_EMPTY_MNTNS"},
	{0x00000080, "CLONE_NEWTIME"},
}

// Names lists the flags; bits without a name come last as one hexadecimal number.
func (f Flags) Names() []string {
	var out []string
	for _, n := range names {
		if f&n.bit != 0 {
			out = append(out, n.name)
			f &^= n.bit
		}
	}
	if f != 0 {
		out = append(out, fmt.Sprintf("0x%x", uint64(f)))
	}
	return out
}

// String is the flags as C writes them: "CLONE_VM|CLONE_VFORK"; "0" for none.
func (f Flags) String() string {
	if f == 0 {
		return "0"
	}
	return strings.Join(f.Names(), "|")
}

// Split takes the one word of clone, fork and vfork (and of _do_fork before it
// had a struct) apart into flags and exit signal.
func Split(word uint64) (Flags, Signal) {
	return Flags(word &^ CSIGNAL), Signal(word & CSIGNAL)
}

// Text is flags and exit signal in the form of clone's one word:
// "CLONE_VM|CLONE_VFORK|SIGCHLD". An exit signal of 0 is left out.
func Text(f Flags, s Signal) string {
	switch {
	case s == 0:
		return f.String()
	case f == 0:
		return s.String()
	}
	return f.String() + "|" + s.String()
}

// Signal is a signal's number, as on amd64, arm64 and arm
// (include/uapi/asm-generic/signal.h).
type Signal int

var signals = [...]string{
	1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE",
	9: "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT",
	17: "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU",
	25: "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

// String is the signal's name, or its number where it has none; "0" is no signal.
func (s Signal) String() string {
	if s > 0 && int(s) < len(signals) {
		return signals[s]
	}
	return fmt.Sprint(int(s))
}

// Constant returns the value of a flag's or a signal's name: "CLONE_VM", "SIGCHLD".
func Constant(name string) (uint64, bool) {
	for _, n := range names {
		if n.name == name {
			return uint64(n.bit), true
		}
	}
	for i, s := range signals {
		if s == name && s != "" {
			return uint64(i), true
		}
	}
	return 0, false
}
