package session

import (
	"context"
	"fmt"
	"strings"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/targets"
	"labctl/host/trace/creation"
)

// SelfTest is what a kernel that was just built shows of itself.
type SelfTest struct {
	// Why says why the kernel was not tested; the other fields are empty then.
	Why string `json:"not_tested,omitempty"`
	// Stack is the calls by which a fork came to be, innermost first.
	Stack []string `json:"stack,omitempty"`
	// Gap says what the stack lacks; empty if it is whole.
	Gap string `json:"gap,omitempty"`
	// Skipped is how many of the innermost functions the stacks of events lack.
	Skipped int `json:"skipped_frames,omitempty"`
}

// Test boots a kernel and takes the stack of a fork. A kernel that cannot be traced, as
// one without the options for it, is not tested.
func Test(ctx context.Context, env Env, k *kernel.Kernel) (SelfTest, error) {
	t, err := machine.FindTarget(k.Arch, "")
	if err != nil {
		return SelfTest{}, err
	}
	if lacks := machine.Lacks(t, k, "trace"); len(lacks) > 0 {
		return SelfTest{Why: strings.Join(lacks, "; ")}, nil
	}
	return selfTest(ctx, env, k, t)
}

func selfTest(ctx context.Context, env Env, k *kernel.Kernel, t targets.Target) (test SelfTest, err error) {
	s, err := Probes(ctx, env, ProbeOptions{
		Options: Options{Name: "self-test", Keep: KeepNothing, Spec: machine.Spec{Kernel: k.Ref.String(), Arch: t.Arch}},
		Names:   []string{"fork"},
	})
	for _, p := range s.Run.Probes {
		if p.Result == nil || len(p.Creations) == 0 {
			continue
		}
		// What else the probe and the kernel disagree on is for probe run to say.
		c := &p.Creations[0]
		for _, f := range c.Stack.Frames {
			test.Stack = append(test.Stack, f.Name)
		}
		test.Gap, test.Skipped = gap(c), c.Skipped
		return test, nil
	}
	if err == nil {
		test.Gap = "the trace has no creation of a task"
	}
	return test, err
}

// gap says what a creation's stack lacks; empty if it is whole.
func gap(c *creation.Creation) string {
	n := len(c.Stack.Frames)
	switch {
	case n == 0:
		return "there is none"
	case c.Symbol == "" || c.Stack.Frames[0].Base() != c.Symbol:
		return "it does not start at the function that creates tasks"
	case c.Stack.Truncated:
		return fmt.Sprintf("it ends at %s, inside the kernel", c.Stack.Frames[n-1].Name)
	case c.Via == "":
		return "it lacks the function of the system call"
	}
	return ""
}
