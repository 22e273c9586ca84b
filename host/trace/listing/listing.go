// Package listing prints the events of a trace one by one, as the kernel's own trace
// file and trace-cmd report do.
package listing

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/decode"
	"labctl/host/trace/tasks"
)

// maxStacks bounds the printed stacks that are kept: most of a trace's come again.
const maxStacks = 1 << 14

// Writer prints events.
type Writer struct {
	w      io.Writer
	dec    *decode.Decoder
	style  stack.Style
	ticks  bool
	names  map[int]string // of tasks, as they are printed
	stacks map[string]string
	line   bytes.Buffer
	key    []byte
}

// New makes a writer for the events of d, whose stacks are printed in a style.
func New(w io.Writer, d *decode.Decoder, style stack.Style) *Writer {
	return &Writer{w: w, dec: d, style: style, ticks: d.Ticks(), names: map[int]string{}, stacks: map[string]string{}}
}

// Renamed has names of tasks looked up again.
func (l *Writer) Renamed() { clear(l.names) }

// Write prints all events of d. Places that cannot be read are a line each, and the
// first is returned after all is written.
func Write(w io.Writer, d *decode.Decoder, style stack.Style) error {
	l := New(w, d, style)
	var damage error
	for e, err := range d.Events() {
		if err != nil {
			if damage == nil {
				damage = err
			}
			_, err = fmt.Fprintf(w, "not read: %s\n", text.Line(err.Error(), 300))
		} else {
			err = l.Event(e)
		}
		if err != nil {
			return err
		}
	}
	return damage
}

// Event prints one event, and its stack below it.
func (l *Writer) Event(e *decode.Event) error {
	b := &l.line
	b.Reset()
	if e.Lost > 0 {
		fmt.Fprintf(b, "CPU:%d [LOST %d EVENTS]\n", e.CPU, e.Lost)
	}
	if e.Instance != "" {
		b.WriteString(text.Line(e.Instance, 60) + ": ")
	}
	b.WriteString(l.task(e.PID))
	b.WriteString(" [")
	padded(b, uint64(e.CPU), 3, '0')
	b.WriteString("] ")
	b.WriteString(e.Columns())
	b.WriteByte(' ')
	if l.ticks {
		b.Write(strconv.AppendUint(b.AvailableBuffer(), e.Time, 10))
	} else {
		b.Write(strconv.AppendUint(b.AvailableBuffer(), e.Time/1e9, 10))
		b.WriteByte('.')
		padded(b, e.Time%1e9/1000, 6, '0')
	}
	b.WriteString(": ")
	words := l.dec.Text(e)
	switch name := e.Name(); {
	case name == "function":
	case isGraph(name):
		words = graph(e, words)
	default:
		b.WriteString(name)
		b.WriteString(": ")
	}
	b.WriteString(text.Clean(words))
	b.WriteByte('\n')
	if len(e.Stack) > 0 {
		b.WriteString(l.stack(e))
	}
	_, err := l.w.Write(b.Bytes())
	return err
}

// task is "            sh-123    ".
func (l *Writer) task(pid int) string {
	s, ok := l.names[pid]
	if !ok {
		s = fmt.Sprintf("%16s-%-7d", text.Line(l.dec.Comm(pid), 16), pid)
		if len(l.names) < maxStacks {
			l.names[pid] = s
		}
	}
	return s
}

func padded(b *bytes.Buffer, v uint64, width int, with byte) {
	s := strconv.AppendUint(b.AvailableBuffer(), v, 10)
	for range width - len(s) {
		b.WriteByte(with)
	}
	b.Write(strconv.AppendUint(b.AvailableBuffer(), v, 10))
}

// stack prints the stack of an event, which differs by the event: its arguments stand
// on a probe's innermost frame.
func (l *Writer) stack(e *decode.Event) string {
	probe := e.Format.Field("__probe_ip") != nil
	if !probe {
		l.key = strconv.AppendInt(l.key[:0], int64(e.Format.ID), 10)
		if f := e.Format.Field("ip"); f != nil {
			ip, _ := e.UintOf(f)
			l.key = binary.LittleEndian.AppendUint64(l.key, ip)
		}
		for _, pc := range e.Stack {
			l.key = binary.LittleEndian.AppendUint64(l.key, pc)
		}
		if s, ok := l.stacks[string(l.key)]; ok {
			return s
		}
	}
	ev := l.dec.Event(e)
	_, s := tasks.Place(&ev)
	printed := l.style.Print(&s)
	if !probe {
		if len(l.stacks) == maxStacks {
			clear(l.stacks)
		}
		l.stacks[string(l.key)] = printed
	}
	return printed
}

func isGraph(name string) bool { return strings.HasPrefix(name, "funcgraph_") }

// maxDepth bounds the indentation of a graph (FTRACE_RETFUNC_DEPTH is 50).
const maxDepth = 60

// graph prints a call or a return as function_graph does: indented by its depth, a
// return with how long the function took.
func graph(r *decode.Event, words string) string {
	depth, err := r.Uint("depth")
	if err != nil || depth > maxDepth {
		depth = maxDepth
	}
	took := ""
	called, err := r.Uint("calltime")
	if returned, rerr := r.Uint("rettime"); err == nil && rerr == nil && returned >= called {
		took = fmt.Sprintf("%d.%03d us", (returned-called)/1000, (returned-called)%1000)
	}
	return fmt.Sprintf("%14s |  %*s%s", took, 2*int(depth), "", text.Line(words, 600))
}
