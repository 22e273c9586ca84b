package task

import (
	"strings"
	"testing"

	"labctl/host/stack"
)

func TestCommon(t *testing.T) {
	for _, tt := range []struct{ name, first, second, want string }{
		{"at rest", "f sys_a entry", "f sys_a entry", "f sys_a entry"},
		{"an interrupt at the second look", "f sys_a entry", "tick irq f sys_a entry", "f sys_a entry"},
		{"an interrupt at the first look", "tick irq f sys_a entry", "f sys_a entry", "f sys_a entry"},
		{"what it calls in turn", "g f sys_a entry", "h f sys_a entry", "f sys_a entry"},
		{"an interrupt's handler does not end", "x irq f sys_a entry", "y x irq f sys_a entry", "x irq f sys_a entry"},
		{"from one system call to the next", "f sys_a entry", "g sys_b entry", "g sys_b entry"},
		{"nothing in common", "f kthread", "g worker", "g worker"},
		{"user mode at first", "", "f sys_a entry", "f sys_a entry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range common(frames(tt.first), frames(tt.second)).Frames {
				got = append(got, f.Name)
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("common(%q, %q): got %q, want %q", tt.first, tt.second, got, tt.want)
			}
		})
	}
}

// frames is a stack of functions, innermost first.
func frames(names string) (s stack.Stack) {
	for _, name := range strings.Fields(names) {
		s.Frames = append(s.Frames, stack.Frame{Name: name})
	}
	return s
}

// TestInterrupted: a handler that ends is not what keeps a CPU.
func TestInterrupted(t *testing.T) {
	exception := func(names string) stack.Stack {
		s := frames(names)
		for i, f := range s.Frames {
			s.Frames[i].Exception = strings.HasPrefix(f.Name, "irq") || f.Name == "entry"
		}
		return s
	}
	for _, tt := range []struct{ in, want string }{
		{"tick irq f sys_a entry", "f sys_a entry"},
		{"tick irq2 g softirq irq f sys_a entry", "g softirq irq f sys_a entry"},
		{"f sys_a entry", "f sys_a entry"}, // from user mode
		{"f kthread", "f kthread"},
		{"", ""},
	} {
		var got []string
		for _, f := range interrupted(exception(tt.in)).Frames {
			got = append(got, f.Name)
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("interrupted(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}
