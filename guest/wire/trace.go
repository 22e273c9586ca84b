package wire

// KprobeSpec is one kprobe event to try. The agent walks the alternatives of a
// TraceProbe in order and keeps the first that the kernel takes, so symbol
// families (kernel_clone, _do_fork, do_fork) need no version check.
type KprobeTry struct {
	Symbol string   `json:"symbol"`
	Args   []string `json:"args"` // fetch arguments, as in Documentation/trace/kprobetrace.rst: "flags=+0(%di):x64"
}

// TraceProbe is one named kprobe event with its alternatives.
type Kprobe struct {
	Event        string      `json:"event"` // event name in the group "labctl"
	Alternatives []KprobeTry `json:"alternatives"`
	Optional     bool        `json:"optional,omitempty"` // nothing taken is a note, not an error
}

// TraceParams arms a private trace instance.
type TraceParams struct {
	Instance string   `json:"instance"` // instances/NAME
	Probes   []Kprobe `json:"probes"`
	Events   []string `json:"events"`              // "sched/sched_process_fork"
	Stacks   bool     `json:"stacks"`              // options/stacktrace
	BufferKB int      `json:"buffer_kb,omitempty"` // a CPU; 0 leaves the kernel's default
}

// TraceArmed says what the kernel took.
type TraceArmed struct {
	Symbols map[string]string `json:"symbols"`           // event → symbol
	Missing []string          `json:"missing,omitempty"` // optional probes, events and options not taken, with the reason
}

// TraceStopped ends the text on Extra, which is the instance's trace file.
type TraceStopped struct {
	Bytes   int64 `json:"bytes"`
	Entries int64 `json:"entries"` // per_cpu/cpu*/stats "entries"
	Overrun int64 `json:"overrun"` // events lost to overwriting
}
