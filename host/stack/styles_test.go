package stack

import (
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/golden"
)

// samples are stacks that show what each style has to say.
func samples(t *testing.T) []Stack {
	clone := frames(t, "kernel_clone+0x0/0x478 <ffffffff810a5d20>", "__do_sys_clone+0x6b/0x90 <ffffffff810a5e8b>",
		"do_syscall_64+0x55/0x80 <ffffffff81a00a05>", "entry_SYSCALL_64_after_hwframe+0x6e/0xd8 <ffffffff81c00076>")
	clone.Frames[0].Args = []Arg{{"flags", "CLONE_VM|CLONE_VFORK"}, {"exit_signal", "17"}}
	clone.Classify()

	// As ftrace's text has it: no addresses, a module, cut short.
	cut := frames(t, "virtqueue_kick+0x10/0x30 [virtio_ring]", "helper", "worker.constprop.0+0x44/0x80", "next_symbol+0x0/0x20")
	cut.Frames[1].Kind = Inline
	cut.Classify()

	whole := frames(t, "show_args", "0xdead <000000000000dead>", "el0_svc+0x4/0x8 <ffff800008012340>")
	whole.Frames[0].Args, whole.Frames[0].AllArgs = []Arg{{"", "1"}, {"b", "?"}}, true
	whole.Frames = append(whole.Frames, Frame{Kind: User, PC: 0xaaaa0000})
	whole.Classify()
	return []Stack{clone, cut, whole}
}

func TestStyles(t *testing.T) {
	for _, style := range Styles {
		var b strings.Builder
		for _, s := range samples(t) {
			b.WriteString(style.Print(&s) + "\n")
		}
		golden.Check(t, filepath.Join("testdata", style.Name+".txt"), b.String())
	}
}

// TestStylesTellATruncatedStack: none hides that frames are missing, and none
// says so of a whole stack.
func TestStylesTellATruncatedStack(t *testing.T) {
	for _, style := range Styles {
		s := samples(t)[0]
		whole := style.Print(&s)
		s.Truncated = true
		cut := style.Print(&s)
		if style.Name == "ftrace" { // has no word for it
			continue
		}
		if whole == cut || !strings.Contains(cut, "truncated") && !strings.Contains(cut, "stopped") {
			t.Errorf("%s prints a truncated stack as\n%s", style.Name, cut)
		}
	}
}

func TestFindStyle(t *testing.T) {
	if s, ok := FindStyle("drgn"); !ok || s.Name != "drgn" {
		t.Errorf(`FindStyle("drgn") = %q, %v`, s.Name, ok)
	}
	if _, ok := FindStyle("trac32"); ok {
		t.Error(`FindStyle("trac32") = true`)
	}
}

func TestTrimMachinery(t *testing.T) {
	for _, c := range []struct {
		name, at string
		frames   []string
		want     string // what is left
		trimmed  int
	}{
		{"trace point", "", []string{"trace_event_raw_event_sched_switch+0x1/0x2", "__traceiter_sched_switch", "__schedule+0x2f0/0x8d0", "schedule"}, "__schedule schedule", 2},
		{"with generated code", "", []string{"0xffffffffc0203077", "function_stack_trace_call", "0xffffffffc0203000", "do_exit", "do_group_exit"}, "do_exit do_group_exit", 3},
		{"a function of a known name", "do_exit", []string{"anything", "0xffffffffc0203000", "do_exit.cold", "do_group_exit"}, "do_exit.cold do_group_exit", 2},
		{"a known name that is not there", "do_exit", []string{"ftrace_call", "x"}, "x", 1},
		{"a probe's trap", "", []string{"kprobe_trace_func", "kprobe_dispatcher", "kprobe_int3_handler", "exc_int3", "asm_exc_int3", "do_exit"}, "do_exit", 5},
		{"nothing to trim", "", []string{"schedule", "0x1234", "ftrace_caller"}, "schedule  ftrace_caller", 0},
		{"an address without machinery", "", []string{"0x1234", "schedule"}, " schedule", 0},
		{"nothing else", "", []string{"ftrace_caller", "0x1234"}, "ftrace_caller ", 0},
		{"empty", "x", nil, "", 0},
	} {
		s := frames(t, c.frames...)
		s.TrimMachinery(c.at)
		var left []string
		for _, f := range s.Frames {
			left = append(left, f.Name)
		}
		if got := strings.Join(left, " "); got != c.want || len(s.Trimmed) != c.trimmed {
			t.Errorf("%s: left %q, trimmed %d; want %q, %d", c.name, got, len(s.Trimmed), c.want, c.trimmed)
		}
	}
}
