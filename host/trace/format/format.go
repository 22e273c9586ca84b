// Package format reads the kernel's own descriptions of what is in its trace
// ring buffers: events/SYSTEM/EVENT/format, events/header_page and
// events/header_event (Documentation/trace/events.rst, kernel/trace/trace_events.c).
// They come from a guest or a file and are believed only after a check.
package format

import (
	"fmt"
	"strconv"
	"strings"

	"labctl/host/text"
)

// Bounds on what is taken from a description.
const (
	maxText   = 1 << 20 // bytes of a format; the longest of today's kernels has 40 KB
	maxFields = 1024
	maxName   = 256     // bytes of a name
	maxRecord = 1 << 20 // bytes of a record: RB_WRITE_MASK, the kernel's own bound on a sub-buffer
	maxID     = 1<<16 - 1
)

// Event is the layout of one event's records.
type Event struct {
	System string // "sched"
	Name   string // "sched_switch"
	ID     int    // common_type of its records, at most 65535
	Common []Field
	Fields []Field
	// Print is how the kernel prints a record, C source as in a call of
	// printf: `"pid=%d", REC->pid`. Package printfmt evaluates it.
	Print string
}

// Loc says where a field's bytes are.
type Loc uint8

const (
	Here Loc = iota // at Offset
	// DataLoc: Offset has a u32, length << 16 | offset in the record.
	DataLoc
	// RelLoc is DataLoc with the offset counted from the end of the u32.
	RelLoc
)

// Field is one field of a record.
type Field struct {
	Name   string
	Type   string // as the kernel has it, without brackets: "unsigned long", "__data_loc char"
	Offset int    // from the record's start, common fields included
	Size   int    // bytes; 0 when the field goes on to the record's end
	Signed bool
	Array  bool
	Elem   int // bytes of one element; of a field that is no array, Size
	Loc    Loc
}

// Span is where the field's bytes are in a record, which may say anything of those
// that are elsewhere than at Offset. u32 reads a number in the record's byte order. ok
// is false when the record does not have the bytes; they are start and size still.
func (f *Field) Span(record []byte, u32 func([]byte) uint32) (start, size int, ok bool) {
	start, size = f.Offset, f.Size
	if f.Loc != Here {
		if start+4 > len(record) {
			return start, 4, false
		}
		at := u32(record[start:])
		size = int(at >> 16)
		if f.Loc == RelLoc {
			start += 4 + int(at&0xffff)
		} else {
			start = int(at & 0xffff)
		}
	} else if size == 0 { // a flexible array
		size = max(len(record)-start, 0)
	}
	return start, size, start+size <= len(record)
}

// IsText reports whether the field is an array of char.
func (f *Field) IsText() bool {
	return f.Array && f.Elem == 1 && (strings.HasSuffix(f.Type, "char") && !strings.Contains(f.Type, "unsigned"))
}

// Field finds a field by its name, a common one too; nil when there is none.
func (e *Event) Field(name string) *Field {
	for i := range e.Fields {
		if e.Fields[i].Name == name {
			return &e.Fields[i]
		}
	}
	for i := range e.Common {
		if e.Common[i].Name == name {
			return &e.Common[i]
		}
	}
	return nil
}

func (e *Event) String() string {
	if e.System == "" {
		return e.Name
	}
	return e.System + "/" + e.Name
}

// Parse reads a format file. longSize is the kernel's, 4 or 8. The error names the
// event and what is wrong with it. With an error the event is nil, or one of which
// at least the name, the ID and the common fields could be read: it has no other
// fields, and its records can be told apart from those of other events.
func Parse(system string, b []byte, longSize int) (*Event, error) {
	e, err := parse(b, longSize)
	e.System = system
	if err == nil {
		return e, nil
	}
	name := e.String()
	if e.Name == "" {
		name = system + "/?"
	}
	err = fmt.Errorf("format of event %s: %w", text.Line(name, maxName), err)
	if !e.usable() {
		return nil, err
	}
	e.Fields, e.Print = nil, ""
	return e, err
}

// usable reports whether the event's records can be told apart from others.
func (e *Event) usable() bool { return e.check() == nil }

func (e *Event) check() error {
	switch {
	case e.Name == "":
		return fmt.Errorf("no name")
	case e.ID < 0:
		return fmt.Errorf("no ID")
	}
	for _, want := range []struct {
		name string
		size int
	}{{"common_type", 2}, {"common_pid", 4}} {
		f := e.Field(want.name)
		if f == nil || f.Size != want.size || f.Loc != Here {
			return fmt.Errorf("no field %s of %d bytes", want.name, want.size)
		}
	}
	return nil
}

func parse(b []byte, longSize int) (*Event, error) {
	e := &Event{ID: -1}
	if len(b) > maxText {
		return e, fmt.Errorf("%d bytes, more than %d", len(b), maxText)
	}
	rest := string(b)
	for rest != "" {
		var line string
		line, after, _ := strings.Cut(rest, "\n")
		word, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch word {
		case "name":
			e.Name = strings.TrimSpace(value)
			if !isEventName(e.Name) {
				name := e.Name
				e.Name = ""
				return e, fmt.Errorf("%q is not the name of an event", text.Line(name, 64))
			}
		case "ID":
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil || id > maxID {
				return e, fmt.Errorf("ID %q is no number up to %d", text.Line(value, 64), maxID)
			}
			e.ID = int(id)
		case "field":
			f, err := parseField(value, longSize)
			if err != nil {
				return e, err
			}
			if len(e.Fields)+len(e.Common) >= maxFields {
				return e, fmt.Errorf("more than %d fields", maxFields)
			}
			if strings.HasPrefix(f.Name, "common_") {
				e.Common = append(e.Common, f)
			} else {
				e.Fields = append(e.Fields, f)
			}
		case "print fmt":
			// It goes on to the end: strings in it may hold a newline.
			_, p, _ := strings.Cut(rest, "print fmt:")
			e.Print = strings.TrimSpace(p)
			after = ""
		}
		rest = after
	}
	return e, e.check()
}

// parseField reads what follows "field:":
//
//	unsigned long caller[8];	offset:16;	size:64;	signed:0;
//	__data_loc char[] name;	offset:8;	size:4;	signed:0;
func parseField(s string, longSize int) (Field, error) {
	decl, rest, _ := strings.Cut(s, ";")
	f := declaration(decl)
	if !isIdent(f.Name) {
		return f, fmt.Errorf("%q declares no field", text.Line(decl, 80))
	}
	var err error
	if f.Offset, err = number(rest, "offset:"); err == nil {
		f.Size, err = number(rest, "size:")
	}
	if err != nil {
		return f, fmt.Errorf("field %s: %w", f.Name, err)
	}
	// Kernels before 2.6.33 do not say.
	f.Signed = strings.Contains(rest, "signed:1;")
	if f.Offset+f.Size > maxRecord {
		return f, fmt.Errorf("field %s: offset %d and size %d are over a record's bound of %d", f.Name, f.Offset, f.Size, maxRecord)
	}
	// Before 5.6 a flexible array is declared like one element, without brackets
	// (__dynamic_array in kernel/trace/trace_export.c).
	f.Array = f.Array || f.Size == 0
	elem := SizeOf(f.Type, longSize)
	switch {
	case f.Loc != Here:
		if f.Size != 4 {
			return f, fmt.Errorf("field %s: a place of data has size %d, not 4", f.Name, f.Size)
		}
		f.Array = true
		f.Elem = max(elem, 1)
	case !f.Array:
		f.Elem = f.Size
	default:
		f.Elem = max(elem, 1)
		switch n := length(decl); {
		case n == 0 || f.Size == 0:
		case f.Size == elem || f.Size%n != 0:
			// An array in a macro for single fields: the size is that of one
			// element, as in f2fs_truncate_partial_nodes (nid_t nid[3], size 4).
			f.Elem = f.Size
		default:
			f.Elem = f.Size / n
		}
		if f.Size%f.Elem != 0 {
			return f, fmt.Errorf("field %s: size %d is not a multiple of its elements' %d", f.Name, f.Size, f.Elem)
		}
	}
	return f, nil
}

// declaration splits C's declaration; the brackets may stand after the type
// ("char[] name") or after the name.
func declaration(decl string) Field {
	var f Field
	decl = strings.TrimSpace(decl)
	if open := strings.IndexByte(decl, '['); open >= 0 {
		if shut := strings.LastIndexByte(decl, ']'); shut > open {
			f.Array = true
			decl = decl[:open] + decl[shut+1:]
		}
	}
	at := strings.LastIndexAny(decl, " *\t")
	f.Type, f.Name = strings.TrimSpace(decl[:at+1]), decl[at+1:]
	switch {
	case strings.HasPrefix(f.Type, "__data_loc "):
		f.Loc = DataLoc
	case strings.HasPrefix(f.Type, "__rel_loc "):
		f.Loc = RelLoc
	}
	return f
}

// length is the number in brackets, 0 when it is none or an expression.
func length(decl string) int {
	_, in, _ := strings.Cut(decl, "[")
	in, _, _ = strings.Cut(in, "]")
	n, err := strconv.ParseUint(strings.TrimSpace(in), 10, 20)
	if err != nil {
		return 0
	}
	return int(n)
}

func number(s, key string) (int, error) {
	_, rest, ok := strings.Cut(s, key)
	if !ok {
		return 0, fmt.Errorf("no %s", strings.TrimSuffix(key, ":"))
	}
	word, _, _ := strings.Cut(rest, ";")
	n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 31)
	if err != nil || n > maxRecord {
		return 0, fmt.Errorf("%s%s is no number up to %d", key, text.Line(word, 32), maxRecord)
	}
	return int(n), nil
}

// sizes are those of C's and the kernel's types in arrays; 0 is unsigned long's.
var sizes = map[string]int{
	"char": 1, "signed char": 1, "unsigned char": 1, "u8": 1, "s8": 1, "__u8": 1, "__s8": 1, "uint8_t": 1, "int8_t": 1, "bool": 1, "_Bool": 1,
	"short": 2, "unsigned short": 2, "u16": 2, "s16": 2, "__u16": 2, "__s16": 2, "uint16_t": 2, "int16_t": 2, "__be16": 2, "__le16": 2,
	"int": 4, "unsigned int": 4, "unsigned": 4, "u32": 4, "s32": 4, "__u32": 4, "__s32": 4, "uint32_t": 4, "int32_t": 4, "__be32": 4, "__le32": 4,
	"u64": 8, "s64": 8, "__u64": 8, "__s64": 8, "uint64_t": 8, "int64_t": 8, "__be64": 8, "__le64": 8, "long long": 8, "unsigned long long": 8,
	"long": 0, "unsigned long": 0, "size_t": 0, "cpumask_t": 0, "ulong": 0,
}

// SizeOf is the size of a C type in a kernel whose unsigned long has longSize
// bytes; 0 when the name does not tell.
func SizeOf(name string, longSize int) int {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "__data_loc "), "__rel_loc ")
	name = strings.TrimPrefix(name, "const ")
	// A cpumask is declared as a pointer to one and has unsigned longs, which are
	// as long as pointers.
	if strings.HasSuffix(name, "*") {
		return longSize
	}
	n, known := sizes[strings.TrimSpace(name)]
	if known && n == 0 {
		return longSize
	}
	return n
}

// isEventName accepts a digit at the start, as in 802154_rdev_add_virtual_intf
// (net/ieee802154/trace.h).
func isEventName(s string) bool {
	return isIdent(s) || s != "" && len(s) <= maxName && s[0] >= '0' && s[0] <= '9' && isIdent("_"+s[1:])
}

func isIdent(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
