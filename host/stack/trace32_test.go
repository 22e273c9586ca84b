package stack

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTRACE32(t *testing.T) {
	s := Stack{Truncated: true, Frames: []Frame{
		{Name: "kernel_clone", Kind: Function, Args: []Arg{{"flags", "CLONE_VM|CLONE_VFORK"}, {"exit_signal", "17"}}},
		{Name: "context_switch", Kind: Inline},
		{Name: "__schedule", Kind: Function, AllArgs: true, Args: []Arg{{"", "?"}, {"p", "(a = 1, b = (c = 2))"}}},
		{Name: "schedule", Kind: Function, AllArgs: true},
		{Name: "do_group_exit.part.0", Kind: Function, Note: startOfSymbol},
		{PC: 0xffffffc011223344, Kind: Unknown},
		{Name: "el0t_64_sync", Kind: Asm, Exception: true},
		{PC: 0x7ed0aaf0, Kind: User},
	}}
	want := "" +
		"-000|kernel_clone(flags = CLONE_VM|CLONE_VFORK, exit_signal = 17, ...)\n" +
		"-001|context_switch(inline)\n" +
		"-001|__schedule(?, p = (a = 1, b = (c = 2)))\n" +
		"-002|schedule()\n" +
		"-003|do_group_exit.part.0(...)  // " + startOfSymbol + "\n" +
		"-004|NSX:0xFFFFFFC011223344(asm)\n" +
		"-005|el0t_64_sync(asm)\n" +
		" -->|exception\n" +
		"-006|NUX:0x7ED0AAF0(asm)\n" +
		" ---|end of frame  // truncated\n"
	if d := cmp.Diff(want, s.TRACE32()); d != "" {
		t.Errorf("TRACE32: -want +got\n%s", d)
	}
}
