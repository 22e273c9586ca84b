// Package jsonl writes the events of a trace as JSON, one object a line:
//
//	{"time":2632099000,"cpu":1,"pid":137,"comm":"labprobe","tgid":137,"flags":"d....",
//	 "system":"sched","event":"sched_process_fork","fields":{"parent_pid":137,"child_pid":138},
//	 "text":"comm=labprobe pid=137 …","stack":["kernel_clone+0x0/0x3b0"]}
//
// Times are nanoseconds. tgid, instance, lost (events lost on this CPU just before),
// stack and user_stack (innermost first) are there when there is something to say.
// A field is a number, a text or a list of numbers, as the event's format has it; numbers
// of 64 bits may be more than 2^53. Beside the number of a system call its name is
// "syscall", and beside a result that is an error its name is "error". Fields of an event without a format are not known:
// its bytes are "raw", in hexadecimal.
package jsonl

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"labctl/host/trace/decode"
	"labctl/host/trace/format"
	"labctl/host/trace/internal/callstack"
)

const (
	maxElements = 1 << 10 // of a list
	maxKnown    = 1 << 16 // quoted words that are kept
	maxStacks   = 1 << 14 // stacks that are
)

// Write writes all events of d. Damage to the trace does not end it: the first is
// returned after all is written.
func Write(out io.Writer, d *decode.Decoder) error {
	w := New(out, d)
	var damage error
	for e, err := range d.Events() {
		if err != nil {
			if damage == nil {
				damage = err
			}
			continue
		}
		if err := w.Event(e); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return damage
}

// Writer writes events one by one.
type Writer struct {
	dec    *decode.Decoder
	buf    *bufio.Writer
	b      []byte
	quoted map[string]string // names, as JSON
	stacks map[string]string // members of an object, by where they were taken
	values []uint64
	addr   []byte
}

// New makes a writer for the events of d. Flush must follow the last of them.
func New(out io.Writer, d *decode.Decoder) *Writer {
	return &Writer{dec: d, buf: bufio.NewWriterSize(out, 64<<10), quoted: map[string]string{}, stacks: map[string]string{}}
}

// Event writes one event.
func (w *Writer) Event(e *decode.Event) error {
	w.b = w.b[:0]
	w.event(e)
	w.b = append(w.b, '\n')
	_, err := w.buf.Write(w.b)
	return err
}

// Renamed is for names of tasks that have changed: none are kept here.
func (w *Writer) Renamed() {}

// Flush hands on what is held back.
func (w *Writer) Flush() error { return w.buf.Flush() }

func (w *Writer) event(e *decode.Event) {
	w.b = append(w.b, '{')
	w.number("time", e.Time)
	w.number("cpu", uint64(e.CPU))
	w.key("pid")
	w.b = strconv.AppendInt(w.b, int64(e.PID), 10)
	w.name("comm", w.dec.Comm(e.PID))
	if tgid, ok := w.dec.Tgid(e.PID); ok {
		w.number("tgid", uint64(tgid))
	}
	w.name("flags", e.Columns())
	if e.Instance != "" {
		w.name("instance", e.Instance)
	}
	if e.Lost > 0 {
		w.number("lost", e.Lost)
	}
	w.name("system", e.Format.System)
	w.name("event", e.Format.Name)
	w.fields(e)
	w.key("text")
	w.text(w.dec.Text(e))
	w.kernelStack(e)
	if len(e.UserStack) > 0 {
		w.stack("user_stack", addresses(e.UserStack))
	}
	w.b = append(w.b, '}')
}

func (w *Writer) fields(e *decode.Event) {
	if len(e.Format.Fields) == 0 {
		w.name("raw", hex.EncodeToString(e.Data))
		return
	}
	w.key("fields")
	w.b = append(w.b, '{')
	for i := range e.Format.Fields {
		f := &e.Format.Fields[i]
		at := len(w.b)
		w.key(f.Name)
		if !w.value(e, f) {
			w.b = w.b[:at]
		}
	}
	if _, name, ok := e.Syscall(); ok && e.Format.Field("syscall") == nil {
		w.name("syscall", name)
	}
	if name, ok := e.Error(); ok && e.Format.Field("error") == nil {
		w.name("error", name)
	}
	w.b = append(w.b, '}')
}

// value is false when the field is not in the record.
func (w *Writer) value(e *decode.Event, f *format.Field) bool {
	switch {
	case f.IsText():
		s, err := e.String(f.Name)
		if err != nil {
			return false
		}
		w.text(s)
	case f.Array:
		var err error
		if w.values, err = e.Array(w.values[:0], f.Name); err != nil {
			return false
		}
		w.b = append(w.b, '[')
		for i, v := range w.values[:min(len(w.values), maxElements)] {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.b = strconv.AppendUint(w.b, v, 10)
		}
		w.b = append(w.b, ']')
	case f.Signed:
		v, err := e.Int(f.Name)
		if err != nil {
			return false
		}
		w.b = strconv.AppendInt(w.b, v, 10)
	default:
		v, ok := e.UintOf(f)
		if !ok {
			return false
		}
		w.b = strconv.AppendUint(w.b, v, 10)
	}
	return true
}

// kernelStack writes the stack that was taken with the event. Most come again.
func (w *Writer) kernelStack(e *decode.Event) {
	if len(e.Stack) == 0 {
		return
	}
	w.addr = append(w.addr[:0], e.Name()...)
	if f := e.Format.Field("ip"); f != nil {
		ip, _ := e.UintOf(f)
		w.addr = binary.LittleEndian.AppendUint64(w.addr, ip)
	}
	for _, pc := range e.Stack {
		w.addr = binary.LittleEndian.AppendUint64(w.addr, pc)
	}
	if known, ok := w.stacks[string(w.addr)]; ok {
		w.b = append(w.b, known...)
		return
	}
	s := callstack.Of(w.dec, e)
	var frames []string
	for i := range s.Frames {
		frames = append(frames, s.Frames[i].String())
	}
	at := len(w.b)
	w.stack("stack", frames)
	if len(w.stacks) == maxStacks {
		clear(w.stacks)
	}
	w.stacks[string(w.addr)] = string(w.b[at:])
}

func addresses(pcs []uint64) (out []string) {
	for _, pc := range pcs {
		out = append(out, "0x"+strconv.FormatUint(pc, 16))
	}
	return out
}

func (w *Writer) stack(key string, frames []string) {
	if len(frames) == 0 {
		return
	}
	w.key(key)
	w.b = append(w.b, '[')
	for i, f := range frames {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.word(f)
	}
	w.b = append(w.b, ']')
}

func (w *Writer) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.word(name)
	w.b = append(w.b, ':')
}

func (w *Writer) number(key string, v uint64) {
	w.key(key)
	w.b = strconv.AppendUint(w.b, v, 10)
}

func (w *Writer) name(key, v string) {
	w.key(key)
	w.word(v)
}

// word writes a text that comes again.
func (w *Writer) word(s string) {
	q, ok := w.quoted[s]
	if !ok {
		at := len(w.b)
		w.text(s)
		if len(w.quoted) < maxKnown {
			w.quoted[strings.Clone(s)] = string(w.b[at:])
		}
		return
	}
	w.b = append(w.b, q...)
}

func (w *Writer) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			b, _ := json.Marshal(s) // a text always can be
			w.b = append(w.b, b...)
			return
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}
