// Package kerneltext reads the text of an ftrace instance's trace file, as the
// kernel prints it. labctl itself reads ring-buffer pages alone; the kernel's own
// print of the same events is what tests hold that reading against.
package kerneltext

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"labctl/host/outcome"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/event"
)

// Trace is one trace file.
type Trace struct {
	Tracer  string // "nop"
	CPUs    int    // online, "#P:2"
	Entries int64  // in the buffer when it was read, stacks included
	Written int64  // ever written; more than Entries means overwritten ones
	Events  []event.Event
	Lines   []int // where each of Events is in the text, from 1
	// Lost counts events that the text itself says are missing.
	Lost int64
	// Bad are the first lines that could not be read, BadLines counts them all.
	Bad      []LineError
	BadLines int
}

// LineError is a line that is not what it should be.
type LineError struct {
	Line   int // from 1
	Reason string
}

func (e LineError) Error() string { return fmt.Sprintf("trace text line %d: %s", e.Line, e.Reason) }

// Outcome is CheckFailed.
func (e LineError) Outcome() outcome.Kind { return outcome.CheckFailed }

// Bounds on what Parse takes. A line of the kernel is at most one
// trace_seq, 8 KiB on the machines here.
const (
	maxLine   = 64 << 10
	maxEvents = 1 << 20
	maxFrames = 256     // a stack; the kernel's own bound is lower
	maxCalls  = 4 << 20 // frames of all stacks
	maxBad    = 100     // kept of the lines that could not be read
	maxDepth  = 16      // events of a CPU that wait for their stack: one a context
)

// Parse reads the text of a `trace` file. A line that cannot be read is counted
// and left out (Trace.Bad): a task may call itself anything, even two lines.
// The error is one of reading, or of a bound.
func Parse(r io.Reader) (*Trace, error) {
	p := parser{t: &Trace{}, waiting: map[int][]int{}}
	br := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			p.bad(n, fmt.Sprintf("longer than %d bytes", maxLine))
			p.frames = nil
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = br.ReadSlice('\n')
			}
		case len(line) > 0:
			p.line(n, strings.TrimRight(string(line), "\r\n"))
		}
		if len(p.t.Events) > maxEvents {
			return nil, fmt.Errorf("read trace text: more than %d events; trace less, or for a shorter time", maxEvents)
		}
		if p.calls > maxCalls {
			return nil, fmt.Errorf("read trace text: more than %d stack frames; trace less, or for a shorter time", maxCalls)
		}
		if errors.Is(err, io.EOF) {
			return p.t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read trace text, line %d: %w", n, err)
		}
	}
}

type parser struct {
	t *Trace
	// waiting holds, a CPU, the events that no stack has been seen for. The
	// kernel writes an event and then its stack, but an interrupt's event and
	// stack may come in between, and other CPUs' lines always may.
	waiting map[int][]int
	frames  *stack.Stack // that " => " lines belong to
	calls   int          // frames so far
}

func (p *parser) bad(line int, reason string) {
	p.t.BadLines++
	if len(p.t.Bad) < maxBad {
		p.t.Bad = append(p.t.Bad, LineError{line, reason})
	}
}

func (p *parser) line(n int, line string) {
	switch {
	case strings.HasPrefix(line, " => "):
		p.frame(n, line[4:])
	case strings.HasPrefix(line, "#"):
		p.header(line)
	case strings.TrimSpace(line) == "":
	case strings.HasPrefix(line, "CPU:") && strings.HasSuffix(line, " EVENTS]"):
		p.lost(n, line)
	default:
		p.event(n, line)
	}
}

func (p *parser) header(line string) {
	words := strings.Fields(line[1:])
	switch {
	case len(words) == 2 && words[0] == "tracer:":
		p.t.Tracer = stack.Sanitise(words[1])
	case len(words) == 3 && words[0] == "entries-in-buffer/entries-written:":
		in, written, _ := strings.Cut(words[1], "/")
		p.t.Entries, _ = strconv.ParseInt(in, 10, 64)
		p.t.Written, _ = strconv.ParseInt(written, 10, 64)
		p.t.CPUs, _ = strconv.Atoi(strings.TrimPrefix(words[2], "#P:"))
	}
}

// lost reads "CPU:0 [LOST 123 EVENTS]". Without a number the kernel does not
// know how many; that is one at least.
func (p *parser) lost(n int, line string) {
	_, rest, _ := strings.Cut(line, "[LOST ")
	count := int64(1)
	if num, _, ok := strings.Cut(rest, " EVENTS]"); ok {
		v, err := strconv.ParseInt(num, 10, 64)
		if err != nil || v < 0 {
			p.bad(n, "not a count of lost events")
			return
		}
		count = v
	}
	p.t.Lost += count
}

func (p *parser) frame(n int, text string) {
	if p.frames == nil {
		return // a user stack, or one whose event is bad or gone
	}
	if len(p.frames.Frames) >= maxFrames {
		p.bad(n, fmt.Sprintf("more than %d frames", maxFrames))
		p.frames = nil
		return
	}
	f, ok := stack.ParseFrame(text)
	if !ok {
		p.bad(n, "not a stack frame")
		return
	}
	p.frames.Frames = append(p.frames.Frames, f)
	p.calls++
}

func (p *parser) event(n int, line string) {
	p.frames = nil
	e, rest, ok := parseHead(line)
	if !ok {
		p.bad(n, `not "TASK-PID [CPU] FLAGS TIME: EVENT"`)
		return
	}
	switch strings.TrimSpace(rest) {
	case "<stack trace>":
		p.stack(n, e)
		return
	case "<user stack trace>":
		return
	}
	if !parseBody(&e, rest) {
		p.bad(n, "no event's name after the time")
		return
	}
	p.t.Events, p.t.Lines = append(p.t.Events, e), append(p.t.Lines, n)
	w := append(p.waiting[e.CPU], len(p.t.Events)-1)
	if len(w) > maxDepth {
		w = w[1:]
	}
	p.waiting[e.CPU] = w
}

// stack opens the stack of the latest event on the same CPU, of the same task,
// that has none.
func (p *parser) stack(n int, at event.Event) {
	w := p.waiting[at.CPU]
	for i := len(w) - 1; i >= 0; i-- {
		e := &p.t.Events[w[i]]
		if e.PID != at.PID {
			continue
		}
		p.waiting[at.CPU] = append(w[:i:i], w[i+1:]...)
		e.Stack = &stack.Stack{Origin: e.Name}
		p.frames = e.Stack
		return
	}
	// The event itself may have been overwritten: that is no fault of the line,
	// unless nothing was.
	if p.t.Written <= p.t.Entries {
		p.bad(n, "a stack without an event before it")
	}
}

// taskWidth is how wide the kernel prints a task's comm, which is at most 15
// bytes long, in print_context (kernel/trace/trace_output.c: "%16s-%-7d ").
const taskWidth = 16

// parseHead reads the columns up to the time:
//
//	init-1       [001] d....     2.632099: rest
//	init-1       (      1) [001] d....  2.632099: rest    with record-tgid
func parseHead(line string) (e event.Event, rest string, ok bool) {
	// The column comes first: a comm may hold "-", blanks, even "-1 [000]".
	if len(line) > taskWidth && line[taskWidth] == '-' {
		if e, rest, ok = headAt(line, taskWidth); ok {
			return e, rest, true
		}
	}
	for i := 0; i < len(line) && i <= taskWidth; i++ {
		if line[i] == '-' {
			if e, rest, ok = headAt(line, i); ok {
				return e, rest, true
			}
		}
	}
	return event.Event{}, "", false
}

func headAt(line string, dash int) (e event.Event, rest string, ok bool) {
	e.Task = oneLine(strings.TrimLeft(line[:dash], " "))
	rest = line[dash+1:]
	if e.PID, rest, ok = number(rest); !ok {
		return e, "", false
	}
	rest = strings.TrimLeft(rest, " ")
	if strings.HasPrefix(rest, "(") { // thread group
		_, rest, ok = strings.Cut(rest, ")")
		if !ok {
			return e, "", false
		}
		rest = strings.TrimLeft(rest, " ")
	}
	if !strings.HasPrefix(rest, "[") {
		return e, "", false
	}
	if e.CPU, rest, ok = number(rest[1:]); !ok || !strings.HasPrefix(rest, "] ") {
		return e, "", false
	}
	rest = strings.TrimLeft(rest[2:], " ")
	// The flag columns are missing without options/irq-info.
	word, after, _ := strings.Cut(rest, " ")
	if !strings.HasSuffix(word, ":") {
		if len(word) > 16 {
			return e, "", false
		}
		e.Flags = oneLine(word)
		rest = strings.TrimLeft(after, " ")
	}
	stamp, rest, ok := strings.Cut(rest, ": ")
	if !ok {
		return e, "", false
	}
	e.Time, ok = nanoseconds(stamp)
	return e, rest, ok
}

// number reads a decimal number of up to ten digits off the front.
func number(s string) (int, string, bool) {
	i := 0
	for i < len(s) && i < 10 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(s[:i])
	return n, s[i:], err == nil
}

// nanoseconds reads "2.632099", seconds; a clock that counts events or cycles
// has no point and is taken as it is.
func nanoseconds(s string) (int64, bool) {
	sec, frac, point := strings.Cut(s, ".")
	if len(sec) > 18 || len(frac) > 9 || point && (frac == "" || len(sec) > 9) {
		return 0, false
	}
	whole, err := strconv.ParseUint(sec, 10, 63)
	if err != nil || !point {
		return int64(whole), err == nil
	}
	part, err := strconv.ParseUint(frac+"000000000"[len(frac):], 10, 63)
	return int64(whole*1e9 + part), err == nil
}

// oneLine is a guest's string without anything that a terminal or a table
// would act on.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '\uFFFD'
		}
		return r
	}, text.Clean(s))
}
