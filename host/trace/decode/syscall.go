package decode

import (
	"strconv"
	"strings"

	"labctl/host/trace/format"
)

// callField is the field that has the number of a system call; nil of an event that has
// none.
func callField(f *format.Event) *format.Field {
	switch f.System {
	case "raw_syscalls":
		return f.Field("id")
	case "syscalls":
		if n := f.Field("__syscall_nr"); n != nil {
			return n
		}
		return f.Field("nr") // before 4.9
	}
	return nil
}

// Syscall is the name of the system call whose number the event has in a field; false
// when it has none, or the call is not known.
func (e *Event) Syscall() (field, name string, ok bool) {
	f := callField(e.Format)
	if f == nil {
		return "", "", false
	}
	v, ok := e.UintOf(f)
	if !ok {
		return "", "", false
	}
	name, ok = e.dec.calls().Name(extend(v, f.Size))
	return f.Name, name, ok
}

// withCall puts the name of the call behind its number in the text of an event of
// raw_syscalls, and that of the error behind its result:
//
//	NR 257 openat (ffffff9c, …)
//	NR 257 openat = -2 (-ENOENT)
func (d *Decoder) withCall(e *Event, text string) string {
	field := callField(e.Format)
	number, rest, ok := strings.Cut(strings.TrimPrefix(text, "NR "), " ")
	if v, known := e.UintOf(field); !known || !ok || number != strconv.FormatInt(extend(v, field.Size), 10) {
		return text
	}
	if _, name, ok := e.Syscall(); ok {
		text = "NR " + number + " " + name + " " + rest
	}
	if name, ok := e.Error(); ok && strings.HasPrefix(rest, "= ") {
		text += " (-" + name + ")"
	}
	return text
}

// Error is the name of the error that a system call or a function returned, "ENOENT",
// where the event has such a result in its field "ret"; false when it is none.
func (e *Event) Error() (name string, ok bool) {
	f := e.Format.Field("ret")
	if f == nil || callField(e.Format) == nil && e.Format.Field("__probe_ret_ip") == nil {
		return "", false
	}
	v, ok := e.UintOf(f)
	// A pointer, and an unsigned long, may be one too (IS_ERR).
	if !ok || !f.Signed && f.Size != e.dec.longSize {
		return "", false
	}
	return e.dec.calls().Error(extend(v, f.Size))
}

// withError puts the name of an error behind it in the text of a return probe's event:
// "(do_sys_openat2+0x5f/0xd0 <- do_filp_open) ret=0xfffffffffffffffe (-ENOENT)".
func (e *Event) withError(text string) string {
	name, ok := e.Error()
	if !ok {
		return text
	}
	before, after, ok := strings.Cut(text, " ret=")
	if !ok {
		return text
	}
	value, rest, more := strings.Cut(after, " ")
	if more {
		rest = " " + rest
	}
	return before + " ret=" + value + " (-" + name + ")" + rest
}
