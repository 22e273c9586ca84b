// Package creation tells which task made which, through which kernel functions
// and with which clone flags. Probes and Events say what to trace in a guest for
// that, Join makes the creations of the events that came back.
package creation

import (
	"fmt"
	"strings"

	"labctl/host/clone"
	"labctl/host/stack"
)

// Creation is one task that came to be. It is part of the run record, schema
// labctl/run/v2.
type Creation struct {
	// Time is when the kernel announced the child (sched_process_fork),
	// nanoseconds of the trace clock, which counts from the guest's boot.
	Time int64 `json:"time_ns"`
	CPU  int   `json:"cpu"`
	// Via is the way in: the system call "clone", "clone3", "fork" or "vfork";
	// "kthread" for the task kthreadd; "kernel" for other kernel code, which
	// makes the tasks of user mode helpers and of the boot; "worker" for a
	// thread of a process that stays in the kernel (io_uring, vhost); "idle"
	// for a CPU's idle task; empty when the stack does not show it.
	Via string `json:"via"`
	// Symbol is the kernel's creation function, "kernel_clone", or
	// "copy_process" for ways that go round it: workers and idle tasks. Empty
	// when neither is in the stack and no probe says which it was.
	Symbol    string `json:"symbol"`
	Requester Task   `json:"requester"` // that ran Symbol
	Child     Child  `json:"child"`
	// Args are the arguments as Symbol received them; nil when they were not
	// traced.
	Args *Args `json:"args,omitempty"`
	// Entered counts how often the requester entered Symbol with these
	// arguments until it succeeded. A signal makes a call start again.
	Entered int `json:"entered,omitempty"`
	// Stack is the requester's, Symbol innermost.
	Stack stack.Stack `json:"stack"`
	// Skipped is how many of the innermost frames the stack of the event lacked:
	// what this kernel's tracer leaves out of each event's stack. Stack has them,
	// from the probe at the function's entry.
	Skipped int `json:"skipped,omitempty"`
	// AskedBy is who asked kthreadd for a kernel thread; nil for other tasks,
	// and when the request was made before the trace or is not traced.
	AskedBy *Request `json:"asked_by,omitempty"`
	// Notes say where two sources of the trace disagree, and what is missing.
	Notes []string `json:"notes,omitempty"`
	// Disputed is the note of flags that are not those of task_newtask, or of an entry
	// into the creation function that nothing shows.
	Disputed string `json:"disputed,omitempty"`
}

// Task is one task by the number and the name that the kernel has for it.
type Task struct {
	TID  int    `json:"tid"` // the kernel's pid: gettid() in the initial namespace
	Comm string `json:"comm"`
}

// Child is the new task.
type Child struct {
	TID  int    `json:"tid"`
	Comm string `json:"comm"` // at its creation: mostly its parent's
	// Name is what it was last called in the trace, when that is another name
	// than Comm: after an exec, a rename, or by the request for a kernel thread.
	Name string `json:"name,omitempty"`
	Exec string `json:"exec,omitempty"` // path of the last exec in the trace
}

// Args are what the creation function was asked for.
type Args struct {
	Flags clone.Flags `json:"flags"` // without the exit signal
	// ExitSignal is nil when the probe could not fetch it: its place in struct
	// kernel_clone_args is not known without BTF.
	ExitSignal *clone.Signal `json:"exit_signal,omitempty"`
	Text       string        `json:"text"` // "CLONE_VM|CLONE_VFORK|SIGCHLD"
}

// Request is a request for a kernel thread, in the task that made it.
type Request struct {
	Time int64 `json:"time_ns"`
	CPU  int   `json:"cpu"`
	Task
	// Format is kthread_create's format for the thread's name: "kworker/%s".
	Format string `json:"format,omitempty"`
	// Function is the thread's function, "khugepaged", or its address.
	Function string      `json:"function,omitempty"`
	Stack    stack.Stack `json:"stack"`
}

// Current is the name to call the child by.
func (c Child) Current() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Comm
}

// Text prints creations for people: a comment line each, then the stack as
// TRACE32 prints it, and the same for the request of a kernel thread.
func Text(creations []Creation) string {
	var b strings.Builder
	for i := range creations {
		c := &creations[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "// %s cpu %d: %s-%d makes %s-%d", seconds(c.Time), c.CPU, c.Requester.Comm, c.Requester.TID, c.Child.Current(), c.Child.TID)
		if c.Via != "" {
			b.WriteString(" by " + c.Via)
		}
		if c.Args != nil {
			b.WriteString(": " + c.Args.Text)
			if c.Args.ExitSignal == nil {
				b.WriteString(", exit signal not traced")
			}
		}
		b.WriteByte('\n')
		if c.Entered > 1 {
			fmt.Fprintf(&b, "// entered %d times\n", c.Entered)
		}
		for _, n := range c.Notes {
			b.WriteString("// note: " + n + "\n")
		}
		writeStack(&b, &c.Stack)
		if r := c.AskedBy; r != nil {
			fmt.Fprintf(&b, "// %s cpu %d: asked for by %s-%d\n", seconds(r.Time), r.CPU, r.Comm, r.TID)
			writeStack(&b, &r.Stack)
		}
	}
	return b.String()
}

func writeStack(b *strings.Builder, s *stack.Stack) {
	if len(s.Frames) == 0 {
		b.WriteString("// no stack\n")
		return
	}
	b.WriteString(s.TRACE32())
}

func seconds(ns int64) string { return fmt.Sprintf("%d.%06d", ns/1e9, ns%1e9/1000) }
