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
	Preset  string           `json:"preset,omitempty"`
	Script  *Script          `json:"script,omitempty"`
	Argv    []string         `json:"argv"`               // the program as the guest ran it
	Exit    *wire.ExecResult `json:"exit,omitempty"`     // nil when it did not come to its end
	PIDOnly bool             `json:"pid_only,omitempty"` // the program and its children alone were recorded
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
	Hists   []hist.Histogram `json:"hists,omitempty"`
	Wakeups *Wakeups         `json:"wakeups,omitempty"`
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

// Wakeups is how long tasks waited from their wake-up, sched_waking, to their run,
// sched_switch. Times are nanoseconds.
type Wakeups struct {
	// Kernel is how many latencies the kernel measured, by its synthetic event, Reckoned how
	// many come of the two events of the trace, and Agree how many are the same in both, to
	// the nanosecond.
	Kernel   int64 `json:"kernel"`
	Reckoned int64 `json:"reckoned"`
	Agree    int64 `json:"agree"`
	// Differ counts those that are not, of which Differing says what the first are.
	Differ    int64    `json:"differ,omitempty"`
	Differing []string `json:"differing,omitempty"`
	// Lost says that events were lost, so that the one has what the other has not.
	Lost bool `json:"lost,omitempty"`

	// Count is how many latencies the table is of: the kernel's, or the reckoned ones where it
	// measures none. Before were woken before the trace began, Running while they still were
	// on their CPU, and Others are of other tasks, when the program's alone were asked for: they
	// are left out, and so are Unkept, for which there was no room.
	Count   int64 `json:"count"`
	Before  int64 `json:"before,omitempty"`
	Running int64 `json:"running,omitempty"`
	Others  int64 `json:"others,omitempty"`
	Unkept  int64 `json:"unkept,omitempty"`

	Median int64           `json:"median_ns"`
	P90    int64           `json:"p90_ns"`
	P99    int64           `json:"p99_ns"`
	Max    int64           `json:"max_ns"`
	Ranges []WakeupRange   `json:"ranges"` // from short to long, without gaps
	Worst  []WakeupLatency `json:"worst"`  // the longest first, at most 10
}

// WakeupRange counts latencies of From and more and of less than To nanoseconds.
type WakeupRange struct {
	From  int64 `json:"from_ns"`
	To    int64 `json:"to_ns"`
	Count int64 `json:"count"`
}

// WakeupLatency is one of the longest.
type WakeupLatency struct {
	Latency int64         `json:"latency_ns"`
	Time    int64         `json:"time"` // at which it ran, of the trace clock
	CPU     int           `json:"cpu"`  // on which it ran
	Task    creation.Task `json:"task"`
	Prio    int           `json:"prio"` // the kernel's: 120 is nice 0, below 100 is real time
	// By is who ran on WokenOn when it was woken, Interrupt that an interrupt woke it there.
	By        *creation.Task `json:"by,omitempty"`
	WokenOn   int            `json:"woken_on"`
	Interrupt bool           `json:"interrupt,omitempty"`
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
