package record

import (
	"labctl/guest/wire"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/hist"
	"labctl/host/trace/plan"
	"labctl/host/trace/tasks"
)

// Trace is a program's run under a capture.
type Trace struct {
	Preset string           `json:"preset,omitempty"`
	Script *Script          `json:"script,omitempty"`
	Argv   []string         `json:"argv"`           // the program as the guest ran it
	Exit   *wire.ExecResult `json:"exit,omitempty"` // nil when it did not come to its end
	// Lines say of everything that was asked for as what it was armed, or why
	// not.
	Lines []plan.Line        `json:"lines"`
	Armed *wire.CaptureArmed `json:"armed,omitempty"` // the capture as a whole
	CPUs  []TraceCPU         `json:"cpus,omitempty"`
	// Truncated says why the capture ended before the program did.
	Truncated string `json:"truncated,omitempty"`
	// Left is the bytes that were recorded and not shipped, because of a bound.
	Left int64 `json:"left,omitempty"`
	// Damage are the first places of the trace that could not be read, Damaged
	// counts them all.
	Damage   []string        `json:"damage,omitempty"`
	Damaged  int64           `json:"damaged,omitempty"`
	Timeline *tasks.Timeline `json:"timeline,omitempty"`
	Sleepers *Sleepers       `json:"sleepers,omitempty"`
	// Hists are the kernel's histograms, in the order in which their events were first asked
	// for.
	Hists []hist.Histogram `json:"hists,omitempty"`
}

// Script is the shell script that armed the trace.
type Script struct {
	Name string           `json:"name"`
	Exit *wire.ExecResult `json:"exit,omitempty"` // nil when it did not come to its end
	// Names are what it wrote to tracefs, in its order, and what became of that.
	Names []wire.TraceName `json:"names"`
	// Unread says why not all of the names are here.
	Unread string `json:"unread,omitempty"`
}

// TraceCPU counts one CPU's events.
type TraceCPU struct {
	CPU    int   `json:"cpu"`
	Bytes  int64 `json:"bytes"` // of pages
	Events int64 `json:"events"`
	Lost   int64 `json:"lost,omitempty"`
}

// Lost is how many events are known to be missing.
func (t *Trace) Lost() (n int64) {
	for _, c := range t.CPUs {
		n += c.Lost
	}
	return n
}

// Count is how many events were read.
func (t *Trace) Count() (n int64) {
	for _, c := range t.CPUs {
		n += c.Events
	}
	return n
}

// Sleepers are stacks of tasks that slept while the program ran, looked at over
// and over again.
type Sleepers struct {
	Samples int     `json:"samples"`
	Places  []Place `json:"places"` // most seen first
	// Moved counts looks at tasks that did not hold still.
	Moved int64 `json:"moved,omitempty"`
}

// Place is where tasks slept.
type Place struct {
	Count  int64       `json:"count"` // how often a task was seen there
	State  string      `json:"state"` // "S", "D", "I" as ps(1) has it
	Kernel bool        `json:"kernel,omitempty"`
	Stack  stack.Stack `json:"stack"`
	// Tasks are the first that were seen there, at most 20.
	Tasks []creation.Task `json:"tasks"`
}
