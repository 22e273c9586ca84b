package wire

// RecordParams arms a private trace instance for a raw capture: ring-buffer
// pages are shipped as they fill, and the guest formats nothing.
type RecordParams struct {
	Instance string `json:"instance"` // instances/NAME

	// Tracer is current_tracer: "nop", "function" or "function_graph"; empty
	// is "nop".
	Tracer string `json:"tracer,omitempty"`
	// Functions go to set_ftrace_filter, Graph to set_graph_function: names and
	// globs as the kernel takes them. What the kernel refuses is in Missing.
	Functions []string `json:"functions,omitempty"`
	Graph     []string `json:"graph,omitempty"`

	Events  []RecordEvent     `json:"events,omitempty"`
	Probes  []TraceProbe      `json:"probes,omitempty"`
	Options map[string]bool   `json:"options,omitempty"` // options/NAME: "func_stack_trace", "userstacktrace"
	Files   map[string]string `json:"files,omitempty"`   // other files of the instance: "tracing_cpumask"; none that holds a path

	// Stacks is options/stacktrace: a stack with every event.
	Stacks bool `json:"stacks,omitempty"`
	// PIDOnly records what programs started with ExecParams.Instance do, and
	// all their children, and nothing else.
	PIDOnly bool `json:"pid_only,omitempty"`

	BufferKB int `json:"buffer_kb,omitempty"` // a CPU; 0 is the guest's default
	// Overwrite keeps the latest events when the link is slower than the trace,
	// and else the earliest. Either way what is lost is counted.
	Overwrite bool   `json:"overwrite,omitempty"`
	Clock     string `json:"clock,omitempty"` // trace_clock; empty is the kernel's own choice
	// Max bounds what is shipped, in bytes of pages; 0 is the agent's default.
	// At the bound the recording stops, and says so.
	Max int64 `json:"max,omitempty"`
	// Hold ships nothing before the end: the buffers are the bound. For a link
	// that is slower than the trace, and for the least disturbance.
	Hold bool `json:"hold,omitempty"`
	// Symbols asks for all of /proc/kallsyms. Without it the capture has the
	// address of one symbol and the symbols of modules, and the host takes the
	// rest from the kernel's image.
	Symbols bool `json:"symbols,omitempty"`
}

// RecordEvent is one event, "sched/sched_switch", or a whole system, "signal".
type RecordEvent struct {
	Name   string `json:"name"`
	Filter string `json:"filter,omitempty"` // as in Documentation/trace/events.rst
	Stack  bool   `json:"stack,omitempty"`  // a stacktrace trigger on it
}
