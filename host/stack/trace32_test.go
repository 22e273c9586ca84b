package stack

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// printed is what TRACE32's notation keeps of a stack.
func printed(s Stack) Stack {
	out := Stack{Truncated: s.Truncated}
	for _, f := range s.Frames {
		kept := Frame{Name: f.Name, Kind: f.Kind, Exception: f.Exception, Note: f.Note}
		switch {
		case f.Name == "":
			kept.PC = f.PC
		case f.Kind == Function || f.Kind == Unknown:
			kept.Kind, kept.Args, kept.AllArgs = Function, f.Args, f.AllArgs
		case f.Kind == User:
			kept.Kind, kept.AllArgs = Function, f.AllArgs
		}
		out.Frames = append(out.Frames, kept)
	}
	return out
}

func TestTRACE32RoundTrip(t *testing.T) {
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
	text := s.TRACE32()
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
	if d := cmp.Diff(want, text); d != "" {
		t.Fatalf("TRACE32: -want +got\n%s", d)
	}
	back, err := ParseTRACE32(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Stack{printed(s)}, back); d != "" {
		t.Errorf("read back: -want +got\n%s", d)
	}
}

// TestParseTRACE32Pastes reads the forms in which stacks reach mailing lists.
func TestParseTRACE32Pastes(t *testing.T) {
	for _, c := range []struct {
		name, paste string
		want        []string // TRACE32 of each stack
	}{
		{"quoted in a mail, wrapped, with comments and two stacks", `
On Tue, somebody wrote:
> B::v.f_/task_0xFFFFFFC6609AA1C0
> -000|__switch_to(prev = 0xFFFFFFC6609AA1C0, ?)
> -001|context_switch(inline)
> -001|__schedule(?)
> -002|mutex_lock(lock = 0xFFFFFFC660447460)   //us->dev_mutex
> -003|transport(us = 0xFFFFFFC660447460,
> pipe = 3221291648, sg = 0xFFFFFFC65D6415D0, ?, length = 512,
> act_len = 0xFFFFFF801258BC90)
> -004|ret_from_fork(asm)
>  ---|end of frame
>
> and the other:
>
> -000|schedule()
> -001|kthread([X20] _create = 0xFFFFFFE1AFB26380)
> ---|end of frame
`, []string{"" +
			"-000|__switch_to(prev = 0xFFFFFFC6609AA1C0, ?)\n" +
			"-001|context_switch(inline)\n" +
			"-001|__schedule(?)\n" +
			"-002|mutex_lock(lock = 0xFFFFFFC660447460)  // us->dev_mutex\n" +
			"-003|transport(us = 0xFFFFFFC660447460, pipe = 3221291648, sg = 0xFFFFFFC65D6415D0, ?, length = 512, act_len = 0xFFFFFF801258BC90)\n" +
			"-004|ret_from_fork(asm)\n" +
			" ---|end of frame\n",
			"-000|schedule()\n" +
				"-001|kthread(_create = 0xFFFFFFE1AFB26380)\n" +
				" ---|end of frame\n"}},
		{"from a system call, user mode in 32 bits", `
-000|compat_sys_ioctl(fd = 0xA7, cmd = 0xF502, ?)
-001|__sys_trace(asm)
-002|NSX:0xFFFFFFBFFE7FC7C0(asm)
 -->|exception
-003|NUR:0xEDD8236C(asm)
 ---|end of frame`, []string{"" +
			"-000|compat_sys_ioctl(fd = 0xA7, cmd = 0xF502, ?)\n" +
			"-001|__sys_trace(asm)\n" +
			"-002|NSX:0xFFFFFFBFFE7FC7C0(asm)\n" +
			" -->|exception\n" +
			"-003|NUX:0xEDD8236C(asm)\n" +
			" ---|end of frame\n"}},
		{"with locals, locations and an address space", `
-000|cpu_stopper_thread(cpu = ?)
    |  cpu = ?
    |  fn = 0xFFFFFFDB77DD74C4
    |  param = (sched_priority = 0)
-001|smpboot_thread_fn(:data = 0xFFFFFF8805C06230, [NSD:0xFFFFFF80088CBBC8] td = 0x0)
    |  ret = ???
-002|NSX:0x0::0xFFFFFFFFFF5F8000(asm)
`, []string{"" +
			"-000|cpu_stopper_thread(cpu = ?)\n" +
			"-001|smpboot_thread_fn(data = 0xFFFFFF8805C06230, td = 0x0)\n" +
			"-002|NSX:0xFFFFFFFFFF5F8000(asm)\n" +
			" ---|end of frame\n"}},
		{"the first dash lost, the number repeated, a line cut off", `
000|f(a = 1,
000|b = 2)
-001|g(from = 0xFFFFFF80088CBD88, [NSD:0xFFFFFF80088CBBC8] get_new_p
-002|h()
-000|next()`, []string{"" +
			"-000|f(a = 1, b = 2)\n" +
			"-001|g(from = 0xFFFFFF80088CBD88, get_new_p, ...)\n" +
			"-002|h()\n" +
			" ---|end of frame\n",
			"-000|next()\n" +
				" ---|end of frame\n"}},
		{"a wrapped value with its own bars", "-000|kernel_clone(flags =\nCLONE_VM|CLONE_VFORK, ...)\n", []string{"" +
			"-000|kernel_clone(flags = CLONE_VM|CLONE_VFORK, ...)\n" +
			" ---|end of frame\n"}},
	} {
		got, err := ParseTRACE32(c.paste)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var text []string
		for i := range got {
			text = append(text, got[i].TRACE32())
		}
		if d := cmp.Diff(c.want, text); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestParseTRACE32RefusesOtherText(t *testing.T) {
	for _, in := range []string{"", "no stack here", "-12|f()", "-000|", "-000|an idea (or two)", " ---|end of frame"} {
		if got, err := ParseTRACE32(in); err == nil {
			t.Errorf("ParseTRACE32(%q) = %+v, want an error", in, got)
		}
	}
	if _, err := ParseTRACE32(strings.Repeat("-000|f()\n", maxFrames+2)); err == nil {
		t.Errorf("ParseTRACE32 of %d frames: want an error", maxFrames+2)
	}
}

func FuzzParseTRACE32(f *testing.F) {
	f.Add("-000|kernel_clone(flags = CLONE_VM|CLONE_VFORK, exit_signal = 17, ...)\n-001|el0t_64_sync(asm)\n -->|exception\n ---|end of frame  // truncated\n")
	f.Add("> -000|a(inline)\n> -000|b([X19] c = (d = 1),\n> e = ?)\n> -001|NSX:0x0::0xFF(asm)\n>     |  x = y\n")
	f.Add("000|f(a\n000|b)//n\n-000|g(")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ParseTRACE32(in)
		if err != nil {
			return
		}
		for i := range got {
			// What was read is printable ASCII up to the notes, and its print
			// is read back as the same.
			first := got[i].TRACE32()
			again, err := ParseTRACE32(first)
			if err != nil || len(again) != 1 {
				t.Fatalf("own output is read as %d stacks, %v\n%s", len(again), err, first)
			}
			if d := cmp.Diff(first, again[0].TRACE32()); d != "" {
				t.Errorf("own output is read as another: -want +got\n%s", d)
			}
			for _, fr := range got[i].Frames {
				for _, a := range append([]Arg{{fr.Name, fr.Module}}, fr.Args...) {
					if strings.ContainsFunc(a.Name+a.Value, func(r rune) bool { return r < ' ' || r > '~' }) {
						t.Errorf("frame %+v is not printable ASCII", fr)
					}
				}
			}
		}
	})
}
