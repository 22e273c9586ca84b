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
	hungLine = text.Lazy(`^INFO: task (.{0,64}):(\d+) .*(?:blocked|can't die) `)                                           // kernel/hung_task.c
	softLine = text.Lazy(`soft lockup - CPU#(\d+) stuck for \d+s! \[(.{0,64}):(\d+)\]`)                                    // kernel/watchdog.c
	dumpLine = text.Lazy(`^task:(\S.{0,64}?) +state:.*[ :]pid: *(\d+)`)                                                    // kernel/sched/core.c, sched_show_task
	oldDump  = text.Lazy(`^(\S.{0,15}?) +[RSDTtXZPI] ?(?: running task +| +)\d+ +(\d+) +\d+ 0x[0-9a-f]{8}`)                // the same before 5.9
	hardLine = text.Lazy(`(?:^watchdog: CPU(\d+): )?Watchdog detected hard LOCKUP on cpu (\d+)`)                           // kernel/watchdog.c
	lockLine = text.Lazy(`^(.{1,64})/(\d+) (?:is |just |\[HC\d)`)                                                          // kernel/locking/lockdep.c
	leakLine = text.Lazy(`^\s+comm "(.{0,64})", pid (-?\d+), jiffies `)                                                    // mm/kmemleak.c
)

// named returns the task that a line of a report names, nil if it names none.
func named(msg string) *Task {
	if msg == "" {
		return nil
	}
	switch msg[0] { // the patterns below are slow, and a report has 400 lines
	case 'I':
		if m := hungLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
		}
	case 'C':
		if m := cpuLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[3], PID: number(m[2], 0), CPU: number(m[1], -1)}
		}
	case 't':
		if m := dumpLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
		}
	case ' ':
		if m := leakLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: max(0, number(m[2], 0)), CPU: -1}
		}
	}
	if strings.Contains(msg, "soft lockup") {
		if m := softLine.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[2], PID: number(m[3], 0), CPU: number(m[1], -1)}
		}
	}
	if strings.Contains(msg, " 0x") {
		if m := oldDump.FindStringSubmatch(msg); m != nil {
			return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
		}
	}
	return nil
}

// Task returns the task that the report is about, nil if it names none.
func (r *Report) Task() *Task {
	if r.firstKind() == Stall {
		if d := r.dump(); d != nil && d.task != nil {
			if d.task.CPU < 0 {
				d.task.CPU = d.cpu
			}
			return d.task
		}
	}
	for _, line := range r.Lines {
		if t := named(strings.TrimPrefix(parse(line).msg, "kmemleak: ")); t != nil {
			return t
		}
	}
	if r.Kind == Lockdep {
		for _, line := range r.Lines {
			if m := lockLine.FindStringSubmatch(parse(line).msg); m != nil {
				return &Task{Comm: m[1], PID: number(m[2], 0), CPU: -1}
			}
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

// pattern is a pattern and what makes most lines fail without it: a report has 400 lines
// of what a guest chose to print.
type pattern struct {
	first string // the bytes that a matching line may begin with; empty: any
	has   string // what it contains
	*text.Pattern
}

// maxFrame is the length of the longest line that is looked at: two symbols of
// KSYM_NAME_LEN, 512, are not real.
const maxFrame = 800

func (p pattern) may(msg string) bool {
	return msg != "" && len(msg) <= maxFrame && (p.first == "" || strings.IndexByte(p.first, msg[0]) >= 0) && strings.Contains(msg, p.has)
}

func (p pattern) matches(msg string) bool { return p.may(msg) && p.MatchString(msg) }

func (p pattern) find(msg string) []string {
	if !p.may(msg) {
		return nil
	}
	return p.FindStringSubmatch(msg)
}

// Lines of a report that contain frames.
var (
	// arch/*/kernel: x86 "Call Trace:", arm64 and arm "Call trace:", arm "Backtrace:";
	// mm/kmemleak.c
	heading = pattern{"CB \t0123456789abcdef", "race", text.Lazy(`^(?:(?:\s*[0-9a-f]{16})?Call [Tt]race|Backtrace|\s*backtrace(?: \(crc [0-9a-f]+\))?): *$`)}
	// arch/*/kernel/process*.c, arch/x86/kernel/dumpstack.c
	pcLine = pattern{"pePNRI", "", text.Lazy(`^(?:pc : |epc : |PC is at |NIP \[[0-9a-f]+\] |R?IP: (?:00[0-9a-f]{2}:)?)(\S.*)$`)}
	// arch/arm64/kernel/process.c, arch/arm/kernel/process.c
	lrLine = pattern{"lL", "", text.Lazy(`^(?:lr : |LR is at )(\S.*)$`)}
	// privilege level 3
	userRIP = pattern{"R", "", text.Lazy(`^RIP: 00[0-9a-f][37b]:`)}
	// <TASK>, </IRQ>; before 4.13 in front of a frame
	context = pattern{" <", "<", text.Lazy(`^ *</?[A-Z_0-9#]+> *`)}
	// arch/x86/kernel/process_64.c
	register = pattern{"CRFEDGSPO", ":", text.Lazy(`^(?:Code|RSP|R[A-D]X|R[SD]I|RBP|R\d\d|[FCDEGS]S|CR2|DR\d|PKRU|EFLAGS|ORIG_RAX): ?`)}
	// arch/arm/lib/backtrace.S, arch/arm/kernel/traps.c
	armRegs = pattern{" \trE0123456789abcdef", "", text.Lazy(`^\s*r\d+:[0-9a-f]{8}\b|^[0-9a-f]{4}: [0-9a-f ]{8}|^Exception stack\(0x`)}
	// lib/nmi_backtrace.c, kernel/sched/core.c
	nmiLine = pattern{"NT", "", text.Lazy(`^NMI backtrace for cpu (\d+)|^Task dump for CPU (\d+):`)}
	// kernel/rcu/tree_stall.h, print_cpu_stall_info; in braces before 3.19 and of
	// expedited ones
	stalled  = pattern{"r \t", ": (", text.Lazy(`^(?:rcu: )?\s+(\d+)-[^: ]*: \(`)}
	expedite = pattern{"rI", "{ ", text.Lazy(`\{((?: \d+(?:-\S*)?)+) ?\}`)}
)

const lastRan = "rcu: Stack dump where RCU GP kthread last ran:" // kernel/rcu/tree_stall.h

// dump is one of the call stacks that a report contains.
type dump struct {
	frames
	pc      stack.Frame // the program counter, from the registers
	hasPC   bool
	lr      string
	task    *Task
	cpu     int  // -1 if not known
	kthread bool // of RCU's own thread, or of where it last ran
	eoi     bool // the next frame is where an interrupt came
}

// Stack returns the report's call stack, innermost frame first; without frames if
// there is none. That of a stall is the stalled CPU's, that of others the first. The
// frames of what printed the report, and of the interrupt that detected a hang, are in
// Trimmed.
func (r *Report) Stack() stack.Stack {
	d := r.dump()
	if d == nil {
		d = new(dump)
		if f, ok := r.culprit(); ok {
			d.Frames = []stack.Frame{f}
		}
	}
	s := &d.frames
	atPC := false
	if d.hasPC {
		atPC = true
		s.complete(d.pc, d.lr)
	}
	if len(s.Frames) > 0 {
		s.Classify()
		if atPC {
			s.cut(func(name string) bool { return matches(instrumentation, name) })
		} else {
			kind := r.firstKind()
			f, ok := r.culprit()
			// Lockdep names where the lock was taken; the function may be elsewhere now.
			near := kind != Lockdep || strings.Contains(r.Title, "held")
			if !ok || !s.from(f, near) {
				s.interrupted(kind)
				s.reporters(kind)
				if ok && !s.has(f.Name) {
					f.Note = namedBy
					s.Frames = append([]stack.Frame{f}, s.Frames...)
				}
			}
		}
		for i := range s.Frames {
			f := &s.Frames[i]
			if f.Note == interruptedHere {
				f.Note = ""
			}
			if f.Note == Unreliable { // not a real entry
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

// firstKind returns the kind of a panic's report before it became that.
func (r *Report) firstKind() Kind {
	if r.Kind == Panic && len(r.Lines) > 0 { // without, it is not from a log
		if st, _ := opens(parse(r.Lines[0]).msg); st != nil {
			return st.kind
		}
	}
	return r.Kind
}

// symbol matches a function with an offset, as the kernel's %pS prints it.
const symbol = `(\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]]{1,64}\])?)`

// Where a report names the function that it is about.
var (
	titleAt = text.Lazy(`^(?:BUG: K[A-Z]+: .* in|WARNING: .* at \S+:\d+|.*[Ss]tack is corrupted in:) ` + symbol)
	lockAt  = text.Lazy(`\bat: (?:\[<[0-9a-f]+>\] +)?` + symbol)                        // kernel/locking/lockdep.c, print_lock
	lastRun = text.Lazy(`^ +(?:last function: |.* workfn=)(\S+(?: \[[^\]]{1,64}\])?)$`) // kernel/workqueue.c, process_one_work
)

// namedBy is the Note of a frame that is not on the stack: the report's own words name
// it. The compiler inlined it, or, as a function that took a lock which is still held,
// it has returned.
const namedBy = "not on the stack: named by the report"

// culprit returns the function that the report's own words name.
func (r *Report) culprit() (stack.Frame, bool) {
	if m := titleAt.FindStringSubmatch(r.Title); m != nil {
		return frame(m[1])
	}
	if r.Kind != Lockdep || strings.Contains(r.Title, "RCU usage") { // that lists the locks that are held
		return stack.Frame{}, false
	}
	for i, l := range r.Lines[:min(len(r.Lines), 12)] { // the lock is named first
		msg := parse(l).msg
		if m := lockAt.FindStringSubmatch(msg); m != nil {
			return frame(m[1])
		}
		if m := lastRun.FindStringSubmatch(msg); m != nil {
			return frame(m[1])
		}
		if strings.HasSuffix(msg, " at:") && i+1 < len(r.Lines) { // the lock that is released
			if f, ok := traced(parse(r.Lines[i+1]).msg); ok && f.Size > 0 {
				return f, true
			}
		}
	}
	return stack.Frame{}, false
}

// from trims the frames above f, or, if near is set, above another place in its function.
// It reports false if that is not in the stack.
func (s *frames) from(f stack.Frame, near bool) bool {
	return s.Trim(func(g stack.Frame) bool {
		return g.Name == f.Name && g.Offset == f.Offset && g.Size == f.Size && g.Note != Unreliable
	}) || near && s.Trim(func(g stack.Frame) bool { return g.Name == f.Name && g.Note != Unreliable })
}

// dump returns the stack that the report is about, nil if it contains none.
func (r *Report) dump() *dump {
	all, cpus := r.dumps()
	var best *dump
	stall := r.firstKind() == Stall
	for i := range all {
		d := &all[i]
		if len(d.Frames) == 0 {
			continue
		}
		if !stall {
			return d
		}
		if best == nil || d.fits(cpus) > best.fits(cpus) {
			best = d
		}
	}
	if best != nil {
		return best
	}
	for i := range all {
		if all[i].hasPC {
			return &all[i]
		}
	}
	return nil
}

// fits returns how likely the stack is that of one of the stalled CPUs.
func (d *dump) fits(cpus map[int]bool) int {
	switch {
	case d.kthread || d.has("rcu_gp_kthread"):
		return 0
	case d.cpu >= 0 && cpus[d.cpu]:
		return 3
	case d.cpu >= 0 && len(cpus) > 0:
		return 1
	}
	return 2
}

// has reports whether the function is in the stack.
func (s *frames) has(name string) bool {
	for _, f := range s.Frames {
		if (f.Name == name || f.Base() == name) && f.Note != Unreliable {
			return true
		}
	}
	return false
}

// dumps returns all stacks of the report, and the CPUs that a stall's list names.
func (r *Report) dumps() (all []dump, cpus map[int]bool) {
	cpus = map[int]bool{}
	stall := r.firstKind() == Stall
	d := dump{cpu: -1}
	in, last := false, false // in a stack; below lastRan
	caller := ""
	next := func() {
		if len(d.Frames) > 0 || d.hasPC {
			all = append(all, d)
		}
		d, in = dump{cpu: -1, kthread: last}, false
	}
	msgs := make([]line, len(r.Lines))
	for i, l := range r.Lines {
		msgs[i] = parse(l)
		if r.Kind == Leak {
			msgs[i].msg = strings.TrimPrefix(msgs[i].msg, "kmemleak: ")
		}
	}
	for i, l := range msgs {
		msg := l.msg
		if in {
			if l.caller != caller && caller != "" { // another CPU speaks
				continue
			}
			if d.take(msg) || !ends(msg) && resumes(msgs[i+1:]) {
				continue
			}
			in = false
		}
		switch m := pcLine.find(msg); {
		case m != nil:
			if len(d.Frames) > 0 {
				next()
			}
			if f, ok := frame(m[1]); ok && !userRIP.matches(msg) {
				d.pc, d.hasPC, d.lr = f, true, ""
			}
			continue
		case lrLine.matches(msg):
			// arm functions return without restoring it, so there it may be left over from
			// an earlier call, except after a jump to nowhere.
			if strings.HasPrefix(msg, "lr : ") || d.pc.Name == "" {
				d.lr = lrLine.find(msg)[1]
			}
			continue
		case heading.matches(msg) && hasFrame(msgs[i+1:]),
			isArm(msg),
			i > 0 && headless(msg) && (r.Kind.sanitizer() || strings.HasPrefix(msg, "[<") && !strings.HasSuffix(msgs[i-1].msg, ":")):
			if len(d.Frames) > 0 {
				next()
			}
			in, caller = true, l.caller
			if !heading.matches(msg) {
				d.take(msg)
			}
			continue
		case strings.HasPrefix(msg, lastRan):
			next()
			last = true
			d.kthread = true
			continue
		}
		if stall {
			if m := stalled.find(msg); m != nil {
				cpus[number(m[1], -1)] = true
				continue
			}
			if m := expedite.find(msg); m != nil { // " 0-... 3-..."
				for _, cpu := range strings.Fields(m[1]) {
					n, _, _ := strings.Cut(cpu, "-")
					cpus[number(n, -1)] = true
				}
			}
		}
		if m := nmiLine.find(msg); m != nil {
			next()
			last = false
			d.cpu = number(m[1]+m[2], -1)
			continue
		}
		if t := named(msg); t != nil {
			if len(d.Frames) > 0 || t.CPU >= 0 && d.hasPC {
				next()
			}
			d.task = t
			if t.CPU >= 0 {
				d.cpu = t.CPU
			}
		}
	}
	next()
	return all, cpus
}

// take adds a line below a heading to the stack. It reports false for one that is not
// part of a stack.
func (d *dump) take(msg string) bool {
	if m := context.find(msg); m != nil {
		if strings.Contains(m[0], "<EOI>") { // x86 before 4.13, in place of the RIP line
			d.eoi = true
		}
		msg = " " + msg[len(m[0]):]
		if strings.TrimSpace(msg) == "" {
			return true
		}
	}
	if m := pcLine.find(msg); m != nil {
		if userRIP.matches(msg) {
			return false
		}
		// The function that an interrupt or an exception interrupted.
		if f, ok := frame(m[1]); ok {
			f.Note = interruptedHere
			d.Frames = append(d.Frames, f)
		}
		return true
	}
	if register.matches(msg) || armRegs.matches(msg) {
		return true
	}
	if callee, caller, ok := armFrames(msg); ok {
		if n := len(d.Frames); n == 0 || d.Frames[n-1].Name != callee.Name {
			d.Frames = append(d.Frames, callee)
		}
		d.Frames = append(d.Frames, caller)
		return true
	}
	f, ok := traced(msg)
	if ok {
		if d.eoi && f.Note != Unreliable {
			f.Note, d.eoi = interruptedHere, false
		}
		d.Frames = append(d.Frames, f)
	}
	return ok
}

func isArm(msg string) bool {
	_, _, ok := armFrames(msg)
	return ok
}

// armFrames parses a line of 32-bit arm's, which has a function and its caller:
// "[<pc>] (f) from [<lr>] (g+0x1/0x2)", since 6.1 " f from g+0x1/0x2"
// (arch/arm/kernel/traps.c, dump_backtrace_entry).
func armFrames(msg string) (callee, caller stack.Frame, ok bool) {
	left, right, ok := strings.Cut(msg, " from ")
	if !ok || len(msg) > maxFrame || left == "" || left[0] != ' ' && !strings.HasPrefix(left, "[<") || !strings.Contains(right, "+0x") {
		return callee, caller, false
	}
	if callee, ok = armFrame(left); ok {
		caller, ok = armFrame(right)
	}
	return callee, caller, ok
}

func armFrame(s string) (stack.Frame, bool) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "[<") {
		addr, after, ok := strings.Cut(s, ">] (")
		inner, closed := strings.CutSuffix(after, ")")
		if !ok || !closed {
			return stack.Frame{}, false
		}
		s = addr + ">] " + inner
	}
	return frame(s)
}

// interruptedHere marks, until the stack is complete, a frame from the registers that
// an exception saved.
const interruptedHere = "interrupted here"

// frames is a stack that is being parsed.
type frames struct{ stack.Stack }

// complete adds what only the registers have: x86 does not print the program counter
// as a frame, and arm64 omits the direct caller while it is in the link register only.
// arm prints the function that it is in without an offset.
func (s *frames) complete(pc stack.Frame, lr string) {
	for i, f := range s.Frames {
		if f.Name == pc.Name && f.Note != Unreliable && (f.Size == 0 || f.PC == pc.PC && f.Offset == pc.Offset) {
			s.Trimmed = append(s.Trimmed, s.Frames[:i:i]...)
			s.Frames = s.Frames[i:]
			if f.Size == 0 {
				s.Frames[0].Offset, s.Frames[0].Size = pc.Offset, pc.Size
			}
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
	if f, ok := frame(lr); ok && lr != "" && f.Name != "" && f.Name != pc.Name {
		s.InsertCaller(0, f)
	}
}

// interrupted trims the frames of the interrupt that detected the hang.
func (s *frames) interrupted(kind Kind) {
	if kind != SoftLockup && kind != HardLockup && kind != Stall {
		return
	}
	for i, f := range s.Frames {
		switch {
		case i == len(s.Frames)-1 || f.Note == Unreliable:
			continue
		case f.Exception:
			for i++; i < len(s.Frames)-1 && s.Frames[i].Note == Unreliable; {
				i++
			}
		case f.Note != interruptedHere:
			continue
		}
		s.Trimmed = append(s.Trimmed, s.Frames[:i:i]...)
		s.Frames = s.Frames[i:]
		s.Frames[0].Note = "" // the interrupted instruction, not a return address
		return
	}
}

// hasFrame reports whether the lines after a heading start with frames.
func hasFrame(lines []line) bool {
	for i, l := range lines {
		if context.matches(l.msg) && strings.TrimSpace(context.ReplaceAllString(l.msg, "")) == "" {
			continue
		}
		return new(dump).take(l.msg) || !ends(l.msg) && resumes(lines[i+1:])
	}
	return false
}

// between is how many lines of others there may be between two frames.
const between = 8

// resumes reports whether the stack goes on in the lines, below a few of others: other
// CPUs print between its lines.
func resumes(lines []line) bool {
	for _, l := range lines[:min(len(lines), between)] {
		if headless(l.msg) || isArm(l.msg) {
			return true
		}
		if ends(l.msg) {
			return false
		}
	}
	return false
}

// ends reports whether the line cannot be between two frames of a stack.
func ends(msg string) bool {
	trimmed := strings.TrimRight(msg, " ")
	return trimmed == "" || strings.HasSuffix(trimmed, ":") || strings.HasPrefix(msg, "---[") || strings.HasPrefix(msg, "Code: ") || strings.HasPrefix(msg, ruler) || strings.HasPrefix(msg, "</") || strings.HasPrefix(msg, " </") ||
		strings.HasPrefix(msg, "Modules linked in:") || userRIP.matches(msg) || heading.matches(msg) || named(msg) != nil || nmiLine.MatchString(msg)
}

// headless reports whether the line is a frame without a doubt, as the sanitizers
// print them below lines of their own words.
func headless(msg string) bool {
	if !strings.Contains(msg, "+0x") {
		return false
	}
	f, ok := traced(msg)
	return ok && f.Size > 0 && f.Note == ""
}

var (
	// source matches the origin of a frame, which arm64 prints since 6.13: "(P)" for
	// the program counter, "(L)" for the link register (arch/arm64/kernel/stacktrace.c,
	// dump_backtrace_entry).
	source = pattern{"", " (", text.Lazy(` \([A-Z]{1,4}\)$`)}
	// powerpc prints the stack pointer and the address first (arch/powerpc/kernel/process.c).
	powerpc = pattern{"[", "] [", text.Lazy(`^\[[0-9a-f]{8,16}\] \[[0-9a-f]{8,16}\] (\S.*?)( \(unreliable\))?$`)}
	// position matches what scripts/decode_stacktrace.sh adds to a frame.
	position = pattern{"", ":", text.Lazy(` \(?[\w./-]+\.(?:[chS]|rs):\d+(?::\d+)?\)?( \[inline\])?(?: \(discriminator \d+\))?$`)}
)

// traced parses a line of a trace: " sym+0x18/0x40", "  ? sym+0x18/0x40", and before
// 4.10 " [<addr>] ? sym+0x18/0x40".
func traced(msg string) (stack.Frame, bool) {
	if m := powerpc.find(msg); m != nil {
		f, ok := frame(m[1])
		if ok && m[2] != "" {
			f.Note = Unreliable
		}
		return f, ok
	}
	bare := strings.TrimLeft(msg, " \t")
	if bare == msg && !strings.HasPrefix(msg, "[<") {
		return stack.Frame{}, false
	}
	rest, doubt := strings.CutPrefix(bare, "? ")
	if !doubt && strings.HasPrefix(rest, "[<") {
		if addr, after, ok := strings.Cut(rest, ">] ? "); ok {
			rest, doubt = addr+">] "+after, true
		}
	}
	f, ok := frame(rest)
	if doubt {
		f.Note = Unreliable
	}
	return f, ok
}

// frame parses a frame: "sym+0x18/0x40", "[<addr>] sym+0x18/0x40 (P)". x86 printed
// addresses twice in RIP lines before 4.10.
func frame(s string) (stack.Frame, bool) {
	if s = strings.TrimRight(s, " "); len(s) > maxFrame {
		return stack.Frame{}, false
	}
	if source.may(s) {
		s = source.ReplaceAllString(s, "")
	}
	if strings.HasPrefix(s, "[<") {
		if _, after, ok := strings.Cut(s, ">]  [<"); ok {
			s = "[<" + after
		}
	}
	if f, ok := stack.ParseFrame(s); ok {
		return f, true
	}
	var m []int
	if position.may(s) && (strings.Contains(s, ".c:") || strings.Contains(s, ".h:") || strings.Contains(s, ".S:") || strings.Contains(s, ".rs:")) {
		m = position.FindStringSubmatchIndex(s)
	}
	if m == nil {
		return stack.Frame{}, false
	}
	f, ok := stack.ParseFrame(s[:m[0]])
	if m[2] >= 0 {
		f.Kind = stack.Inline
	}
	return f, ok
}
