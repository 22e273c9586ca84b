package expr

import (
	"strings"
	"testing"

	"labctl/host/lab/result"
)

// looked is a step with two looks, the second twice.
func looked() Input {
	in := input()
	in.Steps[0].Looks = []result.Look{{
		At: "shared", Said: map[string][]int64{"child": {11}, "page": {0x1000, 0x2000}, "one": {0x1000}},
		Tasks:  []result.OutsideTask{{TID: 11, Comm: "prog", Own: true, Stack: -0x8000, StackSize: 0x4000, StackEnd: 0x57ac6e9d}},
		Stacks: []result.OutsideStack{{Of: "child", Stack: stackOf("schedule", "do_sigtimedwait")}, {Of: "other", Error: "there is no task 12, other"}},
		Maps:   []result.OutsideMaps{{Of: "child", Areas: []result.OutsideArea{{Start: 0x1000, End: 0x3000, Perms: "rw-p"}, {Start: -0x2000, End: -0x1000}}}},
		Pages: []result.OutsidePage{
			{Of: "child", Name: "page", Address: 0x1000, Mapped: true, PFN: 5, Maps: 2, Bits: []string{"USER", "RO"}},
			{Of: "child", Name: "page", Address: 0x2000, Why: "not mapped"},
			{Of: "child", Name: "one", Address: 0x1000, Mapped: true, PFN: 5},
			{Of: "self", Name: "one", Error: "task 9, self, is not the program's"},
		},
		Structs: []result.OutsideStruct{
			{Of: "child", Type: "task_struct", Address: -0x100, Members: []result.OutsideMember{
				{Name: "__state", There: true, Offset: 24, Number: 1, Text: "1"}, {Name: "state"}, {Name: "mm->pgd", There: true, Error: "mm: the pointer is null"}}},
			{Of: "child", Type: "mm_struct", Error: "mm is null"},
		},
	}, {At: "twice"}, {At: "twice"}, {At: "bad", Error: "torn"}}
	return in
}

func TestOutside(t *testing.T) {
	e := env(t)
	for _, tt := range []struct {
		source, err string // it holds, or the error
	}{
		{`fork.looks.size() == 4 && fork.looks[0].at == "shared"`, ""},
		{`fork.look("shared").num("child") == 11`, ""},
		{`fork.look("shared").num("page") == 11`, "the program names 2 of page; want one"},
		{`fork.look("shared").num("x") == 11`, "does not say what x is"},
		{`fork.look("nowhere").at == ""`, "step fork did not come to the point nowhere"},
		{`fork.look("twice").at == ""`, "came to the point twice 2 times"},
		{`fork.look("bad").at == ""`, "at the point bad of step fork: torn"},
		{`fork.look("shared").task("child").stack_end == 0x57ac6e9d && fork.look("shared").task("child").own`, ""},
		{`cel.bind(t, fork.look("shared").task("child"), t.stack < t.stack + t.stack_size && hex(t.stack) == "0xffffffffffff8000")`, ""},
		{`fork.look("shared").stack("child").stack.calls("schedule", "do_sigtimedwait")`, ""},
		{`fork.look("shared").stack("other").tid == 0`, "there is no task 12, other"},
		{`fork.look("shared").stack("self").tid == 0`, "there are 0 readings: stack of self; want one"},
		{`fork.look("shared").maps("child").area(0x2fff).perms == "rw-p"`, ""},
		{`fork.look("shared").maps("child").area(0x3000).perms == ""`, "no memory area of child has the address 0x3000"},
		{`fork.look("shared").pages("child", "page").map(p, p.mapped) == [true, false]`, ""},
		{`fork.look("shared").page("child", "one").pfn == 5`, ""},
		{`fork.look("shared").page("child", "page").pfn == 5`, "2 readings: page of child; want one"},
		{`fork.look("shared").page("self", "one").mapped`, "is not the program's"},
		{`fork.look("shared").pages("self", "one").size() == 0`, "is not the program's"},
		{`"RO" in fork.look("shared").pages("child", "page")[0].bits`, ""},
		{`cel.bind(s, fork.look("shared").struct("child", "task_struct"), s.has("__state") && !s.has("state") && s.num("__state") == 1 && s.text("__state") == "1" && s.at("__state").offset == 24)`, ""},
		{`fork.look("shared").struct("child", "task_struct").num("state") == 0`, "this kernel's task_struct has no member state"},
		{`fork.look("shared").struct("child", "task_struct").num("mm->pgd") == 0`, "the pointer is null"},
		{`fork.look("shared").struct("child", "task_struct").has("comm")`, "comm was not read, but __state, state, mm->pgd"},
		{`fork.look("shared").struct("child", "mm_struct").has("mmap")`, "mm is null"},
	} {
		x, err := e.Compile(tt.source, Bool)
		if err != nil {
			t.Errorf("Compile(%s): %v", tt.source, err)
			continue
		}
		v, err := x.Eval(looked())
		if v.True != (tt.err == "") || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s = %t, %v; want error with %q", tt.source, v.True, err, tt.err)
		}
	}
}
