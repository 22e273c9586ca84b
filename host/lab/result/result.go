// Package result is what a lab's run leaves to be judged: lab.json of a run
// record. Expressions of a lab see these very types under their JSON names, so
// that whoever writes a check can read lab.json beside it.
//
// Nothing here starts a machine; a result is judged where and when one likes.
package result

import (
	"cmp"
	"strings"

	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
)

// Schema is the value of Result.Schema that this package writes and reads.
const Schema = "labctl/lab/v1"

// Result is lab.json: one lab, or one learner's program, on one machine.
type Result struct {
	Schema string `json:"schema"`
	Lab    string `json:"lab"`    // id
	SHA256 string `json:"sha256"` // of the lab.yaml that was run, hex
	// Exercise says that a learner's program was run, in the one step "program".
	Exercise bool    `json:"exercise,omitempty"`
	Kernel   Kernel  `json:"kernel"`
	Steps    []*Step `json:"steps"`
	// Missing says why the lab was not run here; empty when it was.
	Missing []string `json:"missing,omitempty"`
	// Unfinished is the error by which the run failed, if it did. The steps are what it came
	// to, and cannot be judged.
	Unfinished string `json:"unfinished,omitempty"`
}

// Kernel is what is known of the kernel and the machine. Of configuration,
// symbols and members it has those that the lab's expressions ask for.
type Kernel struct {
	Release string            `json:"release"`           // uname -r, for people: never compare it
	Arch    string            `json:"arch"`              // GOARCH
	Board   string            `json:"board"`             // "" for the plain machine
	CPUs    int64             `json:"cpus"`              // online in the guest
	Config  map[string]string `json:"config,omitempty"`  // without CONFIG_; "" is not set
	Symbols map[string]bool   `json:"symbols,omitempty"` // functions and data, modules left out
	Members map[string]Member `json:"members,omitempty"` // "task_struct.__state"
	BTF     bool              `json:"btf"`               // whether the image has types at all
	// SkippedFrames is how many of the innermost functions the tracer leaves out of
	// an event's stack, as the run's own creations show (creation.Creation.Skipped).
	SkippedFrames int64 `json:"skipped_frames,omitempty"`
	// WrongStates says that sched_switch names states wrongly here, as the run's own
	// dying tasks show (see runner.wrongState).
	WrongStates bool `json:"wrong_states,omitempty"`
}

// Member is the place of a structure's member, in bytes.
type Member struct {
	There  bool  `json:"there"`
	Offset int64 `json:"offset"`
	Size   int64 `json:"size"`
}

// Step is one program's run in the guest, and what the kernel showed of it.
type Step struct {
	ID   string   `json:"id"`
	Argv []string `json:"argv"`
	// NoCompiler is the C compiler that this host lacks: the step's program is C,
	// and the step was not run.
	NoCompiler string `json:"no_compiler,omitempty"`
	// NoCall is the system call that the step's probe makes and the kernel lacks: the
	// step was not run.
	NoCall string `json:"no_call,omitempty"`
	PID    int64  `json:"pid"`
	// Exit is the program's status, 128+N when signal N ended it.
	Exit   int64  `json:"exit"`
	Signal int64  `json:"signal"`
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
	// Tasks and Data are what a probe reports; tasks[0] is the probe itself.
	Tasks []Task         `json:"tasks,omitempty"`
	Data  map[string]any `json:"data,omitempty"`
	// Creations are the tasks that the program and its descendants made or had
	// kthreadd make, by time; Others are all others in the guest meanwhile.
	Creations []Creation `json:"creations,omitempty"`
	Others    []Creation `json:"others,omitempty"`
	// Events are all events of the trace, by time: those that the lab asks for
	// and those of creations.
	Events []Event `json:"events,omitempty"`
	// Looks are what was read from outside the guest while the step ran, in their order.
	Looks []Look `json:"looks,omitempty"`
	// Lost counts events that are missing: of this step, or of the capture
	// where it is not known of which. NotTraced names what the kernel would not
	// trace.
	Lost      int64    `json:"lost"`
	NotTraced []string `json:"not_traced,omitempty"`
	// Tampered says by what the capture, or two sources of it, show that it was
	// bent while the step ran. Nothing is to be believed of such a step.
	Tampered []string `json:"tampered,omitempty"`
}

// Task is one task as a probe reports it.
type Task struct {
	Role string `json:"role"` // "self", "child", "thread", "kthread"
	Comm string `json:"comm,omitempty"`
	PID  int64  `json:"pid"`
	TID  int64  `json:"tid"`
	TGID int64  `json:"tgid"`
	PPID int64  `json:"ppid"`
	// Reaped says that the probe has waited for it; Status is the raw wait status.
	Reaped bool  `json:"reaped,omitempty"`
	Status int64 `json:"status,omitempty"`
	// Syscall, Flags and ExitSignal are what was passed to the kernel; Syscall
	// is empty when a library made the call, or nobody did.
	Syscall    string `json:"syscall,omitempty"`
	Flags      int64  `json:"flags,omitempty"`
	ExitSignal int64  `json:"exit_signal,omitempty"`
}

// Creation is one task that came to be (host/trace/creation).
type Creation struct {
	Time       int64  `json:"time"` // nanoseconds from the guest's boot
	CPU        int64  `json:"cpu"`
	Via        string `json:"via"`    // "clone", "clone3", "fork", "vfork", "kthread", "kernel", "worker", "idle", ""
	Symbol     string `json:"symbol"` // the kernel's creation function
	Requester  Who    `json:"requester"`
	Child      Who    `json:"child"`
	Flags      int64  `json:"flags"`       // without the exit signal; -1 when not traced
	ExitSignal int64  `json:"exit_signal"` // -1 when not traced
	Entered    int64  `json:"entered"`     // more than 1 when a signal made the call start again
	Stack      Stack  `json:"stack"`       // the requester's, the creation function innermost
	// Asked says that the request for a kernel thread was seen; AskedBy and
	// what follows describe it.
	Asked    bool   `json:"asked,omitempty"`
	AskedBy  Who    `json:"asked_by"`
	Function string `json:"function,omitempty"` // the thread's
	AskStack Stack  `json:"ask_stack"`
}

// Way is " by clone", for a sentence; empty when the stack does not show the way in.
func (c *Creation) Way() string {
	if c.Via == "" {
		return ""
	}
	return " by " + c.Via
}

// Who is a task by its number and its names.
type Who struct {
	TID  int64  `json:"tid"`
	Comm string `json:"comm"`           // then
	Name string `json:"name,omitempty"` // last in the trace: after an exec or a rename
	Exec string `json:"exec,omitempty"` // path of its last exec in the trace
}

// Event is one event of the trace.
type Event struct {
	Time   int64             `json:"time"`
	CPU    int64             `json:"cpu"`
	TID    int64             `json:"tid"` // of the task that it happened in
	Comm   string            `json:"comm"`
	Name   string            `json:"name"` // "sched_switch", or what trace.functions calls it
	Fields map[string]string `json:"fields,omitempty"`
	Stack  Stack             `json:"stack"`
}

// Stack is a call stack, innermost frame first.
type Stack struct {
	Frames []Frame `json:"frames,omitempty"`
	// Truncated says that it does not reach an end of kernel stacks.
	Truncated bool `json:"truncated,omitempty"`
}

// Frame is one call.
type Frame struct {
	Name   string `json:"name"` // of the function, without a compiler's suffix; "" for a bare address
	Symbol string `json:"symbol,omitempty"`
	Args   string `json:"args,omitempty"` // for printing
	Kind   string `json:"kind"`
	Entry  bool   `json:"entry,omitempty"` // the kernel was entered here, from user mode or by an exception
}

// FromStack takes a stack over.
func FromStack(s *stack.Stack) Stack {
	if s == nil {
		return Stack{}
	}
	out := Stack{Truncated: s.Truncated}
	for _, f := range s.Frames {
		g := Frame{Name: f.Base(), Kind: string(f.Kind), Entry: f.Exception}
		if f.Name != g.Name {
			g.Symbol = f.Name
		}
		var args []string
		for _, a := range f.Args {
			if a.Name == "" {
				args = append(args, a.Value)
			} else {
				args = append(args, a.Name+" = "+a.Value)
			}
		}
		g.Args = strings.Join(args, ", ")
		out.Frames = append(out.Frames, g)
	}
	return out
}

// Print is the stack again as the stack package prints it. Arguments come back
// as one text.
func (s Stack) Print() stack.Stack {
	out := stack.Stack{Truncated: s.Truncated}
	for _, f := range s.Frames {
		g := stack.Frame{Name: stack.Sanitise(cmp.Or(f.Symbol, f.Name)), Kind: stack.Kind(f.Kind), Exception: f.Entry}
		if f.Args != "" {
			g.Args = []stack.Arg{{Value: f.Args}}
		}
		out.Frames = append(out.Frames, g)
	}
	return out
}

// FromCreation takes a creation over.
func FromCreation(c *creation.Creation) Creation {
	out := Creation{
		Time: c.Time, CPU: int64(c.CPU), Via: c.Via, Symbol: c.Symbol,
		Requester: Who{TID: int64(c.Requester.TID), Comm: c.Requester.Comm},
		Child:     Who{TID: int64(c.Child.TID), Comm: c.Child.Comm, Name: c.Child.Name, Exec: c.Child.Exec},
		Flags:     -1, ExitSignal: -1, Entered: int64(c.Entered),
		Stack: FromStack(&c.Stack),
	}
	if out.Child.Name == "" {
		out.Child.Name = c.Child.Comm
	}
	if c.Args != nil {
		out.Flags = int64(c.Args.Flags)
		if c.Args.ExitSignal != nil {
			out.ExitSignal = int64(*c.Args.ExitSignal)
		}
	}
	if r := c.AskedBy; r != nil {
		out.Asked, out.AskedBy, out.Function = true, Who{TID: int64(r.TID), Comm: r.Comm}, r.Function
		out.AskStack = FromStack(&r.Stack)
	}
	return out
}

// FromEvent takes an event of a trace's text over.
func FromEvent(e *event.Event) Event {
	out := Event{Time: e.Time, CPU: int64(e.CPU), TID: int64(e.PID), Comm: e.Task, Name: e.Name, Fields: map[string]string{}}
	for _, f := range e.Fields {
		out.Fields[f.Key] = f.Value
	}
	if e.Stack != nil {
		s := *e.Stack
		s.Frames = append([]stack.Frame(nil), s.Frames...)
		s.Classify()
		out.Stack = FromStack(&s)
	}
	return out
}

// Step finds a step by its id.
func (r *Result) Step(id string) *Step {
	for _, s := range r.Steps {
		if s.ID == id {
			return s
		}
	}
	return nil
}
