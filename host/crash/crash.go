// Package crash scans a guest's console as it arrives for the kernel's reports of
// crashes (oops, BUG, panic), hangs (stalls, lockups, hung tasks), processes killed
// by the OOM killer, and warnings.
//
// The texts are the kernel's; the table starts names the source file of each.
package crash

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Limits on what a guest can make a Scanner store: 26 MB.
const (
	maxLine    = 1 << 10 // bytes of a line; the kernel's limit (LOG_LINE_MAX)
	maxLines   = 400     // lines of a report
	maxReports = 64      // a panic replaces a less severe report
)

// near is the number of lines after a report's end within which a panic still belongs
// to it: x86 prints the registers again between the two.
const near = 60

// A report without an end marker, or whose end marker is lost, ends when the kernel
// pauses. A CPU that is asked for its stack has ten seconds to respond
// (lib/nmi_backtrace.c).
const (
	pause    = 1.0 // seconds, by printk's timestamps
	pauseNMI = 11.0
)

// Kind is the kind of a report.
type Kind string

const (
	Warning    Kind = "warning"      // WARN: something is wrong; the kernel continues
	Lockdep    Kind = "lockdep"      // the lock validator, or another check of locks, RCU and preemption
	Atomic     Kind = "atomic sleep" // code that must not sleep does, or might
	UBSAN      Kind = "UBSAN"        // undefined behavior
	KCSAN      Kind = "KCSAN"        // a data race
	KMSAN      Kind = "KMSAN"        // use of uninitialized memory
	KASAN      Kind = "KASAN"        // access to memory that is not the accessor's
	KFENCE     Kind = "KFENCE"       // the same, by sampling
	Leak       Kind = "kmemleak"     // memory that nothing refers to
	Bug        Kind = "bug"          // another BUG that kills nobody: bad page state, slab corruption
	OOM        Kind = "oom"          // the OOM killer killed a process
	HungTask   Kind = "hung task"    // a task has been in uninterruptible sleep for too long
	Stall      Kind = "stall"        // a CPU has not passed an RCU quiescent state, or its work, for long
	SoftLockup Kind = "soft lockup"  // a CPU is stuck in the kernel
	HardLockup Kind = "hard lockup"  // a CPU is stuck with interrupts disabled
	Halt       Kind = "halt"         // the kernel halted as requested; the machine is still on
	Oops       Kind = "oops"         // the kernel continued after killing the task
	Panic      Kind = "panic"        // the kernel stopped
)

// Hang reports whether part of the kernel hangs while the rest continues.
func (k Kind) Hang() bool {
	return k == HungTask || k == Stall || k == SoftLockup || k == HardLockup
}

// sanitizer reports whether reports of the kind end with a line of "=".
func (k Kind) sanitizer() bool {
	return k == UBSAN || k == KCSAN || k == KMSAN || k == KASAN || k == KFENCE
}

// Report is one report from the console. Task and Stack extract more from its lines.
type Report struct {
	Kind   Kind
	Title  string   // "Attempted to kill init! exitcode=0x00000200"
	Cause  string   // cause of a panic, if known: "init died", and what the console has of why
	Victim *Task    // of an OOM report: the killed task
	Lines  []string // the console from the first line of the report, cleaned, at most 400 lines of at most 1 KiB

	// A hang is reported repeatedly, and so is what goes wrong in the same place again.
	// Count is the number of reports; if it is more than 1, Last is the title of the
	// last one, which says how long a hang has lasted by then, and the other fields are
	// from the first one.
	Count int
	Last  string
}

// Task is a task named in a report.
type Task struct {
	Comm string
	PID  int // 0 if not printed
	CPU  int // -1 if not printed
}

// Error implements error: a Report can be the cause of a run's end.
func (r *Report) Error() string {
	return fmt.Sprintf("kernel %s: %s", r.Kind, r.Title)
}

// Outcome is GuestCrashed if the kernel stopped, else KernelReported.
func (r *Report) Outcome() outcome.Kind {
	if r.Kind == Panic || r.Kind == Halt {
		return outcome.GuestCrashed
	}
	return outcome.KernelReported
}

const initDied = "init died"

// labinitSays begins the line by which labinit says why it ends (guest/labinit).
var labinitSays = []byte("labinit: ")

// causes maps texts of common panics to short causes. The first one contained in the
// panic's text wins.
var causes = []struct{ text, cause, source string }{
	{"Attempted to kill init!", initDied, "kernel/exit.c"},
	{"Requested init ", "no init", "init/main.c"},
	{"No working init found", "no init", "init/main.c"},
	{"Unable to mount root fs", "no root file system", "init/do_mounts.c"},
	{"sysrq triggered crash", "sysrq", "drivers/tty/sysrq.c"},
	{"softlockup: hung tasks", "soft lockup", "kernel/watchdog.c"},
	{"Hard LOCKUP", "hard lockup", "kernel/watchdog.c"},
	{"hung_task: blocked tasks", "hung task", "kernel/hung_task.c"},
	{"RCU Stall", "stall", "kernel/rcu/tree_stall.h"},
	{"panic_on_warn set", "warning", "kernel/panic.c"},
	{"panic_on_oom is enabled", "out of memory", "mm/oom_kill.c"},
	{"System is deadlocked on memory", "out of memory", "mm/oom_kill.c"},
	{"Fatal exception", "oops", "kernel/panic.c, arch/*/kernel/traps.c"},
	{"stack-protector:", "stack overrun", "kernel/panic.c"},
}

// Scanner is an io.Writer for the console. It is not safe for concurrent use.
type Scanner struct {
	line []byte
	all  []*Report
	keys map[*Report]string // of reports that may be repeated: see key
	// open reports whether lines still belong to the last report: an oops ends
	// with its "end trace" line, a panic with the console, most others with a
	// pause.
	open    bool
	stamped bool    // the open report's first line has a timestamp
	nmi     bool    // its last line asks another CPU for its stack
	last    float64 // timestamp of its last line; 0: none
	since   int     // lines since the last report's end
	again   bool    // the last report is a repetition; its lines go to spare
	spare   []string
	caller  string // printk's tag of its first line
	// The report that it came in the middle of, and that one's caller: lines of the
	// caller still belong there.
	before       *Report
	beforeCaller string
	ended        bool   // the panic's last line has been seen
	lastWords    string // of labinit, it seems, which says in one line why it cannot go on
}

// Write never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if i >= 0 && len(s.line) == 0 && len(part) <= maxLine { // a whole line; no need to copy it
			s.raw(part)
			p = p[i+1:]
			continue
		}
		if room := maxLine - len(s.line); room > 0 {
			s.line = append(s.line, part[:min(room, len(part))]...)
		}
		if i < 0 {
			break
		}
		s.raw(s.line)
		s.line = s.line[:0]
		p = p[i+1:]
	}
	return n, nil
}

// raw processes one line as the guest wrote it. Most lines are neither in a report nor
// the first of one, and leave here without a copy.
func (s *Scanner) raw(b []byte) {
	for len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if i := bytes.Index(b, labinitSays); i == 0 || i > 0 && b[0] == '[' && bytes.HasSuffix(b[:i], []byte("] ")) {
		s.lastWords = clip(text.Lines(string(b[i+len(labinitSays):])))
	}
	if !s.open && plain(b) && !mayOpen(b) {
		s.since++
		return
	}
	s.take(clip(text.Lines(string(b))))
}

// plain reports whether cleaning leaves a line as it is.
func plain(b []byte) bool {
	for _, c := range b {
		if (c < ' ' && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}

// mayOpen reports whether the line may be the first of a report.
func mayOpen(b []byte) bool {
	if _, _, _, n := stamp(b); n > 0 {
		b = b[n:]
	}
	if len(b) == 0 {
		return false
	}
	if _, _, _, n := stamp(b); n > 0 {
		return true
	}
	if bytes.HasPrefix(b, []byte("[ ")) {
		return true
	}
	for _, st := range byFirst()[b[0]] {
		if len(b) >= len(st.text) && string(b[:len(st.text)]) == st.text {
			return true
		}
	}
	for _, st := range anywhere() {
		if bytes.Contains(b, []byte(st.has)) {
			return true
		}
	}
	return false
}

// take processes one line, cleaned.
func (s *Scanner) take(line string) {
	l := parse(line)
	msg := l.msg
	s.since++
	if s.open && l.stamped && s.current().Kind != Panic {
		limit := pause
		if s.nmi {
			limit = pauseNMI
		}
		if s.last > 0 && l.at > s.last+limit {
			s.close()
		}
	}
	st, title := opens(msg)
	for st == nil {
		// A message that the kernel did not end with a newline may be before another.
		_, _, _, n := stamp(msg)
		if n == 0 {
			break
		}
		msg = msg[n:]
		st, title = opens(msg)
	}
	msg = l.msg
	switch {
	case st == nil:
	case s.open && s.besides(st):
		s.aside(st.kind, title, line)
	default:
		s.begin(st.kind, title, l)
	}
	if !s.open {
		return
	}
	cur := s.current()
	if cur.Kind == Panic && (strings.HasPrefix(msg, "---[ end Kernel panic") || strings.HasPrefix(msg, "Reboot failed")) {
		s.ended = true
	}
	// If the report's lines have timestamps, a line without one is from a program.
	if cur.Kind != Panic && s.stamped && !l.stamped {
		return
	}
	if l.stamped {
		s.last = l.at
	}
	if r := s.before; r != nil && st == nil && l.caller == s.beforeCaller {
		if len(r.Lines) < maxLines {
			r.Lines = append(r.Lines, line)
		}
		return
	}
	s.nmi = strings.HasPrefix(msg, "Sending NMI from CPU")
	lines := &cur.Lines
	if s.again {
		lines = &s.spare
	}
	if len(*lines) < maxLines {
		*lines = append(*lines, line)
	}
	switch {
	case cur.Kind == OOM:
		if v := victim(msg); v != nil {
			cur.Victim, cur.Title = v, clip(msg)
			s.close()
		}
	case cur.Kind == Halt, st != nil && st.single && len(*lines) == 1:
		s.close()
	case cur.Kind.Severity() == SeverityPanic, cur.Kind.Hang():
	case strings.HasPrefix(msg, "---[ end trace"):
		s.close()
	case cur.Kind.sanitizer() && strings.HasPrefix(msg, ruler) && strings.Trim(msg, "= ") == "":
		s.close()
	}
}

// ruler is what the line at a sanitizer's report's end begins with.
const ruler = "========================"

func (s *Scanner) close() { s.open, s.since, s.nmi, s.before = false, 0, false, nil }

// begin handles the first line of a report.
func (s *Scanner) begin(kind Kind, title string, l line) {
	cur := s.current()
	switch {
	case cur != nil && cur.Kind == Panic: // nothing follows a panic
		return
	case kind == Panic && cur != nil && s.goesOn(cur, title, l.at):
		// An oops that ends in a panic is one report; the oops line says more.
		if s.again {
			cur.Title, cur.Lines = cur.Last, slices.Clone(s.spare)
		}
		cur.Kind, cur.Title, cur.Cause = Panic, clip(cur.Title+" ("+title+")"), cause(title)
		cur.Count, cur.Last = 1, ""
		s.open, s.again = true, false
		return
	case s.open && cur.Kind == OOM && kind == OOM: // first the task that invoked it, then the killed one
		return
	case s.open && adds(cur, kind, title):
		return
	}
	s.before = nil
	if s.open && !s.again && s.caller != l.caller {
		s.before, s.beforeCaller = cur, s.caller
	}
	s.again = s.repeat(kind, title)
	switch {
	case s.again:
		s.spare = s.spare[:0]
	case !s.room(kind, maxReports):
		s.open = false
		return
	default:
		s.add(&Report{Kind: kind, Title: title, Count: 1})
		if kind == Panic {
			s.current().Cause = cause(title)
			if s.current().Cause == initDied && s.lastWords != "" {
				s.current().Cause += `; on the console: "labinit: ` + s.lastWords + `"`
			}
		}
	}
	s.open, s.stamped, s.last, s.nmi, s.caller = true, l.stamped, l.at, false, l.caller
}

// besides reports whether the report that st opens does not end the open one: it has no
// more lines, or what is open is an oops, whose stack is worth more.
func (s *Scanner) besides(st *start) bool {
	return st.single || s.current().Kind == Oops && st.kind.Severity() < SeverityOops
}

// aside stores a report of one line that came while another report is open, which stays
// the last one and keeps the line, too.
func (s *Scanner) aside(kind Kind, title, line string) {
	cur := s.current()
	if cur.Kind == Panic { // nothing follows a panic
		return
	}
	r := &Report{Kind: kind, Title: title, Count: 1, Lines: []string{line}}
	if kind == OOM {
		if r.Victim = victim(title); r.Victim == nil {
			return
		}
	}
	s.all = s.all[:len(s.all)-1]
	if !s.repeat(kind, title) && s.room(kind, maxReports-1) {
		s.add(r)
	}
	s.all = append(s.all, cur)
}

// adds reports whether the first line of a report is another line of r.
func adds(r *Report, kind Kind, title string) bool {
	switch r.Kind {
	case Oops: // "BUG: unable to handle page fault", then "Oops: 0000"
		return kind == Oops
	case Leak: // "BUG: memory leak", then the object; the object, then how many there were
		return kind == Leak && (len(r.Lines) == 1 && strings.HasPrefix(r.Title, "BUG: ") || strings.Contains(title, "new suspected memory leaks"))
	}
	return false
}

// varying matches the parts of a title that differ when the same is reported again: how
// long a hang has lasted, how often a network device is in use, who was on the CPU.
var varying = text.Lazy(`\bfor (?:more than )?\d+ ?s(?:econds)?\b|\. Usage count = -?\d+$|\bCPU: \d+ PID: \d+ |, CPU#\d+: .*`)

// waiting begins a report that is repeated as a hang's is.
const waiting = "unregister_netdevice: waiting for "

// repeats reports whether reports of the kind with the same title are the same. Each
// oops and each OOM report is the end of another task.
func (k Kind) repeats() bool {
	return k.Severity() <= SeverityBug && k != OOM && k != Leak
}

// repeat counts a repeated report and moves it to the end of the list.
func (s *Scanner) repeat(kind Kind, title string) bool {
	if !kind.repeats() {
		return false
	}
	what := s.key(title)
	for i, r := range s.all {
		if r.Kind == kind && s.keys[r] == what {
			r.Count++
			r.Last = title
			s.all = append(slices.Delete(s.all, i, i+1), r)
			return true
		}
	}
	return false
}

// key returns the part of a title that stays when it is repeated.
func (s *Scanner) key(title string) string {
	return varying.ReplaceAllString(title[:min(len(title), titleLen)], "")
}

// add appends a report.
func (s *Scanner) add(r *Report) {
	s.all = append(s.all, r)
	if r.Kind.repeats() {
		if s.keys == nil {
			s.keys = map[*Report]string{}
		}
		s.keys[r] = s.key(r.Title)
	}
}

// goesOn reports whether a panic with that title at that time belongs to r.
func (s *Scanner) goesOn(r *Report, title string, at float64) bool {
	switch {
	case r.Kind == Halt:
		return false
	case s.open:
		return true
	case r.Kind == Warning, r.Kind.Severity() == SeverityBug && !r.Kind.Hang():
		if !strings.Contains(title, "panic_on_warn") {
			return false
		}
	}
	return s.since <= near && (s.last == 0 || at == 0 || at <= s.last+pauseNMI)
}

// room makes room for one more report, of at most max, and reports whether there is any:
// an OOM report replaces the oldest other one, so that the newest victims are known;
// others replace a less severe report.
func (s *Scanner) room(kind Kind, max int) bool {
	if len(s.all) < max {
		return true
	}
	for i, r := range s.all {
		if r.Kind.Severity() < kind.Severity() || kind == OOM && r.Kind == OOM {
			s.all = slices.Delete(s.all, i, i+1)
			delete(s.keys, r)
			return true
		}
	}
	return false
}

func cause(title string) string {
	for _, c := range causes {
		if strings.Contains(title, c.text) {
			return c.cause
		}
	}
	return ""
}

// victim returns the task that the OOM killer killed, according to its message.
func victim(msg string) *Task {
	m := killed.FindStringSubmatch(msg)
	if m == nil {
		return nil
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return nil
	}
	return &Task{Comm: m[2], PID: pid, CPU: -1}
}

func (s *Scanner) current() *Report {
	if len(s.all) == 0 {
		return nil
	}
	return s.all[len(s.all)-1]
}

// line is a line of the console.
type line struct {
	msg     string  // without printk's prefix
	at      float64 // the timestamp in seconds
	stamped bool
	caller  string // "T12" or "C0", if the kernel has PRINTK_CALLER
}

// parse splits a console line. It also removes program output before printk's prefix
// that did not end in a newline.
func parse(s string) line {
	from, to, caller, n := stamp(s)
	if n == 0 {
		return line{msg: s}
	}
	at, _ := strconv.ParseFloat(s[from:to], 64)
	return line{msg: s[n:], at: at, stamped: true, caller: caller}
}

// stamp finds printk's prefix: the timestamp, and the caller's tag if the kernel
// has PRINTK_CALLER. The timestamp is s[from:to], the message s[n:]; n is 0 without a
// prefix.
func stamp[T string | []byte](s T) (from, to int, caller string, n int) {
	const micro = 6
	for i := 0; i < len(s); i++ {
		if s[i] != '[' {
			continue
		}
		from := i + 1
		for from < len(s) && s[from] == ' ' {
			from++
		}
		dot := digits(s, from)
		if dot == from || dot >= len(s) || s[dot] != '.' {
			continue
		}
		to := digits(s, dot+1)
		if to != dot+1+micro || to >= len(s) || s[to] != ']' {
			continue
		}
		n, caller := to+1, ""
		if n < len(s) && s[n] == '[' {
			tag := n + 1
			for tag < len(s) && s[tag] == ' ' {
				tag++
			}
			if tag < len(s) && (s[tag] == 'T' || s[tag] == 'C') {
				if end := digits(s, tag+1); end > tag+1 && end < len(s) && s[end] == ']' {
					caller, n = string(s[tag:end]), end+1
				}
			}
		}
		if n < len(s) && s[n] == ' ' {
			return from, to, caller, n + 1
		}
	}
	return 0, 0, "", 0
}

func digits[T string | []byte](s T, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// clip truncates a line to maxLine bytes; cleaning may have made it longer.
func clip(s string) string {
	if len(s) <= maxLine {
		return s
	}
	return strings.ToValidUTF8(s[:maxLine], "")
}

// Panic returns the report of a panic, nil if there was none so far.
func (s *Scanner) Panic() *Report {
	if r := s.current(); r != nil && r.Kind == Panic {
		return r
	}
	return nil
}

// Reports returns all reports so far, ordered by when each was last printed.
func (s *Scanner) Reports() []*Report { return s.all }

// Ended reports whether a panic's last line has been seen. A kernel that restarts
// immediately does not print one.
func (s *Scanner) Ended() bool { return s.ended }
