// Package crash reads a guest's console as it comes and finds the kernel's own
// reports of its death: oops, BUG and panic.
//
// The texts are those of kernel/panic.c, lib/bug.c, arch/x86/kernel/dumpstack.c,
// arch/x86/mm/fault.c, arch/arm64/kernel/traps.c and arch/arm64/mm/fault.c.
package crash

import (
	"bytes"
	"fmt"
	"strings"

	"labctl/host/text"
)

const (
	maxLine  = 4 << 10 // bytes kept of one console line
	maxLines = 400     // lines kept of one report
)

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
	Lines []string // the console from the first bad line on, cleaned, at most 400
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
	open bool
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
		s.take(text.Lines(string(s.line)))
		s.line = s.line[:0]
		p = p[i+1:]
	}
	return n, nil
}

// take judges one line.
func (s *Scanner) take(line string) {
	msg := message(line)
	if kind, title, ok := opens(msg); ok {
		cur := s.current()
		switch {
		case cur != nil && cur.Kind == Panic: // a panic is the last report
		case cur != nil && kind == Panic:
			// An oops that panics is one death, and its own line says more.
			cur.Kind, cur.Title = Panic, cur.Title+" ("+title+")"
			s.open = true
		case !s.open:
			s.all = append(s.all, &Report{Kind: kind, Title: title})
			s.open = true
		}
	}
	if !s.open {
		return
	}
	cur := s.current()
	if len(cur.Lines) < maxLines {
		cur.Lines = append(cur.Lines, line)
	}
	if cur.Kind == Oops && strings.HasPrefix(msg, "---[ end trace") {
		s.open = false
	}
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

// message is a console line without its printk time stamp and caller tag:
// "[    1.234567][    T1] text".
func message(line string) string {
	for strings.HasPrefix(line, "[") {
		i := strings.IndexByte(line, ']')
		if i < 0 || i > 24 {
			break
		}
		line = strings.TrimPrefix(line[i+1:], " ")
	}
	return line
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

// Ended says whether a panic's report has come to its last line.
func (s *Scanner) Ended() bool {
	r := s.Panic()
	return r != nil && strings.Contains(r.Lines[len(r.Lines)-1], "---[ end Kernel panic")
}
