package ctype

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// spec is BTF with types, by way of its bytes.
func spec(t *testing.T, types ...btf.Type) *btf.Spec {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(blob)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStructsAndMembers(t *testing.T) {
	integer, long := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	inner := &btf.Struct{Size: 8, Members: []btf.Member{
		{Name: "low", Type: integer, Offset: 0, BitfieldSize: 3},
		{Name: "high", Type: integer, Offset: 35, BitfieldSize: 5},
	}}
	task := &btf.Struct{Name: "task", Size: 32, Members: []btf.Member{
		{Name: "pid", Type: integer},
		{Type: &btf.Typedef{Name: "u", Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "a", Type: long}, {Type: inner}}}}, Offset: 64},
		{Name: "pid", Type: long, Offset: 128}, // C has no second one
		{Name: "last", Type: &btf.Array{Type: long, Index: integer}, Offset: 192},
	}}
	s := spec(t, task, &btf.Union{Name: "both", Size: 4, Members: []btf.Member{{Name: "x", Type: integer}}})
	for name, want := range map[string]int{"task": 1, "both": 0, "none": 0} {
		if got, err := Structs(s, name); len(got) != want || err != nil {
			t.Errorf("Structs(%q) = %v, %v; want %d", name, got, err, want)
		}
	}
	found, err := Structs(s, "task")
	if err != nil || len(found) != 1 {
		t.Fatalf("Structs(task) = %v, %v", found, err)
	}
	var got []string
	for _, m := range Members(found[0], 64) {
		got = append(got, fmt.Sprintf("%s %s %d %d %d %d", m.Name, String(m.Type, ""), m.Offset, m.Size, m.Bits, m.Shift))
	}
	want := []string{
		"pid int 0 4 0 0", "a long 8 8 0 0", "low int 8 4 3 0", "high int 12 4 5 3", "last long [0] 24 0 0 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members, each with type, offset, size, bits and shift (-want +got):\n%s", diff)
	}
}

// BTF does not record the size of a pointer.
func TestMembersOfPointers(t *testing.T) {
	pointer := &btf.Pointer{Target: &btf.Void{}}
	s := &btf.Struct{Members: []btf.Member{
		{Name: "p", Type: &btf.Const{Type: pointer}},
		{Name: "all", Type: &btf.Array{Type: &btf.Array{Type: pointer, Nelems: 2}, Nelems: 3}},
		{Name: "ints", Type: &btf.Array{Type: &btf.Int{Size: 2}, Nelems: 5}},
		{Name: "huge", Type: &btf.Array{Type: &btf.Array{Type: pointer, Nelems: 1 << 20}, Nelems: 1 << 20}},
	}}
	for bits, want := range map[int][]int{64: {8, 48, 10, 0}, 32: {4, 24, 10, 0}} {
		var got []int
		for _, m := range Members(s, bits) {
			got = append(got, m.Size)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sizes for %d bits (-want +got):\n%s", bits, diff)
		}
	}
}

// Sixteen levels of a hundred anonymous members each would be 10^32 visits.
func TestMembersOfTypesThatMultiply(t *testing.T) {
	s := &btf.Struct{Members: []btf.Member{{Name: "x", Type: &btf.Int{Size: 4}}}}
	for range 16 {
		outer := &btf.Struct{}
		for range 100 {
			outer.Members = append(outer.Members, btf.Member{Type: s})
		}
		s = outer
	}
	if got := Members(s, 64); len(got) != 1 || got[0].Name != "x" {
		t.Errorf("members = %v, want x", got)
	}
	loop := &btf.Struct{Members: []btf.Member{{Name: "first", Type: &btf.Int{Size: 4}}}}
	loop.Members = append(loop.Members, btf.Member{Type: loop})
	if got := Members(loop, 64); len(got) != 1 || got[0].Name != "first" {
		t.Errorf("members of a structure in itself = %v, want first", got)
	}
}

func TestParams(t *testing.T) {
	integer := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	printk := &btf.Func{Name: "printk", Type: &btf.FuncProto{Return: integer, Params: []btf.FuncParam{
		{Name: "fmt", Type: &btf.Pointer{Target: &btf.Const{Type: integer}}}, {Type: &btf.Void{}},
	}}}
	none := &btf.Func{Name: "none", Type: &btf.FuncProto{Return: integer}}
	s := spec(t, printk, none)
	for _, tt := range []struct {
		name string
		want []Param
		ok   bool
	}{
		{"printk", []Param{{"fmt", "const int *"}, {"", "..."}}, true},
		{"none", []Param{}, true},
		{"absent", nil, false},
	} {
		got, ok, err := Params(s, tt.name)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok || err != nil {
			t.Errorf("Params(%q): %t, %v (-want +got):\n%s", tt.name, ok, err, diff)
		}
	}
}

func TestReadOfOther(t *testing.T) {
	if s, err := Read([]byte("no BTF")); err == nil || !strings.Contains(err.Error(), "read BTF: ") {
		t.Errorf("Read of other bytes = %v, %v; want an error", s, err)
	}
}

func TestString(t *testing.T) {
	i, v := &btf.Int{Name: "int", Size: 4}, &btf.Void{}
	ptr := func(t btf.Type) btf.Type { return &btf.Pointer{Target: t} }
	s := &btf.Struct{Name: "task_struct"}
	for _, tt := range []struct {
		typ  btf.Type
		want string
	}{
		{i, "int"},
		{ptr(ptr(s)), "struct task_struct **"},
		{ptr(&btf.Const{Type: s}), "const struct task_struct *"},
		{&btf.Const{Type: ptr(s)}, "struct task_struct *const"},
		{ptr(&btf.Const{Type: ptr(v)}), "void *const *"},
		{&btf.TypeTag{Type: ptr(&btf.Fwd{Name: "clone_args"}), Value: "user"}, "struct clone_args *"},
		{&btf.Array{Type: i, Nelems: 4}, "int [4]"},
		{ptr(&btf.Array{Type: i, Nelems: 4}), "int (*)[4]"},
		{&btf.Array{Type: ptr(i), Nelems: 4}, "int *[4]"},
		{ptr(&btf.FuncProto{Return: v}), "void (*)(void)"},
		{ptr(&btf.FuncProto{Return: ptr(i), Params: []btf.FuncParam{{Type: i}, {Type: v}}}), "int *(*)(int, ...)"},
		{&btf.Enum{Name: "pid_type"}, "enum pid_type"},
		{ptr(&btf.Union{}), "union {…} *"},
		{&btf.Typedef{Name: "size_t", Type: i}, "size_t"},
	} {
		if got := String(tt.typ, ""); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	loop := &btf.Pointer{}
	loop.Target = loop
	if got := String(loop, ""); !strings.HasPrefix(got, "?") {
		t.Errorf("a pointer to itself: %q", got)
	}
}
