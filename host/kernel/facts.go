package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/ksym"
	"labctl/host/outcome"
)

// Facts is what the rest of labctl asks of a kernel's own type information,
// read from its image without booting it.
type Facts struct {
	// HasBTF says whether the image carries BTF; without it Members and Params
	// are empty.
	HasBTF bool `json:"has_btf"`
	// Members maps "struct.member" to its place: "kernel_clone_args.flags".
	// Members of anonymous members are found by their own name.
	Members map[string]Member `json:"members"`
	// Params maps a function to its parameters in order: "kernel_clone".
	Params map[string][]Param `json:"params"`
}

// Member is the place of a structure member, in bytes.
type Member struct {
	Offset int `json:"offset"`
	Size   int `json:"size"`
	// Bits and Shift are set for a bit field: the value is Bits wide and begins
	// Shift bits above the lowest bit of the Size bytes at Offset.
	Bits  int `json:"bits,omitempty"`
	Shift int `json:"shift,omitempty"`
}

// Param is one parameter of a kernel function, in C.
type Param struct {
	Name string `json:"name"`
	Type string `json:"type"` // "struct kernel_clone_args *"; "..." ends a variadic list, without a name
}

// factsSchema is raised when wantedMembers, wantedParams or the meaning of a
// field changes: older facts.json files are then made again.
const factsSchema = 1

// wantedMembers are the members that labctl reads. A kernel has those of its
// time: exit_signal left task_struct for signal_struct and came back, state is
// __state from 5.14.
var wantedMembers = []struct {
	name    string
	members string
}{
	{"kernel_clone_args", "flags pidfd child_tid parent_tid exit_signal stack stack_size tls fn fn_arg kthread io_thread user_worker no_files idle cgroup"},
	{"kthread_create_info", "threadfn data node full_name result done"},
	{"task_struct", "pid tgid comm real_parent mm __state state flags stack tasks thread thread_node signal exit_signal"},
}

// wantedParams are the functions that create tasks, over all the names they have
// had. BTF has those that the compiler kept as functions.
var wantedParams = slices.Concat(ksym.Functions(ksym.FamilyCreation), ksym.Functions(ksym.FamilyRequest), []string{
	"kernel_thread", "copy_process", "create_kthread",
	"__do_sys_clone", "__do_sys_clone3", "user_mode_thread", "create_io_thread",
})

// factsCache is facts.json. It is believed only for this image and schema.
type factsCache struct {
	Schema int    `json:"schema"`
	Image  string `json:"image_sha256"`
	Facts  *Facts `json:"facts"`
}

// Facts reads the kernel's types. They are computed once, from the BTF that was
// extracted when the kernel came into the cache, and kept beside it: the first
// call parses megabytes of types, later ones read a small file.
func (k *Kernel) Facts(ctx context.Context) (_ *Facts, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	name := filepath.Join(k.Dir, factsFile)
	sum := k.Files[imageFile].SHA256
	var c factsCache
	if data, err := os.ReadFile(name); err == nil && json.Unmarshal(data, &c) == nil &&
		c.Schema == factsSchema && c.Image == sum && c.Facts != nil {
		return c.Facts, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := &Facts{Members: map[string]Member{}, Params: map[string][]Param{}}
	if _, ok := k.Files[btfFile]; ok {
		if err := k.verifyFile(btfFile, true); err != nil {
			return nil, err
		}
		blob, err := os.ReadFile(k.file(btfFile))
		if err != nil {
			return nil, fmt.Errorf("facts of kernel %s: %w", k, err)
		}
		if f, err = readFacts(blob); err != nil {
			return nil, fmt.Errorf("facts of kernel %s: %w", k, err)
		}
	}
	// A cache that cannot be written costs time on the next call, no more.
	if err := writeJSON(name, factsCache{factsSchema, sum, f}); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("facts of kernel %s: %w", k, err)
	}
	return f, nil
}

// readFacts looks the wanted types up in a raw BTF blob.
func readFacts(blob []byte) (*Facts, error) {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return nil, fmt.Errorf("read BTF: %w", err)
	}
	f := &Facts{HasBTF: true, Members: map[string]Member{}, Params: map[string][]Param{}}
	for _, w := range wantedMembers {
		wanted := strings.Fields(w.members)
		types, err := spec.AnyTypesByName(w.name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read BTF of struct %s: %w", w.name, err)
		}
		for _, t := range types {
			if s, ok := t.(*btf.Struct); ok {
				all := map[string]Member{}
				flatten(all, s.Members, 0, 0)
				for _, m := range wanted {
					if place, ok := all[m]; ok {
						f.Members[w.name+"."+m] = place
					}
				}
				break
			}
		}
	}
	for _, name := range wantedParams {
		params, err := prototype(spec, name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.Params[name] = params
	}
	return f, nil
}

// flatten collects the members of a structure, those of anonymous structures and
// unions in it under their own names. Offsets in BTF are in bits.
func flatten(out map[string]Member, members []btf.Member, base btf.Bits, depth int) {
	if depth > 16 {
		return
	}
	for _, m := range members {
		at := base + m.Offset
		if m.Name == "" {
			switch t := btf.UnderlyingType(m.Type).(type) {
			case *btf.Struct:
				flatten(out, t.Members, at, depth+1)
			case *btf.Union:
				flatten(out, t.Members, at, depth+1)
			}
			continue
		}
		size, err := btf.Sizeof(m.Type)
		if err != nil || size < 0 {
			continue // a flexible array of no known size is of no use here
		}
		if _, dup := out[m.Name]; dup {
			continue
		}
		place := Member{Offset: int(at / 8), Size: size}
		if m.BitfieldSize != 0 && size > 0 {
			unit := btf.Bits(size) * 8
			place = Member{Offset: int(at / unit * unit / 8), Size: size, Bits: int(m.BitfieldSize), Shift: int(at % unit)}
		}
		out[m.Name] = place
	}
}

// cType writes a type in C around an inner declarator: cType(t, "", 0) is the
// type alone, as "int (*)(void *)". Only names are written of structures, so
// the depth is that of the declaration.
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
	// A pointer to what is written after the name needs parentheses.
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

// paramType is a parameter's type; a last one of type void stands for "...".
func paramType(t btf.Type, depth int) string {
	if _, void := t.(*btf.Void); void {
		return "..."
	}
	return cType(t, "", depth)
}

// qualified puts a qualifier where C wants it: after the star for a pointer,
// before the name otherwise.
func qualified(q string, t btf.Type, inner string, depth int) string {
	if _, ok := t.(*btf.Pointer); ok {
		if inner != "" {
			q += " " + inner
		}
		return cType(t, q, depth+1)
	}
	return q + " " + cType(t, inner, depth+1)
}
