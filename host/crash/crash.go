// Package crash reads a guest's console as it comes and finds the kernel's own
// reports of its death: oops, BUG and panic.
//
// The texts are those of kernel/panic.c, lib/bug.c, arch/x86/kernel/dumpstack.c,
// arch/x86/mm/fault.c, arch/arm64/kernel/traps.c and arch/arm64/mm/fault.c.
package crash

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"labctl/host/text"
)

// Bounds on what a guest can make a Scanner keep: 26 MB.
const (
	maxLine    = 1 << 10 // bytes of one line; the kernel's own bound (LOG_LINE_MAX)
	maxLines   = 400     // lines of one report
	maxReports = 64      // a panic takes the last place from an oops
)

// near is how many lines after an oops's end a panic still belongs to it: x86
// prints the registers once more between the two.
const near = 60

// Kind says how bad a report is.
type Kind string

const (
	Oops  Kind = "oops"  // the kernel went on, without the task that died
	Panic Kind = "panic" // the kernel stopped
)

// Report is one crash as the console showed it.
type Report struct {
	Kind  Kind
	Title string   // "Attempted to kill init! exitcode=0x00000200"
	Lines []string // the console from the first bad line on, cleaned, at most 400 of at most 1 KiB
}

// Error makes a Report the cause of a run's end.
func (r *Report) Error() string {
	return fmt.Sprintf("kernel %s: %s", r.Kind, r.Title)
}

// Text is the report's lines.
func (r *Report) Text() string { return strings.Join(r.Lines, "\n") }

// start is a table of what opens a report: the text after the time stamp and
// where its title begins.
var start = []struct {
	text string
	kind Kind
	// after says that the title is what follows the text; otherwise the line.
	after bool
}{
	{"Kernel panic - not syncing: ", Panic, true},
	{"BUG: ", Oops, false},
	{"kernel BUG at ", Oops, false},
	{"Unable to handle kernel ", Oops, false},
	{"Internal error: ", Oops, false},
	{"Oops: ", Oops, false},
	{"general protection fault", Oops, false},
	{"divide error: ", Oops, false},
	{"invalid opcode: ", Oops, false},
	{"stack segment: ", Oops, false},
}

// Scanner is an io.Writer that takes the console. It is not safe for concurrent
// use.
type Scanner struct {
	line []byte
	all  []*Report
	// open says that lines still belong to the last report: an oops ends with
	// its "end trace" line, a panic with the console.
	open  bool
	since int  // lines since the last report's end
	ended bool // the panic's own last line was there
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

// take judges one line.
func (s *Scanner) take(line string) {
	msg := message(line)
	s.since++
	if kind, title, ok := opens(msg); ok {
		s.begin(kind, title)
	}
	if !s.open {
		return
	}
	cur := s.current()
	if len(cur.Lines) < maxLines {
		cur.Lines = append(cur.Lines, line)
	}
	switch {
	case cur.Kind == Oops && strings.HasPrefix(msg, "---[ end trace"):
		s.open, s.since = false, 0
	case cur.Kind == Panic && (strings.HasPrefix(msg, "---[ end Kernel panic") || strings.HasPrefix(msg, "Reboot failed")):
		s.ended = true
	}
}

// begin acts on a line that opens a report.
func (s *Scanner) begin(kind Kind, title string) {
	cur := s.current()
	switch {
	case cur != nil && cur.Kind == Panic: // a panic is the last report
		return
	case kind == Panic && cur != nil && (s.open || s.since <= near):
		// An oops that panics is one death, and its own line says more.
		cur.Kind, cur.Title = Panic, clip(cur.Title+" ("+title+")")
	case kind == Panic:
		s.all = append(s.all[:min(len(s.all), maxReports-1)], &Report{Kind: kind, Title: title})
	case s.open || len(s.all) == maxReports: // another line of the same oops, or one too many
		return
	default:
		s.all = append(s.all, &Report{Kind: kind, Title: title})
	}
	s.open = true
}

func opens(msg string) (Kind, string, bool) {
	for _, st := range start {
		if strings.HasPrefix(msg, st.text) {
			if st.after {
				return st.kind, msg[len(st.text):], true
			}
			return st.kind, msg, true
		}
	}
	return "", "", false
}

func (s *Scanner) current() *Report {
	if len(s.all) == 0 {
		return nil
	}
	return s.all[len(s.all)-1]
}

// stamp is what printk puts before a message: a time, and a caller's tag where
// the kernel has PRINTK_CALLER.
var stamp = regexp.MustCompile(`\[ *[0-9]+\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? `)

// message is a console line without printk's stamp. What a program wrote
// before, without an end of line, goes too.
func message(line string) string {
	if at := stamp.FindStringIndex(line); at != nil {
		return line[at[1]:]
	}
	return line
}

// clip cuts a line at maxLine bytes, which cleaning may have made more of.
func clip(s string) string {
	if len(s) <= maxLine {
		return s
	}
	return strings.ToValidUTF8(s[:maxLine], "")
}

// Panic is the report of a panic, nil as long as there was none.
func (s *Scanner) Panic() *Report {
	if r := s.current(); r != nil && r.Kind == Panic {
		return r
	}
	return nil
}

// Reports are all reports so far.
func (s *Scanner) Reports() []*Report { return s.all }

// Ended says whether a panic's report has come to its last line. A kernel that
// restarts at once ends without one.
func (s *Scanner) Ended() bool { return s.ended }
