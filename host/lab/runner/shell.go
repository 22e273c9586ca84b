package runner

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/trace"
	"labctl/host/trace/plan"
	"labctl/host/vm"
)

// Guide is what a learner finds at a shell.
type Guide struct {
	Trace     string   // the guest's file with the trace that is armed
	Lines     []string // what the lab's steps run, as one would type it
	NotBuilt  []string // steps whose program this host has no compiler for
	NotTraced []string // what the kernel would not trace
}

// Ready makes a machine ready for a learner at a shell: the programs of the lab's
// steps are there, and its trace is armed and stays so.
func Ready(ctx context.Context, v *vm.VM, k *kernel.Kernel, l *lab.Lab) (*Guide, error) {
	programs, lacking, remove, err := buildSteps(ctx, l, v.Hello().Arch)
	defer remove()
	if err != nil {
		return nil, err
	}
	var files program.Bundle
	if err := add(&files, slices.Collect(maps.Values(programs))...); err != nil {
		return nil, err
	}
	if err := files.Send(ctx, v.Agent()); err != nil {
		return nil, err
	}
	g := &Guide{}
	for _, s := range l.Steps {
		switch {
		case s.Shell != "":
			g.Lines = append(g.Lines, s.Shell)
		case lacking[s.Program] != "":
			g.NotBuilt = append(g.NotBuilt, fmt.Sprintf("%s: %s", s.ID, lacking[s.Program]))
		default:
			argv := argvOf(s, programs)
			if s.Probe != "" {
				argv[0] = "labprobe" // which is in the shell's PATH
			}
			g.Lines = append(g.Lines, quoted(argv))
		}
	}
	if !l.Trace.On() {
		return g, nil
	}
	g.Trace = path.Join(v.Hello().Tracefs, "instances", plan.Instance, "trace")
	r := request(l.Trace)
	r.Hold = true     // what is shipped is gone from the learner's eyes
	r.PIDOnly = false // the shell and all that it runs
	_, c, err := trace.Start(ctx, v, k, r)
	if err != nil {
		return nil, err
	}
	g.NotTraced = missed(c.Armed)
	return g, nil
}

// quoted is a command as a shell takes it.
func quoted(argv []string) string {
	var out []string
	for _, a := range argv {
		if a == "" || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%") != "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}
