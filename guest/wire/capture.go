package wire

// CaptureParams arms a private trace instance for a raw capture: ring-buffer
// pages are shipped as they fill, and the guest formats nothing.
type CaptureParams struct {
	// Instance is instances/NAME, a C identifier. A tracer that the kernel allows
	// in the top instance alone is armed there (CaptureArmed.Top).
	Instance string `json:"instance"`

	// Keep records in the top instance as somebody else, a script, has armed it:
	// its tracer, filters, buffers and tracing_on stay as they are, and what is in
	// the buffers already is shipped, too. Probes and Events are armed beside.
	// Max, Hold and Symbols go with it, and nothing else.
	Keep bool `json:"keep,omitempty"`
	// Formats are events that a kept buffer may hold though they are enabled no
	// longer: their formats are sent. Those that the kernel has not are left out.
	Formats []string `json:"formats,omitempty"`

	// Tracer is current_tracer: "nop", "function" or "function_graph"; empty
	// is "nop".
	Tracer string `json:"tracer,omitempty"`
	// Functions go to set_ftrace_filter, Graph to set_graph_function: names and
	// globs as the kernel takes them. What the kernel refuses is in Missing. A
	// tracer none of whose Functions is there is not started: without a filter it
	// would trace all functions.
	Functions []string `json:"functions,omitempty"`
	Graph     []string `json:"graph,omitempty"`

	Events []CaptureEvent `json:"events,omitempty"`
	Hists  []CaptureHist  `json:"hists,omitempty"`
	// Wakeup has the kernel measure the latency of wake-ups and record it, as events whose
	// names begin with WakeupEvent in the system "synthetic", with the fields lat, in
	// nanoseconds, pid and prio. It takes the clock "global" where Clock says nothing.
	Wakeup bool `json:"wakeup,omitempty"`

	Probes  []Kprobe          `json:"probes,omitempty"`
	Options map[string]bool   `json:"options,omitempty"` // options/NAME: "func_stack_trace", "userstacktrace"
	Files   map[string]string `json:"files,omitempty"`   // other files of the instance, or of the top one: "tracing_cpumask", "max_graph_depth"

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
	// Max bounds what is shipped, in bytes of pages; 0 is MaxPages, and less
	// on a slow line.
	// At the bound the capture stops, and says so.
	Max int64 `json:"max,omitempty"`
	// Hold ships nothing before the end: the buffers are the bound. For a link
	// that is slower than the trace, and for the least disturbance.
	Hold bool `json:"hold,omitempty"`
	// Live ships what there is ten times a second, pages that are not full too, in
	// rounds of all CPUs (ChunkRound), and what names it in advance.
	Live bool `json:"live,omitempty"`
	// Symbols asks for all of /proc/kallsyms. Without it the capture has the
	// address of one symbol and the places of modules, and the host takes the
	// rest from the kernel's image.
	Symbols bool `json:"symbols,omitempty"`
}

// CaptureEvent is one event, "sched/sched_switch", or a whole system, "signal".
// The probes of the same capture are in the system "labctl".
type CaptureEvent struct {
	Name   string `json:"name"`
	Filter string `json:"filter,omitempty"` // as in Documentation/trace/events.rst
	Stack  bool   `json:"stack,omitempty"`  // a stacktrace trigger on it
}

// WakeupEvent is what the events of CaptureParams.Wakeup are called.
const WakeupEvent = "wakeup_lat"

// CaptureHist is a histogram that the kernel makes of an event, which is not recorded
// for that (Documentation/trace/histogram.rst).
type CaptureHist struct {
	Name  string `json:"name"`  // by which CaptureMissing has it
	Event string `json:"event"` // as of a CaptureEvent; one event
	// Specs are what stands behind "hist:" in the trigger: "keys=prev_comm:sort=hitcount".
	// The first that the kernel takes counts.
	Specs  []string `json:"specs"`
	Filter string   `json:"filter,omitempty"`
}

// KprobeTry is one kprobe event to try. The agent walks the alternatives of a
// Kprobe in order and keeps the first that the kernel takes, so symbol families
// (kernel_clone, _do_fork, do_fork) need no version check.
type KprobeTry struct {
	Symbol string   `json:"symbol"`
	Args   []string `json:"args"` // fetch arguments, as in Documentation/trace/kprobetrace.rst: "flags=+0(%di):x64"
}

// Kprobe is one named kprobe event with its alternatives.
type Kprobe struct {
	Event        string      `json:"event"` // event name in the group "labctl"
	Alternatives []KprobeTry `json:"alternatives"`
	Optional     bool        `json:"optional,omitempty"` // nothing taken is a note, not an error
	// Fprobe says that it is an fprobe event (Documentation/trace/fprobetrace.rst), of
	// which the symbols are "kernel_clone%return".
	Fprobe bool `json:"fprobe,omitempty"`
}

// CaptureArmed says what the kernel took, just before the capture begins.
type CaptureArmed struct {
	Symbols   map[string]string `json:"symbols,omitempty"`   // event of a probe → symbol taken
	Functions []string          `json:"functions,omitempty"` // what Functions came to, at most MaxArmedNames
	Matched   int               `json:"matched,omitempty"`   // how many functions that is
	Events    []string          `json:"events,omitempty"`    // enabled, "sched/sched_switch"; those of a system one by one
	Missing   []CaptureMissing  `json:"missing,omitempty"`
	// Found are the events that were enabled in a kept instance; Functions are its
	// filter, and Matched is 0 where it has none. Off says that its tracing_on is 0.
	Found []string `json:"found,omitempty"`
	Off   bool     `json:"off,omitempty"`

	Top       bool   `json:"top,omitempty"` // recorded in the top instance
	Tracer    string `json:"tracer"`
	Clock     string `json:"clock"`
	BufferKB  int    `json:"buffer_kb"` // a CPU
	CPUs      int    `json:"cpus"`      // that can be, not only those online
	PageSize  int    `json:"page_size"` // bytes of a ring-buffer page with its header
	BigEndian bool   `json:"big_endian,omitempty"`
	Uname     string `json:"uname"` // "Linux 6.12.107+deb13-arm64 aarch64"
}

// MaxArmedNames bounds the lists of CaptureArmed.
const MaxArmedNames = 1000

// CaptureMissing is a part that was asked for and is not armed.
type CaptureMissing struct {
	What string `json:"what"` // "event sched/nosuch", "function foo*", "graph foo", "probe clone", "hist NAME", "wakeup wakeup_lat", "tracer x", "option x", "file x", "symbols"
	Why  string `json:"why"`  // the kernel's reason
}

// String is "event sched/nosuch: no such file or directory".
func (m CaptureMissing) String() string { return m.What + ": " + m.Why }

// CaptureStopped ends a capture.
type CaptureStopped struct {
	Bytes int64        `json:"bytes"` // of pages, shipped
	CPUs  []CaptureCPU `json:"cpus"`  // those that recorded, by number
	// Truncated says why the capture ended before it was stopped; empty when
	// it did not.
	Truncated string `json:"truncated,omitempty"`
	// Left is the bytes that were recorded and not shipped, because of Max.
	Left int64 `json:"left,omitempty"`
}

// CaptureCPU is what became of one CPU's events, from per_cpu/cpuN/stats.
type CaptureCPU struct {
	CPU     int   `json:"cpu"`
	Bytes   int64 `json:"bytes"`             // of pages, shipped
	Overrun int64 `json:"overrun,omitempty"` // old events that new ones overwrote
	Commit  int64 `json:"commit,omitempty"`  // events lost while an interrupt nested ("commit overrun")
	Dropped int64 `json:"dropped,omitempty"` // new events that found the buffer full
}

// Lost is how many events the CPU lost.
func (c CaptureCPU) Lost() int64 { return c.Overrun + c.Commit + c.Dropped }
