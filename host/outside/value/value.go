// Package value reads typed values from a guest's memory, and prints them: structures with
// their members, bit fields, enums by name, functions by symbol, strings as strings.
package value

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/kernel/ctype"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/stack"
	"labctl/host/text"
)

// Value is a value that was read. A structure or union has Members, an array Elems; all
// others have Text.
type Value struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type"` // in C
	Addr uint64 `json:"addr"`
	Bits int    `json:"bits,omitempty"` // of a bit field
	// Text is the value as it is printed. Number is that of a number, a pointer or an
	// enum.
	Text   string `json:"text,omitempty"`
	Number uint64 `json:"number,omitempty"`

	Members []Value `json:"members,omitempty"`
	Elems   []Value `json:"elems,omitempty"`
	More    int     `json:"more,omitempty"`  // elements that were left out
	Error   string  `json:"error,omitempty"` // why it cannot be read
}

// Limits on what is read of one value.
const (
	maxDepth  = 12
	maxValues = 4000
	maxElems  = 16
	maxString = 128
)

// Reader reads values. It is not safe for concurrent use.
type Reader struct {
	l    *kern.Look
	spec *btf.Spec
	find stack.Lookup
	left int
}

// New returns a reader. find names the functions that pointers lead to. The error is a
// *kern.NoTypesError for a kernel without BTF.
func New(l *kern.Look, find stack.Lookup) (*Reader, error) {
	spec, err := l.K.Types()
	if err != nil {
		return nil, err
	}
	return &Reader{l: l, spec: spec, find: find}, nil
}

// Unread says why nothing of a value could be read; "" if something could.
func (v Value) Unread() string {
	read, why := v.read()
	if read {
		return ""
	}
	return why
}

func (v Value) read() (read bool, why string) {
	read, why = v.Text != "", v.Error
	for _, part := range slices.Concat(v.Members, v.Elems) {
		ok, one := part.read()
		read, why = read || ok, cmp.Or(why, one)
	}
	return read, why
}

// Type finds a type by its C name: "struct task_struct", "union thread_union", "enum
// pid_type", "pid_t". A keyword may be left out.
func (r *Reader) Type(name string) (btf.Type, error) {
	keyword, bare := "", strings.TrimSpace(name)
	for _, k := range []string{"struct", "union", "enum"} {
		if rest, ok := strings.CutPrefix(bare, k+" "); ok {
			keyword, bare = k, strings.TrimSpace(rest)
		}
	}
	t, err := ctype.Named(r.spec, keyword, bare)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, r.unknown(bare)
	}
	return t, nil
}

func (r *Reader) unknown(name string) error {
	return outcome.Inputf("the kernel has no type %s%s", text.Line(name, 80), nearest.Hint(name, ctype.Names(r.spec)))
}

// At reads a value of a type at an address.
func (r *Reader) At(t btf.Type, addr uint64) Value {
	r.left = maxValues
	return r.read("", t, addr, 0)
}

// Path reads a member of a structure, or of one that it contains or points to:
// "thread.sp", "real_parent.comm", "cpus_mask.bits[0]". "->" is the same as ".".
func (r *Reader) Path(t btf.Type, addr uint64, path string) (Value, error) {
	r.left = maxValues
	steps := strings.FieldsFunc(strings.ReplaceAll(path, "->", "."), func(c rune) bool { return c == '.' })
	if len(steps) == 0 || len(steps) > maxDepth {
		return Value{}, outcome.Inputf("member %q: want a path such as thread.sp", text.Line(path, 80))
	}
	var bits *ctype.Member
	for i, step := range steps {
		name, indices, err := cutIndices(step)
		if err != nil {
			return Value{}, err
		}
		if t, addr, err = r.deref(t, addr); err != nil {
			return Value{}, fmt.Errorf("%s: %w", strings.Join(steps[:i], "."), err)
		}
		members := ctype.MembersOf(btf.UnderlyingType(t), r.bits())
		var found *ctype.Member
		var known []string
		for _, m := range members {
			if known = append(known, m.Name); m.Name == name {
				found = &m
				break
			}
		}
		if found == nil {
			return Value{}, &kern.NoMemberError{Type: ctype.String(t, ""), Member: name, Known: known}
		}
		t, addr, bits = found.Type, addr+uint64(found.Offset), found
		for _, n := range indices {
			array, ok := btf.UnderlyingType(t).(*btf.Array)
			if !ok {
				return Value{}, outcome.Inputf("%s is not an array", text.Line(step, 80))
			}
			size := r.size(array.Type)
			if n >= max(int(array.Nelems), 1) || size <= 0 {
				return Value{}, outcome.Inputf("%s: the array has %d elements", text.Line(step, 80), array.Nelems)
			}
			t, addr, bits = array.Type, addr+uint64(n*size), nil
		}
	}
	v := r.member(path, t, addr, bits)
	return v, nil
}

// deref follows a pointer to a structure; a structure is itself.
func (r *Reader) deref(t btf.Type, addr uint64) (btf.Type, uint64, error) {
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok {
		return t, addr, nil
	}
	to, err := r.l.Pointer(addr)
	if err == nil && to == 0 {
		err = outcome.Inputf("the pointer is null")
	}
	return p.Target, to, err
}

func cutIndices(step string) (name string, indices []int, err error) {
	name, rest, ok := strings.Cut(step, "[")
	for ok {
		var n string
		n, rest, _ = strings.Cut(rest, "]")
		i, err := strconv.Atoi(n)
		if err != nil || i < 0 {
			return "", nil, outcome.Inputf("index %q: want a number from 0", text.Line(n, 40))
		}
		indices = append(indices, i)
		_, rest, ok = strings.Cut(rest, "[")
	}
	return name, indices, nil
}

func (r *Reader) bits() int { return 8 * r.l.K.Word() }

func (r *Reader) size(t btf.Type) int { return ctype.Size(t, r.bits()) }

func (r *Reader) member(name string, t btf.Type, addr uint64, m *ctype.Member) Value {
	if m != nil && m.Bits > 0 {
		return r.bitField(name, t, addr, m)
	}
	return r.read(name, t, addr, 0)
}

func (r *Reader) bitField(name string, t btf.Type, addr uint64, m *ctype.Member) Value {
	v := Value{Name: name, Type: ctype.String(t, ""), Addr: addr, Bits: m.Bits}
	n, err := r.l.Uint(addr, min(m.Size, 8))
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Number = n >> m.Shift & (1<<m.Bits - 1)
	v.Text = r.scalar(t, v.Number, m.Bits)
	return v
}

func (r *Reader) read(name string, t btf.Type, addr uint64, depth int) Value {
	v := Value{Name: name, Type: ctype.String(t, ""), Addr: addr}
	if r.left--; r.left < 0 || depth > maxDepth {
		v.Error = "left out: the value is too large"
		return v
	}
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct, *btf.Union:
		for _, m := range ctype.MembersOf(u, r.bits()) {
			at := addr + uint64(m.Offset)
			if m.Bits > 0 {
				v.Members = append(v.Members, r.bitField(m.Name, m.Type, at, &m))
			} else {
				v.Members = append(v.Members, r.read(m.Name, m.Type, at, depth+1))
			}
			if r.left < 0 {
				break
			}
		}
	case *btf.Array:
		r.array(&v, u, depth)
	default:
		r.number(&v, t)
	}
	return v
}

func (r *Reader) array(v *Value, a *btf.Array, depth int) {
	size, n := r.size(a.Type), int(min(a.Nelems, 1<<20))
	if isChar(a.Type) {
		r.chars(v, n)
		return
	}
	for i := range min(n, maxElems) {
		v.Elems = append(v.Elems, r.read("", a.Type, v.Addr+uint64(i*size), depth+1))
		if r.left < 0 {
			break
		}
	}
	v.More = n - len(v.Elems)
}

// isChar reports whether a type is C's char, as against other numbers of a byte.
func isChar(t btf.Type) bool {
	i, ok := btf.UnderlyingType(t).(*btf.Int)
	return ok && i.Size == 1 && (i.Name == "char" || i.Encoding == btf.Char)
}

// chars reads an array of characters as a string, or as bytes when it holds none.
func (r *Reader) chars(v *Value, n int) {
	b := make([]byte, min(n, maxString))
	if err := r.l.Read(b, v.Addr); err != nil {
		v.Error = err.Error()
		return
	}
	s, rest, ended := strings.Cut(string(b), "\x00")
	if printable(s) && (ended || len(b) == n) && (s != "" || strings.Trim(rest, "\x00") == "") {
		v.Text = strconv.Quote(s)
		return
	}
	v.Text = fmt.Sprintf("% x", b)
	v.More = n - len(b)
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

func (r *Reader) number(v *Value, t btf.Type) {
	size := r.size(t)
	if size < 1 || size > 16 {
		v.Error = "of no size"
		if size == 0 {
			v.Text, v.Error = "{}", ""
		}
		return
	}
	if size == 16 {
		b := make([]byte, 16)
		if err := r.l.Read(b, v.Addr); err != nil {
			v.Error = err.Error()
			return
		}
		v.Text = fmt.Sprintf("0x%016x%016x", binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b))
		return
	}
	n, err := r.l.Uint(v.Addr, size)
	if err != nil {
		v.Error = err.Error()
		return
	}
	v.Number = n
	v.Text = r.scalar(t, n, 8*size)
}

// Scalar formats a number of a type as At does: enums by name, functions by symbol.
func (r *Reader) Scalar(t btf.Type, n uint64) string { return r.scalar(t, n, 8*r.size(t)) }

func (r *Reader) scalar(t btf.Type, n uint64, bits int) string {
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return r.pointer(u, n)
	case *btf.Enum:
		for _, e := range u.Values {
			if e.Value == n || e.Value&(1<<bits-1) == n && bits < 64 {
				return e.Name
			}
		}
		return fmt.Sprintf("%d", n)
	case *btf.Int:
		switch {
		case u.Encoding == btf.Bool:
			return strconv.FormatBool(n != 0)
		case u.Encoding == btf.Signed && bits < 64 || u.Encoding == btf.Char && bits < 64:
			return strconv.FormatInt(int64(n<<(64-bits))>>(64-bits), 10)
		case u.Encoding == btf.Signed:
			return strconv.FormatInt(int64(n), 10)
		case u.Name == "long unsigned int" && n > 1<<16:
			return fmt.Sprintf("0x%x", n)
		}
		return strconv.FormatUint(n, 10)
	}
	return fmt.Sprintf("0x%x", n)
}

// pointer formats a pointer: with what it points to if that is a function, a variable of
// the kernel's, or a string.
func (r *Reader) pointer(p *btf.Pointer, n uint64) string {
	if n == 0 {
		return "NULL"
	}
	s := fmt.Sprintf("0x%x", n)
	if isChar(p.Target) {
		if str, err := r.l.CString(n, maxString); err == nil && printable(str) && str != "" {
			return s + " " + strconv.Quote(str)
		}
	}
	if sym, ok := r.find(n); ok && sym.Name != "" {
		s += " <" + stack.Sanitise(sym.Name)
		if off := n - sym.Start; off > 0 {
			s += fmt.Sprintf("+0x%x", off)
		}
		s += ">"
		if sym.Module != "" {
			s += " [" + stack.Sanitise(sym.Module) + "]"
		}
	}
	return s
}

// maxList limits a list that is walked.
const maxList = 10000

// List walks the list that runs through a member of a structure, and returns the
// addresses of the structures in it. It starts at one of them, or, with head, at a struct
// list_head that is no part of one. On an error the addresses up to there are returned.
func (r *Reader) List(t btf.Type, addr uint64, member string, head bool) (addrs []uint64, err error) {
	v, err := r.Path(t, addr, member)
	if err != nil && !head {
		return nil, err
	}
	off := int(v.Addr - addr)
	if s, ok := t.(*btf.Struct); ok {
		m, err := r.l.K.Member(s.Name, member)
		if err != nil {
			return nil, err
		}
		off = m.Offset
	}
	if v.Error == "" && v.Type != "struct list_head" {
		return nil, outcome.Inputf("%s is a %s, not a struct list_head", text.Line(member, 80), v.Type)
	}
	start := addr
	if !head {
		addrs = append(addrs, addr)
		start += uint64(off)
	}
	err = r.l.List(start, off, maxList, func(at uint64) bool {
		addrs = append(addrs, at)
		return true
	})
	return addrs, err
}
