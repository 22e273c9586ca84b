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
	Warning    Kind = "warning"     // something is wrong; the kernel continues
	OOM        Kind = "oom"         // the OOM killer killed a process
	HungTask   Kind = "hung task"   // a task has been in uninterruptible sleep for too long
	Stall      Kind = "stall"       // a CPU has not passed an RCU quiescent state, or its work, for long
	SoftLockup Kind = "soft lockup" // a CPU is stuck in the kernel
	HardLockup Kind = "hard lockup" // a CPU is stuck with interrupts disabled
	Halt       Kind = "halt"        // the kernel halted as requested; the machine is still on
	Oops       Kind = "oops"        // the kernel continued after killing the task
	Panic      Kind = "panic"       // the kernel stopped
)

// rank orders kinds by severity: while a report with an end marker is open, only a
// more severe one starts a new report.
var rank = map[Kind]int{Warning: 0, OOM: 1, HungTask: 1, Stall: 1, SoftLockup: 1, HardLockup: 1, Halt: 1, Oops: 2, Panic: 3}

// Hang reports whether part of the kernel hangs while the rest continues.
func (k Kind) Hang() bool {
	return k == HungTask || k == Stall || k == SoftLockup || k == HardLockup
}

// Report is one report from the console. Task and Stack extract more from its lines.
type Report struct {
	Kind   Kind
	Title  string   // "Attempted to kill init! exitcode=0x00000200"
	Cause  string   // cause of a panic, if known: "init died"
	Victim *Task    // of an OOM report: the killed task
	Lines  []string // the console from the first line of the report, cleaned, at most 400 lines of at most 1 KiB

	// A hang is reported repeatedly. Count is the number of reports; if it is more
	// than 1, Last is the title of the last one, which says how long the hang has
	// lasted by then, and the other fields are from the first one.
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

// start describes the first line of a report.
type start struct {
	text   string // at the start of the message, after the timestamp
	kind   Kind
	match  *text.Pattern // for the whole message, if text is not specific enough
	cut    bool          // the title is what follows text; otherwise the message
	source string        // kernel source file that prints it
}

// starts is in order: the first match wins. It includes texts of older versions.
var starts = []start{
	{text: "Kernel panic - not syncing: ", kind: Panic, cut: true, source: "kernel/panic.c"},

	{text: "watchdog: BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c"},
	{text: "NMI watchdog: BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c, 4.3 to 4.18"},
	{text: "BUG: soft lockup - ", kind: SoftLockup, source: "kernel/watchdog.c, before 4.3"},
	{text: "watchdog: Watchdog detected hard LOCKUP ", kind: HardLockup, source: "kernel/watchdog.c"},
	{text: "watchdog: CPU", kind: HardLockup, match: text.Lazy(`^watchdog: CPU\d+: Watchdog detected hard LOCKUP `), source: "kernel/watchdog.c, 6.16"},
	{text: "NMI watchdog: Watchdog detected hard LOCKUP ", kind: HardLockup, source: "kernel/watchdog_hld.c, before 6.5"},
	{text: "rcu: INFO: rcu_", kind: Stall, match: stalls, source: "kernel/rcu/tree_stall.h"},
	{text: "INFO: rcu_", kind: Stall, match: stalls, source: "kernel/rcu/tree.c, before 4.20; kernel/rcu/tasks.h"},
	{text: "BUG: workqueue lockup - ", kind: Stall, source: "kernel/workqueue.c"},
	{text: "INFO: task ", kind: HungTask, match: text.Lazy(`^INFO: task .*:\d+ .*blocked .*for more than \d+ seconds`), source: "kernel/hung_task.c"},

	{text: "BUG: ", kind: Oops, source: "arch/x86/mm/fault.c, mm/page_alloc.c, kernel/sched/core.c and more"},
	{text: "kernel BUG at ", kind: Oops, source: "lib/bug.c"},
	{text: "Unable to handle kernel ", kind: Oops, source: "arch/arm64/mm/fault.c, arch/arm/mm/fault.c"},
	{text: "Internal error: ", kind: Oops, source: "arch/arm64/kernel/traps.c, arch/arm/kernel/traps.c"},
	{text: "Oops: ", kind: Oops, source: "arch/x86/kernel/dumpstack.c"},
	{text: "general protection fault", kind: Oops, source: "arch/x86/kernel/traps.c"},
	{text: "divide error: ", kind: Oops, source: "arch/x86/kernel/traps.c"},
	{text: "invalid opcode: ", kind: Oops, source: "arch/x86/kernel/traps.c"},
	{text: "stack segment: ", kind: Oops, source: "arch/x86/kernel/traps.c"},

	{text: "WARNING: CPU: ", kind: Warning, source: "kernel/panic.c"},
	{text: "WARNING: ", kind: Warning, match: text.Lazy(`^WARNING: \S+:\d+ at |^WARNING: .*, CPU#\d+: `), source: "kernel/panic.c, 6.18"},

	{text: "", kind: OOM, match: text.Lazy(`^.{1,64} invoked oom-killer: gfp_mask=`), source: "mm/oom_kill.c"},
	{text: "Out of memory", kind: OOM, match: killed, source: "mm/oom_kill.c"},
	{text: "Memory cgroup out of memory: ", kind: OOM, match: killed, source: "mm/oom_kill.c"},

	{text: "reboot: System halted", kind: Halt, source: "kernel/reboot.c"},
	{text: "reboot: Power off not available", kind: Halt, source: "kernel/reboot.c"},
}

var (
	stalls = text.Lazy(`^(?:rcu: )?INFO: rcu_\w+ (?:self-detected stall|detected (?:expedited )?stalls)`)
	// A task name may contain anything, so the pattern includes what follows it.
	killed = text.Lazy(`^(?:Memory cgroup out of memory|Out of memory(?: \(oom_kill_allocating_task\))?): Kill(?:ed)? process (\d+) \((.{0,64})\),? (?:UID|total-vm|score)\b`)
)

// causes maps texts of common panics to short causes. The first one contained in the
// panic's text wins.
var causes = []struct{ text, cause, source string }{
	{"Attempted to kill init!", "init died", "kernel/exit.c"},
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
	ended   bool // the panic's last line has been seen
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
		if room := maxLine - len(s.line); room > 0 {
			s.line = append(s.line, part[:min(room, len(part))]...)
		}
		if i < 0 {
			break
		}
		s.take(clip(text.Lines(string(s.line))))
		s.line = s.line[:0]
		p = p[i+1:]
	}
	return n, nil
}

// take processes one line.
func (s *Scanner) take(line string) {
	msg, at, stamped := message(line)
	s.since++
	if s.open && stamped && s.current().Kind != Panic {
		limit := pause
		if s.nmi {
			limit = pauseNMI
		}
		if s.last > 0 && at > s.last+limit {
			s.close()
		}
	}
	if st, title := opens(msg); st != nil {
		s.begin(st.kind, title, at, stamped)
	}
	if !s.open {
		return
	}
	cur := s.current()
	if cur.Kind == Panic && (strings.HasPrefix(msg, "---[ end Kernel panic") || strings.HasPrefix(msg, "Reboot failed")) {
		s.ended = true
	}
	// If the report's lines have timestamps, a line without one is from a program.
	if cur.Kind != Panic && s.stamped && !stamped {
		return
	}
	if stamped {
		s.last = at
	}
	s.nmi = strings.HasPrefix(msg, "Sending NMI from CPU")
	lines := &cur.Lines
	if s.again {
		lines = &s.spare
	}
	if len(*lines) < maxLines {
		*lines = append(*lines, line)
	}
	switch cur.Kind {
	case Oops, Warning:
		if strings.HasPrefix(msg, "---[ end trace") {
			s.close()
		}
	case OOM:
		if v := victim(msg); v != nil {
			cur.Victim, cur.Title = v, clip(msg)
			s.close()
		}
	case Halt:
		s.close()
	}
}

func (s *Scanner) close() { s.open, s.since, s.nmi = false, 0, false }

// begin handles the first line of a report.
func (s *Scanner) begin(kind Kind, title string, at float64, stamped bool) {
	cur := s.current()
	switch {
	case cur != nil && cur.Kind == Panic: // nothing follows a panic
		return
	case kind == Panic && cur != nil && s.goesOn(cur, at):
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
	case s.open && rank[kind] <= rank[cur.Kind] && (cur.Kind == Oops || cur.Kind == Warning): // another line of the same report
		return
	}
	s.again = s.repeat(kind, title)
	switch {
	case s.again:
	case !s.room(kind):
		s.open = false
		return
	default:
		s.all = append(s.all, &Report{Kind: kind, Title: title, Count: 1})
		if kind == Panic {
			s.current().Cause = cause(title)
		}
	}
	s.open, s.stamped, s.last, s.nmi = true, stamped, at, false
}

// hanging matches the part of a hang's title that changes: the duration.
var hanging = text.Lazy(`\bfor (?:more than )?\d+ ?s(?:econds)?\b`)

// repeat counts a repeated report of a hang and moves it to the end of the list.
func (s *Scanner) repeat(kind Kind, title string) bool {
	if !kind.Hang() {
		return false
	}
	what := hanging.ReplaceAllString(title, "")
	for i, r := range s.all {
		if r.Kind == kind && hanging.ReplaceAllString(r.Title, "") == what {
			r.Count++
			r.Last = title
			s.all = append(slices.Delete(s.all, i, i+1), r)
			s.spare = s.spare[:0]
			return true
		}
	}
	return false
}

// goesOn reports whether a panic at that time belongs to r.
func (s *Scanner) goesOn(r *Report, at float64) bool {
	switch {
	case r.Kind == Halt, r.Kind == Warning && !s.open:
		return false
	case s.open:
		return true
	}
	return s.since <= near && (s.last == 0 || at == 0 || at <= s.last+pauseNMI)
}

// room makes room for one more report and reports whether there is any: an OOM report
// replaces the oldest other one, so that the newest victims are known; others replace
// a less severe report.
func (s *Scanner) room(kind Kind) bool {
	if len(s.all) < maxReports {
		return true
	}
	for i, r := range s.all {
		if rank[r.Kind] < rank[kind] || kind == OOM && r.Kind == OOM {
			s.all = append(s.all[:i], s.all[i+1:]...)
			return true
		}
	}
	return false
}

func opens(msg string) (*start, string) {
	for i := range starts {
		st := &starts[i]
		switch {
		case !strings.HasPrefix(msg, st.text), st.match != nil && !st.match.MatchString(msg):
			continue
		case st.cut:
			return st, msg[len(st.text):]
		}
		return st, msg
	}
	return nil, ""
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

// stamp matches printk's prefix: the timestamp, and the caller's tag if the kernel
// has PRINTK_CALLER.
var stamp = text.Lazy(`\[ *([0-9]+\.[0-9]{6})\](?:\[ *[TC][0-9]+\])? `)

// message returns a console line without printk's prefix, and the timestamp in
// seconds. It also removes program output before it that did not end in a newline.
func message(line string) (msg string, at float64, stamped bool) {
	m := stamp.FindStringSubmatchIndex(line)
	if m == nil {
		return line, 0, false
	}
	at, _ = strconv.ParseFloat(line[m[2]:m[3]], 64)
	return line[m[1]:], at, true
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
