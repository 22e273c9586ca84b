package wire

// SleepersParams bounds what OpSleepers takes.
type SleepersParams struct {
	Max int `json:"max"` // tasks, at least 1
}

// Sleeper is one task that sleeps, as procfs tells it. All texts are the
// kernel's own.
type Sleeper struct {
	PID   int    `json:"pid"` // thread group
	TID   int    `json:"tid"`
	PPID  int    `json:"ppid"`
	Comm  string `json:"comm"`
	State string `json:"state"` // a letter of proc(5): "S", "D", "I", "T"
	// Kernel says that the task is a kernel thread.
	Kernel bool   `json:"kernel,omitempty"`
	Wchan  string `json:"wchan,omitempty"` // the function it waits in
	// Syscall is /proc/TID/syscall: the number, six arguments, stack pointer and
	// program counter, or "-1 …" outside a system call.
	Syscall string `json:"syscall,omitempty"`
	// Stack is the lines of /proc/TID/stack, innermost first:
	// "[<0>] do_wait+0x164/0x240".
	Stack []string `json:"stack,omitempty"`
	// Moved says that the task ran while it was looked at, several times over, so
	// that its parts need not belong together.
	Moved bool `json:"moved,omitempty"`
}

// Slept ends OpSleepers.
type Slept struct {
	Tasks    int  `json:"tasks"`          // seen, running ones too
	Sleepers int  `json:"sleepers"`       // sent
	More     bool `json:"more,omitempty"` // Max was reached
}
