package wire

// ProbeResult is what `labprobe NAME` prints on its standard output, as one
// JSON document.
type ProbeResult struct {
	Probe  string `json:"probe"`
	Method string `json:"method"` // how the probe did it, one line
	// Tasks are the tasks that the probe made or asked for, with the probe
	// itself (role "self") first.
	Tasks []Task `json:"tasks"`
	// Data holds what is particular to one probe.
	Data map[string]any `json:"data,omitempty"`
}

// Task is one task as it saw itself, or as its creator or /proc saw it.
type Task struct {
	Role string `json:"role"` // "self", "child", "thread", "kthread"
	Comm string `json:"comm,omitempty"`
	PID  int    `json:"pid"` // getpid() in the task: its thread group
	TID  int    `json:"tid"` // gettid()
	TGID int    `json:"tgid"`
	PPID int    `json:"ppid"`
	// Asked is the request that made this task; nil for "self" and kthreads.
	Asked *Asked `json:"asked,omitempty"`
	// Status is the raw wait status, when the probe reaped the task.
	Status *int `json:"status,omitempty"`
}

// Asked is what a probe passed to the kernel, flags and exit signal apart.
type Asked struct {
	Syscall    string `json:"syscall"` // "clone", "clone3", "fork", "vfork", "os.StartProcess"
	Flags      uint64 `json:"flags"`   // without CSIGNAL
	ExitSignal int    `json:"exit_signal"`
	// Unknown says that a library made the call, so that flags are not known here.
	Unknown bool `json:"unknown,omitempty"`
}
