// Package ctype reads a kernel's C types from its BTF
// (Documentation/bpf/btf.rst): struct layouts, function parameters, and types in C
// syntax.
package ctype

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Read parses a raw BTF blob, the contents of /sys/kernel/btf/vmlinux. A kernel's is
// megabytes. Types are decoded on first use, so a Spec is not safe for concurrent use.
func Read(blob []byte) (*btf.Spec, error) {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return nil, fmt.Errorf("read BTF: %w", err)
	}
	return spec, nil
}

// Structs returns the structs with a name, none if there is no such type. A kernel may
// have several, since source files may define private structs.
func Structs(spec *btf.Spec, name string) ([]*btf.Struct, error) {
	types, err := spec.AnyTypesByName(name)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read BTF of struct %s: %w", name, err)
	}
	var structs []*btf.Struct
	for _, t := range types {
		if s, ok := t.(*btf.Struct); ok {
			structs = append(structs, s)
		}
	}
	return structs, nil
}

// Composite returns the struct or union with a name, nil if there is no such type. Source
// files may define private ones: of several it is the one with the most members.
func Composite(spec *btf.Spec, name string) (btf.Type, error) {
	types, err := spec.AnyTypesByName(name)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read BTF of %s: %w", name, err)
	}
	var best btf.Type
	most := -1
	for _, t := range types {
		if members, ok := direct(t); ok && len(members) > most {
			best, most = t, len(members)
		}
	}
	return best, nil
}

// Named returns the type with a name, nil if there is none: a struct, union, enum or
// typedef, or what keyword says. Of several it is the one with the most members.
func Named(spec *btf.Spec, keyword, name string) (btf.Type, error) {
	types, err := spec.AnyTypesByName(name)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read BTF of %s: %w", name, err)
	}
	var best btf.Type
	most := -1
	for _, t := range types {
		kind, members := "", 0
		switch t := t.(type) {
		case *btf.Struct:
			kind, members = "struct", len(t.Members)
		case *btf.Union:
			kind, members = "union", len(t.Members)
		case *btf.Enum:
			kind, members = "enum", len(t.Values)
		case *btf.Typedef, *btf.Int:
		default:
			continue
		}
		if (keyword == "" || kind == keyword) && members > most {
			best, most = t, members
		}
	}
	return best, nil
}

// Names returns the names of all structs, unions, enums and typedefs.
func Names(spec *btf.Spec) (names []string) {
	for t, err := range spec.All() {
		if err != nil {
			return names
		}
		switch t.(type) {
		case *btf.Struct, *btf.Union, *btf.Enum, *btf.Typedef:
			if t.TypeName() != "" {
				names = append(names, t.TypeName())
			}
		}
	}
	return names
}

// Size returns the size of a type, in bytes, 0 if it has none. bits is the kernel's word
// size.
func Size(t btf.Type, bits int) int {
	f := flattener{pointer: bits / 8}
	n, err := f.size(t)
	if err != nil {
		return 0
	}
	return n
}

// direct returns the members of a struct or union.
func direct(t btf.Type) (members []btf.Member, ok bool) {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members, true
	case *btf.Union:
		return t.Members, true
	}
	return nil, false
}

// Member is a member of a struct, with its offset in the outermost struct.
type Member struct {
	Name   string
	Type   btf.Type
	Offset int // bytes
	Size   int // bytes; 0 for a flexible array
	// Bits and Shift are set for a bit field: the value is Bits wide and starts
	// Shift bits above the lowest bit of the Size bytes at Offset.
	Bits, Shift int
}

// maxVisits limits the number of members visited: in BTF that does not come from a
// kernel, nested types may grow exponentially.
const maxVisits = 1 << 16

// Members returns the members of a struct in declaration order, those of anonymous
// structs and unions in it under their own names. bits is the kernel's word size,
// which BTF does not record.
func Members(s *btf.Struct, bits int) []Member { return MembersOf(s, bits) }

// MembersOf is Members for a struct or union; other types have none.
func MembersOf(t btf.Type, bits int) []Member {
	f := flattener{seen: map[string]bool{}, left: maxVisits, pointer: bits / 8}
	members, _ := direct(t)
	f.add(members, 0, 0)
	return f.members
}

type flattener struct {
	members []Member
	seen    map[string]bool
	left    int
	pointer int // size of a pointer
}

// size returns the size of a type; btf.Sizeof takes all pointers for eight bytes.
func (f *flattener) size(t btf.Type) (int, error) {
	elements := 1
	for range 16 {
		switch u := btf.UnderlyingType(t).(type) {
		case *btf.Pointer:
			return elements * f.pointer, nil
		case *btf.Array:
			if u.Nelems > maxElements/uint32(max(elements, 1)) {
				return 0, errors.New("array too large")
			}
			elements *= int(u.Nelems)
			t = u.Type
			continue
		}
		n, err := btf.Sizeof(t)
		return elements * n, err
	}
	return 0, errors.New("arrays nested too deep")
}

// maxElements limits the elements of a plausible array.
const maxElements = 1 << 24

func (f *flattener) add(members []btf.Member, base btf.Bits, depth int) {
	if depth > 16 {
		return
	}
	for _, m := range members {
		if f.left--; f.left < 0 {
			return
		}
		at := base + m.Offset // in bits
		if m.Name == "" {
			inner, _ := direct(btf.UnderlyingType(m.Type))
			f.add(inner, at, depth+1)
			continue
		}
		if f.seen[m.Name] {
			continue
		}
		f.seen[m.Name] = true
		size, err := f.size(m.Type)
		if err != nil || size < 0 {
			size = 0
		}
		out := Member{Name: m.Name, Type: m.Type, Offset: int(at / 8), Size: size}
		if m.BitfieldSize != 0 && size > 0 {
			unit := btf.Bits(size) * 8
			out.Offset, out.Bits, out.Shift = int(at/unit*unit/8), int(m.BitfieldSize), int(at%unit)
		}
		f.members = append(f.members, out)
	}
}

// Param is one parameter of a function.
type Param struct {
	Name string `json:"name"`
	Type string `json:"type"` // in C: "struct kernel_clone_args *"; "..." ends a variadic list, without a name
}

// Params returns the parameters of a function in order. ok is false if the function is
// not in the BTF, such as one that the compiler inlined.
func Params(spec *btf.Spec, function string) (params []Param, ok bool, err error) {
	var fn *btf.Func
	if err := spec.TypeByName(function, &fn); errors.Is(err, btf.ErrNotFound) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, fmt.Errorf("read BTF of %s(): %w", function, err)
	}
	params = []Param{}
	if proto, ok := fn.Type.(*btf.FuncProto); ok {
		for _, p := range proto.Params {
			params = append(params, Param{p.Name, paramType(p.Type, 0)})
		}
	}
	return params, true, nil
}

// String formats the declaration of name, which may be empty, with type t, in C
// syntax: "int (*)(void *)", "pid_t kernel_clone(struct kernel_clone_args *)".
func String(t btf.Type, name string) string { return cType(t, name, 0) }

// cType formats a type in C syntax around an inner declarator; cType(t, "", 0)
// returns the type alone, such as "int (*)(void *)". Structs are printed by name
// only, so the recursion depth is that of the declaration.
func cType(t btf.Type, inner string, depth int) string {
	if depth > 32 {
		return "?"
	}
	base := func(name string) string {
		if inner == "" {
			return name
		}
		return name + " " + inner
	}
	named := func(keyword, name string) string {
		if name == "" {
			name = "{…}"
		}
		return base(keyword + " " + name)
	}
	// A pointer to a function or array needs parentheses.
	paren := func() string {
		if strings.HasPrefix(inner, "*") {
			return "(" + inner + ")"
		}
		return inner
	}
	switch t := t.(type) {
	case *btf.Void:
		return base("void")
	case *btf.Int:
		return base(t.Name)
	case *btf.Float:
		return base(t.Name)
	case *btf.Typedef:
		return base(t.Name)
	case *btf.Struct:
		return named("struct", t.Name)
	case *btf.Union:
		return named("union", t.Name)
	case *btf.Enum:
		return named("enum", t.Name)
	case *btf.Fwd:
		if t.Kind == btf.FwdUnion {
			return named("union", t.Name)
		}
		return named("struct", t.Name)
	case *btf.Pointer:
		return cType(t.Target, "*"+inner, depth+1)
	case *btf.Array:
		return cType(t.Type, fmt.Sprintf("%s[%d]", paren(), t.Nelems), depth+1)
	case *btf.FuncProto:
		var params []string
		for _, p := range t.Params {
			params = append(params, paramType(p.Type, depth+1))
		}
		if len(params) == 0 {
			params = []string{"void"}
		}
		return cType(t.Return, paren()+"("+strings.Join(params, ", ")+")", depth+1)
	case *btf.Const:
		return qualified("const", t.Type, inner, depth)
	case *btf.Volatile:
		return qualified("volatile", t.Type, inner, depth)
	case *btf.Restrict:
		return qualified("restrict", t.Type, inner, depth)
	case *btf.TypeTag: // __user, __rcu: not C
		return cType(t.Type, inner, depth+1)
	}
	return base(t.TypeName())
}

// paramType returns a parameter's type; in BTF a final void stands for "...".
func paramType(t btf.Type, depth int) string {
	if _, void := t.(*btf.Void); void {
		return "..."
	}
	return cType(t, "", depth)
}

// qualified puts a qualifier where C requires it: after the star for a pointer,
// before the type name otherwise.
func qualified(q string, t btf.Type, inner string, depth int) string {
	if _, ok := t.(*btf.Pointer); ok {
		if inner != "" {
			q += " " + inner
		}
		return cType(t, q, depth+1)
	}
	return q + " " + cType(t, inner, depth+1)
}
