package trace

import (
	"context"
	"errors"
	"slices"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/plan"
	"labctl/host/trace/preset"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Checks is what presets came to on one machine.
type Checks struct {
	Arch    string  `json:"arch"`    // GOARCH
	Release string  `json:"release"` // of the kernel
	Presets []Check `json:"presets"`
}

// Check is one preset, armed and run for real.
type Check struct {
	preset.Preset
	Lines  []plan.Line `json:"lines"` // of what it asks for, the tree's own left out
	Tracer string      `json:"armed_tracer"`
	Events int64       `json:"recorded"` // events, without the tree's own
	Lost   int64       `json:"lost,omitempty"`
	Error  string      `json:"error,omitempty"` // why it did not run
}

// Armed counts what is armed of what was asked for.
func (c *Check) Armed() (armed, asked int) {
	for i := range c.Lines {
		if l := &c.Lines[i]; l.Asked() {
			asked++
			if !l.Missing() {
				armed++
			}
		}
	}
	return armed, asked
}

// program is what a preset is tried with: it makes a task, waits for it, reads and
// writes.
var program = []string{"/labctl/labprobe", "fork"}

// Try arms a preset, runs a program and counts what was recorded. The error is
// one of the guest; what the preset lacks is in the Check.
func Try(ctx context.Context, v *vm.VM, k *kernel.Kernel, p preset.Preset) (Check, error) {
	c := Check{Preset: p}
	var r plan.Request
	r.Add(p)
	look, err := Look(ctx, v, k, r)
	if err != nil {
		return c, err
	}
	planned, err := plan.Make(r, look)
	if err != nil {
		c.Error = err.Error()
		return c, nil
	}
	params := wire.ExecParams{Argv: program}
	if p.PIDOnly {
		params.Instance = plan.Instance
	}
	var t record.Trace
	res, err := Run(ctx, v, k, planned, &t, false, nil, func() (wire.ExecResult, error) {
		return v.Agent().Exec(ctx, params, agent.IO{})
	})
	if res != nil {
		defer res.Close()
		err = errors.Join(err, Read(&t, res.Capture, nil, stack.Style{}))
	}
	c.Lines, c.Lost = t.Lines, t.Lost()
	var refused *agent.GuestError
	if errors.As(err, &refused) && v.Context().Err() == nil {
		c.Error = refused.Msg
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.Tracer = t.Armed.Tracer
	wanted := asked(&t)
	for name, n := range t.Timeline.Events {
		if wanted(name) || p.Tasks && slices.Contains(plan.Own, name) || isGraph(name) {
			c.Events += n
		}
	}
	return c, nil
}

// isGraph tells the events of the function_graph tracer
// (kernel/trace/trace_entries.h).
func isGraph(name string) bool {
	return name == "funcgraph_entry" || name == "funcgraph_exit" || name == "fgraph_retaddr_entry"
}
