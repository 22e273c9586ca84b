package session

import (
	"testing"

	"labctl/host/stack"
	"labctl/host/trace/creation"
)

func TestGap(t *testing.T) {
	frames := func(names ...string) (out []stack.Frame) {
		for _, n := range names {
			out = append(out, stack.Frame{Name: n, Kind: stack.Function})
		}
		return out
	}
	for _, tt := range []struct {
		name string
		c    creation.Creation
		want string
	}{
		{"whole", creation.Creation{Symbol: "_do_fork", Via: "clone",
			Stack: stack.Stack{Frames: frames("_do_fork", "SyS_clone", "do_syscall_64", "entry_SYSCALL_64_after_hwframe")}}, ""},
		{"none", creation.Creation{Symbol: "_do_fork"}, "there is none"},
		{"without its start", creation.Creation{Symbol: "_do_fork", Stack: stack.Stack{Frames: frames("do_syscall_64")}},
			"it does not start at the function that creates tasks"},
		{"without its end", creation.Creation{Symbol: "_do_fork", Via: "clone", Stack: stack.Stack{Frames: frames("_do_fork", "SyS_clone"), Truncated: true}},
			"it ends at SyS_clone, inside the kernel"},
		{"a tail call", creation.Creation{Symbol: "_do_fork", Stack: stack.Stack{Frames: frames("_do_fork", "do_syscall_64", "entry_SYSCALL_64_after_hwframe")}},
			"it lacks the function of the system call"},
	} {
		if got := gap(&tt.c); got != tt.want {
			t.Errorf("%s: %q; want %q", tt.name, got, tt.want)
		}
	}
}
