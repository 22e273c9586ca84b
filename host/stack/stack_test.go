package stack

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/ksym"
)

// frames makes a stack of frames as ftrace prints them, innermost first.
func frames(t testing.TB, lines ...string) Stack {
	t.Helper()
	var s Stack
	for _, l := range lines {
		f, ok := ParseFrame(l)
		if !ok {
			t.Fatalf("ParseFrame(%q) = false, want a frame", l)
		}
		s.Frames = append(s.Frames, f)
	}
	return s
}

func TestParseFrame(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Frame
	}{
		{"kernel_clone+0x1/0x3f0", Frame{Name: "kernel_clone", Offset: 1, Size: 0x3f0, Kind: Function}},
		{"el0_svc_common.constprop.0", Frame{Name: "el0_svc_common.constprop.0", Kind: Function}},
		{"do_one+0x18/0x20 [pktgen]", Frame{Name: "do_one", Offset: 0x18, Size: 0x20, Module: "pktgen", Kind: Function}},
		{"do_one+0x18/0x20 [pktgen] <ffffffffc0001234>", Frame{Name: "do_one", PC: 0xffffffffc0001234, Offset: 0x18, Size: 0x20, Module: "pktgen", Kind: Function}},
		{"do_one+0x18/0x20 [pktgen 0f0e0d]", Frame{Name: "do_one", Offset: 0x18, Size: 0x20, Module: "pktgen", Kind: Function}},
		{"do_one+0x18/0x20 [pktgen 0f0e0d] <ffffffffc0001234>", Frame{Name: "do_one", PC: 0xffffffffc0001234, Offset: 0x18, Size: 0x20, Module: "pktgen", Kind: Function}},
		{"[<0>] kthreadd+0x27d/0x300", Frame{Name: "kthreadd", Offset: 0x27d, Size: 0x300, Kind: Function}},
		{"[<ffffff8008b2d1f4>] __switch_to+0x9c/0xb8", Frame{Name: "__switch_to", PC: 0xffffff8008b2d1f4, Offset: 0x9c, Size: 0xb8, Kind: Function}},
		{"0x7ed0aaf0", Frame{PC: 0x7ed0aaf0, Kind: Unknown}},
		{"<00007f1234567890>", Frame{PC: 0x7f1234567890, Kind: Unknown}},
		{"0", Frame{Kind: Unknown}},
		{"[FTRACE TRAMPOLINE]", Frame{Name: "ftrace_trampoline", Kind: Asm}},
		{"a\x1b[31mb+0x1/0x2", Frame{Name: "a??31mb", Offset: 1, Size: 2, Kind: Function}},
	} {
		got, ok := ParseFrame(c.in)
		if !ok || cmp.Diff(c.want, got) != "" {
			t.Errorf("ParseFrame(%q) = %v, %v\n%s", c.in, got, ok, cmp.Diff(c.want, got))
		}
	}
	for _, in := range []string{"", "   ", "+0x1/0x2", "f+zz/0x2", "0+0x1", "12", "f+0x1/0xq", "0xqq", "f+0x1/0x2 word", "[<zz>] f", "[<12", "a b c d e f", "f [a] [b] [c] [d]", "f id]", "f <zz>", "f 12", "9+0x1/0x2", "f+0x1ffffffffffffffff/0x2"} {
		if got, ok := ParseFrame(in); ok {
			t.Errorf("ParseFrame(%q) = %+v, want none", in, got)
		}
	}
}

func TestTrimAndClassify(t *testing.T) {
	type shape struct {
		TRACE32   string
		Trimmed   int
		Truncated bool
	}
	for _, c := range []struct {
		name  string
		lines []string
		want  shape
	}{
		{"system call, arm64", []string{
			"__traceiter_sched_process_fork+0x48/0x70", "kernel_clone+0x178/0x478", "__do_sys_clone+0x74/0xb0", "el0_svc+0x38/0x148", "el0t_64_sync+0x190/0x198",
		}, shape{"" +
			"-000|kernel_clone(...)\n" +
			"-001|__do_sys_clone(...)\n" +
			"-002|el0_svc(...)\n" +
			"-003|el0t_64_sync(asm)\n" +
			" -->|exception\n" +
			" ---|end of frame\n", 1, false}},
		{"el0_svc in assembly", []string{"_do_fork+0x10/0x20", "__se_sys_clone+0x10/0x20", "el0_svc_handler+0x10/0x20", "el0_svc+0x8/0xc"}, shape{"" +
			"-000|_do_fork(...)\n" +
			"-001|__se_sys_clone(...)\n" +
			"-002|el0_svc_handler(...)\n" +
			"-003|el0_svc(asm)\n" +
			" -->|exception\n" +
			" ---|end of frame\n", 0, false}},
		{"kernel thread, ret_from_fork in C", []string{"kernel_clone+0x5/0x510", "kernel_thread+0x8e/0xc0", "kthreadd+0x27d/0x300", "ret_from_fork+0x2b1/0x340", "ret_from_fork_asm+0x1a/0x30"}, shape{"" +
			"-000|kernel_clone(...)\n" +
			"-001|kernel_thread(...)\n" +
			"-002|kthreadd(...)\n" +
			"-003|ret_from_fork(...)\n" +
			"-004|ret_from_fork_asm(asm)\n" +
			" ---|end of frame\n", 0, false}},
		{"arm, words of the user's registers and the end mark", []string{"do_fork+0x0/0x3c0", "sys_clone+0x2c/0x34", "ret_fast_syscall+0x0/0x54", "0x7ed0aaf0", "0"}, shape{"" +
			"-000|do_fork(...)\n" +
			"-001|sys_clone(...)\n" +
			"-002|ret_fast_syscall(asm)\n" +
			" -->|exception\n" +
			"-003|NUX:0x7ED0AAF0(asm)\n" +
			" ---|end of frame\n", 0, false}},
		{"a call that never returns, an unwinder that gave up", []string{"do_exit+0x20/0x30", "do_group_exit+0x3a/0xa0", "__wake_up_parent+0x0/0x20", "0xffffffc011223344"}, shape{"" +
			"-000|do_exit(...)\n" +
			"-001|do_group_exit(...)\n" +
			"-002|__wake_up_parent(...)  // " + startOfSymbol + "\n" +
			"-003|NSX:0xFFFFFFC011223344(asm)\n" +
			" ---|end of frame  // truncated\n", 0, true}},
		{"an interrupt of the kernel", []string{"f+0x1/0x2", "asm_sysvec_apic_timer_interrupt+0x1/0x2", "g+0x1/0x2", "ret_from_fork+0x22/0x30"}, shape{"" +
			"-000|f(...)\n" +
			"-001|asm_sysvec_apic_timer_interrupt(asm)\n" +
			" -->|exception\n" +
			"-002|g(...)\n" +
			"-003|ret_from_fork(asm)\n" +
			" ---|end of frame\n", 0, false}},
	} {
		s := frames(t, c.lines...)
		s.TrimToCreation()
		s.Classify()
		got := shape{s.TRACE32(), len(s.Trimmed), s.Truncated}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

// TestClassify has frames at the ends of stacks and those that no trace prints.
func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name      string
		frames    []Frame
		want      []Frame
		truncated bool
	}{
		{"nothing but end marks", []Frame{{}, {}}, []Frame{}, true},
		{"an entry alone", []Frame{{Name: "ret_from_fork_asm"}}, []Frame{{Name: "ret_from_fork_asm", Kind: Asm}}, false},
		{"no places known", []Frame{{Name: "f"}, {Name: "g"}}, []Frame{{Name: "f", Kind: Function}, {Name: "g", Kind: Function}}, true},
		{"the first byte of the first", []Frame{{Name: "f", Size: 8}, {Name: "g", Size: 8}}, []Frame{{Name: "f", Size: 8, Kind: Function}, {Name: "g", Size: 8, Kind: Function, Note: startOfSymbol}}, true},
		{"outside an entry that is no exception", []Frame{{Name: "secondary_startup_64"}, {Name: "g", Size: 8}}, []Frame{{Name: "secondary_startup_64", Kind: Asm}, {Name: "g", Size: 8, Kind: Function, Note: startOfSymbol}}, true},
		{"the idle task of a second CPU of arm", []Frame{{Name: "do_idle"}, {Name: "secondary_start_kernel"}, {PC: 0x40301884}}, []Frame{{Name: "do_idle", Kind: Function}, {Name: "secondary_start_kernel", Kind: Function}}, false},
		{"the same with a caller", []Frame{{Name: "start_kernel"}, {Name: "x86_64_start_kernel"}, {PC: 8}}, []Frame{{Name: "start_kernel", Kind: Function}, {Name: "x86_64_start_kernel", Kind: Function}, {PC: 8, Kind: Unknown}}, true},
		{"no address of the kernel's where an unwinder went astray", []Frame{{Name: "kernel_clone"}, {PC: 0x11, Kind: User}}, []Frame{{Name: "kernel_clone", Kind: Function}, {PC: 0x11, Kind: User}}, true},
		{"a page fault of 32-bit arm", []Frame{{Name: "do_PrefetchAbort", Size: 8, Offset: 4}, {Name: "ret_from_exception", Size: 8}, {PC: 0xb6f00000}}, []Frame{{Name: "do_PrefetchAbort", Size: 8, Offset: 4, Kind: Function}, {Name: "ret_from_exception", Size: 8, Kind: Asm, Exception: true}, {PC: 0xb6f00000, Kind: User}}, false},
		{"kinds that are known", []Frame{{Name: "f", Kind: Unknown}, {Name: "g", Kind: Inline}, {Name: "h", Kind: User}}, []Frame{{Name: "f", Kind: Function}, {Name: "g", Kind: Inline}, {Name: "h", Kind: User}}, true},
	} {
		s := Stack{Frames: c.frames}
		s.Classify()
		if d := cmp.Diff(c.want, s.Frames); d != "" || s.Truncated != c.truncated {
			t.Errorf("%s: truncated %t, want %t; -want +got\n%s", c.name, s.Truncated, c.truncated, d)
		}
	}
}

func TestSanitise(t *testing.T) {
	for in, want := range map[string]string{
		"azAZ09_.$":                    "azAZ09_.$",
		"`{@[/:":                       "??????", // beside those in ASCII
		"f\x1b[2J":                     "f??2J",
		strings.Repeat("f", maxName):   strings.Repeat("f", maxName),
		strings.Repeat("f", maxName+1): strings.Repeat("f", maxName),
	} {
		if got := Sanitise(in); got != want {
			t.Errorf("Sanitise(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTrimKeepsAStackWithoutTheFunction(t *testing.T) {
	s := frames(t, "schedule+0x1/0x2", "ret_from_fork+0x1/0x2")
	if s.TrimToCreation() || len(s.Frames) != 2 || len(s.Trimmed) != 0 {
		t.Errorf("TrimToCreation changed a stack without a creation function: %+v", s)
	}
	if entry, creation := s.Index(ksym.FamilyEntry), s.Index(ksym.FamilyCreation); entry != 1 || creation != -1 {
		t.Errorf("Index of the entry, of the creation function = %d, %d; want 1, -1", entry, creation)
	}
}

func TestInsertCaller(t *testing.T) {
	caller, _ := ParseFrame("__do_sys_clone+0x74/0xb0")
	lost := frames(t, "kernel_clone+0x0/0x478", "__arm64_sys_clone+0x28/0x40")
	whole := frames(t, "kernel_clone+0x0/0x478", "__do_sys_clone+0x74/0xb0", "__arm64_sys_clone+0x28/0x40")
	for _, s := range []*Stack{&lost, &whole} {
		s.InsertCaller(0, caller)
		if same, at := SameCalls(s, &whole); !same {
			t.Errorf("after InsertCaller stacks differ at frame %d:\n%s", at, s.Ftrace())
		}
	}
	if lost.Frames[1].Note == "" {
		t.Errorf("an inserted caller has no note")
	}
	for n, want := range []string{"", "kernel_clone __do_sys_clone"} {
		s := frames(t, []string{"kernel_clone+0x0/0x478"}[:n]...)
		s.InsertCaller(0, caller)
		var got []string
		for _, f := range s.Frames {
			got = append(got, f.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("after InsertCaller into %d frames: %q, want %q", n, got, want)
		}
	}
}

func TestSameCalls(t *testing.T) {
	a := frames(t, "f.part.0+0x1/0x2", "g+0x1/0x2", "0x1234", "h+0x1/0x2")
	for _, c := range []struct {
		b    Stack
		same bool
		at   int
	}{
		{frames(t, "f+0x8/0x20", "g", "i", "h"), true, 0},
		{frames(t, "f", "h"), false, 1},
		{frames(t, "f", "g", "i"), false, 3},
		{frames(t, "f", "g", "i", "h", "j"), false, 4},
	} {
		if same, at := SameCalls(&a, &c.b); same != c.same || at != c.at {
			t.Errorf("SameCalls with\n%s= %v, %d, want %v, %d", c.b.Ftrace(), same, at, c.same, c.at)
		}
	}
}

// TestInterrupted: a frame that is at a function's first instruction gets a note,
// for nothing can return there, unless an exception stopped it at that instruction.
func TestInterrupted(t *testing.T) {
	at := func(name string, offset uint64) Frame { return Frame{Name: name, Offset: offset, Size: 0x100} }
	s := Stack{Frames: []Frame{at("irq_handler", 0x10), at("el1h_64_irq", 0x10), at("stopped", 0), at("caller", 0)}}
	s.Classify()
	if f := s.Frames[2]; f.Note != "" {
		t.Errorf("the stopped frame is %+v; want no note", f)
	}
	if f := s.Frames[3]; f.Note != startOfSymbol {
		t.Errorf("the caller is %+v; want a note", f)
	}
}

func TestJSON(t *testing.T) {
	s := frames(t, "x+0x1/0x2", "kernel_clone+0x5/0x510 [m]", "ret_from_fork_asm+0x1a/0x30")
	s.TrimToCreation()
	s.Classify()
	s.Origin = "sched_process_fork"
	s.Frames[0].Args = []Arg{{Name: "flags", Value: "0"}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Stack
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Errorf("through JSON: -want +got\n%s", d)
	}
	if want := `"kind":"asm"`; !strings.Contains(string(b), want) {
		t.Errorf("JSON is %s, want %s in it", b, want)
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, s := range []string{"kernel_clone+0x1/0x3f0", "f+0x18/0x20 [m] <ffff1234>", "[<0>] kthreadd+0x27d/0x300", "0x7ed0aaf0", "0", "[FTRACE TRAMPOLINE]", "f [m 12]", "0 [m]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseFrame(s)
		if !ok {
			return
		}
		if Sanitise(got.Name) != got.Name || Sanitise(got.Module) != got.Module || len(got.Name) > maxName {
			t.Errorf("ParseFrame(%q) = %+v, not sanitised", s, got)
		}
		again, ok := ParseFrame(got.String())
		if !ok || again.Name != got.Name || again.Module != got.Module {
			t.Errorf("ParseFrame(%q) = %+v, %v, want %+v again", got.String(), again, ok, got)
		}
	})
}

// A function that has returned stands above its caller, which the kernel may leave out.
func TestReturned(t *testing.T) {
	function, _ := ParseFrame("path_openat")
	caller, _ := ParseFrame("do_file_open+0xb4/0x180")
	want := frames(t, "path_openat", "do_file_open+0xb4/0x180", "do_sys_openat2+0x98/0x100")
	for _, lines := range [][]string{
		// 6.12 on amd64, 7.2 on arm64
		{"do_file_open+0xb4/0x180", "do_sys_openat2+0x98/0x100"},
		{"fexit_dispatcher+0x1/0x2", "fprobe_return+0x1/0x2", "ftrace_return_to_handler+0x1/0x2", "return_to_handler+0x1/0x2", "do_sys_openat2+0x98/0x100"},
	} {
		s := frames(t, lines...)
		s.Returned(function, caller)
		if same, at := SameCalls(&s, &want); !same || len(s.Frames) != 3 || s.Frames[0].Note != "has returned" {
			t.Errorf("%q: differs at frame %d:\n%s", lines, at, s.Ftrace())
		}
	}
}
