package crash

import (
	"strconv"
	"strings"

	"labctl/host/stack"
	"labctl/host/text"
)

// Unreliable is the Note of a frame that x86 prints with a "?": an address found on
// the stack that is not part of the unwound call chain (arch/x86/kernel/dumpstack.c,
// show_trace_log_lvl).
const Unreliable = "unreliable: left on the stack"

var (
	cpuLine  = text.Lazy(`^CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.{0,64}?) (?:Not tainted|Tainted: |Kdump: loaded )`) // lib/dump_stack.c
	hungLine = text.Lazy(`^INFO: task (.{0,64}):(\d+) .*blocked`)                                                          // kernel/hung_task.c
	softLine = text.Lazy(`soft lockup - CPU#(\d+) stuck for \d+s! \[(.{0,64}):(\d+)\]`)                                    // kernel/watchdog.c
	dumpLine = text.Lazy(`^task:(\S.{0,64}?) +state:.*[ :]pid: *(\d+)`)                                                    // kernel/sched/core.c, sched_show_task
	hardLine = text.Lazy(`(?:^watchdog: CPU(\d+): )?Watchdog detected hard LOCKUP on cpu (\d+)`)                           // kernel/watchdog.c
)

// Task returns the task that the report is about, nil if it names none.
func (r *Report) Task() *Task {
	for _, line := range r.Lines {
		msg, _, _ := message(line)
		if m := hungLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
		}
		if m := softLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[2], PID: number(m[3], 0), CPU: number(m[1], -1)}
		}
		if m := cpuLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[3], PID: number(m[2], 0), CPU: number(m[1], -1)}
		}
		if m := dumpLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
		}
	}
	// Of a CPU that does not respond only the number is known.
	if m := hardLine.FindStringSubmatch(r.Title); m != nil {
		return &Task{CPU: number(m[2], -1)}
	}
	return nil
}

func number(s string, otherwise int) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return otherwise
}

// Lines of a report that contain frames.
var (
	heading  = text.Lazy(`^Call [Tt]race:`)                                                                   // arch/*/kernel: x86 "Call Trace:", arm64 and arm "Call trace:"
	pcLine   = text.Lazy(`^(?:pc : |PC is at |RIP: 00[0-9a-f]{2}:)(\S.*)$`)                                   // arch/*/kernel/process*.c, arch/x86/kernel/dumpstack.c
	lrLine   = text.Lazy(`^(?:lr : |LR is at )(\S.*)$`)                                                       // arch/arm64/kernel/process.c
	userRIP  = text.Lazy(`^RIP: 00[0-9a-f][37b]:`)                                                            // privilege level 3
	context  = text.Lazy(`^ *</?[A-Z_0-9#]+>$`)                                                               // <TASK>, </IRQ>
	register = text.Lazy(`^(?:Code|RSP|R[A-D]X|R[SD]I|RBP|R\d\d|[FCDEGS]S|CR2|DR\d|PKRU|EFLAGS|ORIG_RAX): ?`) // arch/x86/kernel/process_64.c
)

// Stack returns the report's first call stack, innermost frame first; without frames
// if there is none. The frames of the interrupt that printed it are in Trimmed.
func (r *Report) Stack() stack.Stack {
	var s frames
	var pc, lr string
	in := false
	for i, line := range r.Lines {
		msg, _, _ := message(line)
		if !in {
			switch m := pcLine.FindStringSubmatch(msg); {
			case m != nil && !userRIP.MatchString(msg):
				pc, lr = m[1], ""
			case lrLine.MatchString(msg):
				lr = lrLine.FindStringSubmatch(msg)[1]
			case heading.MatchString(msg) && hasFrame(r.Lines[i+1:]):
				in = true
			}
			continue
		}
		if context.MatchString(msg) {
			continue
		}
		if m := pcLine.FindStringSubmatch(msg); m != nil {
			if userRIP.MatchString(msg) {
				break
			}
			// The frames above belong to the interrupt.
			if f, ok := stack.ParseFrame(m[1]); ok {
				s.Trimmed = append(s.Trimmed, s.Frames...)
				s.Frames = []stack.Frame{f}
				pc = ""
			}
			continue
		}
		if register.MatchString(msg) {
			continue
		}
		f, ok := traced(msg)
		if !ok {
			break
		}
		s.Frames = append(s.Frames, f)
	}
	if f, ok := stack.ParseFrame(pc); ok && pc != "" {
		s.complete(f, lr)
	}
	if len(s.Frames) > 0 {
		s.Classify()
		s.interrupted(r.Kind)
		for i := range s.Frames {
			if f := &s.Frames[i]; f.Note == Unreliable { // not a real entry
				f.Exception = false
				if f.Kind == stack.Asm {
					f.Kind = stack.Function
				}
			}
		}
	}
	s.Origin = "console"
	return s.Stack
}

// frames is a stack that is being parsed.
type frames struct{ stack.Stack }

// complete adds what only the registers have: x86 does not print the program counter
// as a frame, and arm64 omits the direct caller while it is in the link register only.
func (s *frames) complete(pc stack.Frame, lr string) {
	for i, f := range s.Frames {
		if f.Name == pc.Name && f.PC == pc.PC && f.Offset == pc.Offset && f.Note != Unreliable {
			s.Trimmed = append(s.Trimmed, s.Frames[:i:i]...)
			s.Frames = s.Frames[i:]
			s.caller(pc, lr)
			return
		}
	}
	s.Frames = append([]stack.Frame{pc}, s.Frames...)
	s.caller(pc, lr)
}

// caller inserts the link register's frame. If the function has called another, the
// link register points into the function itself.
func (s *frames) caller(pc stack.Frame, lr string) {
	if f, ok := stack.ParseFrame(lr); ok && lr != "" && f.Name != "" && f.Name != pc.Name {
		s.InsertCaller(f)
	}
}

// interrupted trims the frames of the timer interrupt, which detected the hang.
func (s *frames) interrupted(kind Kind) {
	if kind != SoftLockup && kind != HardLockup && kind != Stall {
		return
	}
	for i, f := range s.Frames {
		if f.Exception && f.Note != Unreliable && i < len(s.Frames)-1 {
			s.Trimmed = append(s.Trimmed, s.Frames[:i+1:i+1]...)
			s.Frames = s.Frames[i+1:]
			s.Frames[0].Note = "" // the interrupted instruction, not a return address
			return
		}
	}
}

// hasFrame reports whether the lines after a heading start with frames.
func hasFrame(lines []string) bool {
	for _, line := range lines {
		msg, _, _ := message(line)
		if context.MatchString(msg) {
			continue
		}
		_, ok := traced(msg)
		return ok || pcLine.MatchString(msg)
	}
	return false
}

// source matches the origin of a frame, which arm64 prints since 6.13: "(P)" for the
// program counter, "(L)" for the link register (arch/arm64/kernel/stacktrace.c,
// dump_backtrace_entry).
var source = text.Lazy(` \([A-Z]{1,4}\)$`)

// traced parses a line of a trace: " sym+0x18/0x40", "  ? sym+0x18/0x40".
func traced(msg string) (stack.Frame, bool) {
	bare := strings.TrimLeft(msg, " \t")
	if bare == msg {
		return stack.Frame{}, false
	}
	rest, doubt := strings.CutPrefix(bare, "? ")
	f, ok := stack.ParseFrame(source.ReplaceAllString(rest, ""))
	if doubt {
		f.Note = Unreliable
	}
	return f, ok
}
