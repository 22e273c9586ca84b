// Package tasks tells a trace as the lives of tasks: a tree of who made whom,
// when each was born and died and with what exit code, and the stacks of the
// trace, each distinct path once with a count.
package tasks

import (
	"fmt"
	"strings"

	"labctl/host/clone"
	"labctl/host/stack"
	"labctl/host/trace/creation"
)

// Timeline is the tasks of a trace. It is part of the run record, schema
// labctl/run/v2. Times are nanoseconds of the trace clock, which counts from the
// guest's boot.
type Timeline struct {
	Start int64 `json:"start_ns"` // of the first event
	End   int64 `json:"end_ns"`   // of the last one
	// Tasks are those that were born, died or made another. First come those
	// that were there before the trace, by TID, then the others by birth.
	Tasks []Task `json:"tasks"`
	// Paths are those of creations and requests, then those of events that were
	// asked for, each in the order of their first use.
	Paths []Path `json:"paths"`
	// Events counts the trace's events by name.
	Events map[string]int64 `json:"events"`
	// Unkept counts events about tasks that were too many to keep: the tree
	// lacks what they tell. UnkeptPaths is the same for stacks.
	Unkept      int64 `json:"unkept,omitempty"`
	UnkeptPaths int64 `json:"unkept_paths,omitempty"`
	// SkippedFrames is how many of the innermost functions the tracer left out of
	// the stacks of events (creation.Creation.Skipped).
	SkippedFrames int `json:"skipped_frames,omitempty"`
}

// Task is the life of one task. A TID that was used again is another task.
type Task struct {
	TID  int    `json:"tid"`
	Comm string `json:"comm"` // the last one in the trace
	Exec string `json:"exec,omitempty"`
	// Parent is the place in Tasks of who ran the creation function; nil for
	// tasks that were there before the trace. For a kernel thread that is
	// kthreadd, and AskedBy the task that wanted it.
	Parent  *int           `json:"parent,omitempty"`
	Born    *int64         `json:"born_ns,omitempty"`
	Via     string         `json:"via,omitempty"`   // see creation.Creation
	Flags   string         `json:"flags,omitempty"` // "CLONE_VM|SIGCHLD"
	AskedBy *creation.Task `json:"asked_by,omitempty"`
	Died    *int64         `json:"died_ns,omitempty"`
	Exit    *Exit          `json:"exit,omitempty"` // nil when the trace does not have it
	// Path and AskedPath are the numbers of the creation's and the request's
	// stack: Paths[Path-1]. 0 is none.
	Path      int      `json:"path,omitempty"`
	AskedPath int      `json:"asked_path,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// Exit is how a task ended: by its own word, or by a signal.
type Exit struct {
	Code   int  `json:"code"`
	Signal int  `json:"signal,omitempty"` // that ended it; Code is 0 then
	Core   bool `json:"core,omitempty"`
}

// ParseExit reads a wait status, which is do_exit's argument
// (kernel/exit.c; WIFEXITED and the like of wait(2)).
func ParseExit(status int) Exit {
	if sig := status & 0x7f; sig != 0 {
		return Exit{Signal: sig, Core: status&0x80 != 0}
	}
	return Exit{Code: status >> 8 & 0xff}
}

// String is "exit 3" or "SIGSEGV, core".
func (e Exit) String() string {
	switch {
	case e.Signal == 0:
		return fmt.Sprintf("exit %d", e.Code)
	case e.Core:
		return clone.Signal(e.Signal).String() + ", core"
	}
	return clone.Signal(e.Signal).String()
}

// Path is one distinct way through the kernel to a place that was traced. The
// way of what an interrupt did begins with the interrupt, whatever it came upon.
type Path struct {
	Of    string      `json:"of"` // "kernel_clone", an event's name, a traced function's
	Count int64       `json:"count"`
	Stack stack.Stack `json:"stack"` // of the first; arguments that differed are left out
}

// maxPaths bounds the distinct stacks that are kept.
const maxPaths = 5000

// paths collects stacks by the calls they are.
type paths struct {
	list   []Path
	number map[string]int // key → place in list, from 1
	unkept int64
}

// add counts a stack and returns its number; 0 for one without frames.
func (p *paths) add(of string, s stack.Stack) int {
	if len(s.Frames) == 0 {
		return 0
	}
	in := interrupt(s.Frames)
	key := []byte(of)
	for _, f := range s.Frames[:in] {
		key = append(key, 0)
		key = append(key, f.Base()...)
		if f.Name == "" && f.Kind != stack.User {
			key = fmt.Appendf(key, "%x", f.PC)
		}
		key = append(key, 1)
		key = append(key, f.Module...)
	}
	if n, ok := p.number[string(key)]; ok {
		have := &p.list[n-1]
		have.Count++
		for i := range have.Stack.Frames[:in] {
			f := &have.Stack.Frames[i]
			f.Args = common(f.Args, s.Frames[i].Args)
		}
		if same, _ := stack.SameCalls(&have.Stack, &s); !same && len(have.Stack.Frames) > in {
			have.Stack.Frames = have.Stack.Frames[:in]
			have.Stack.Frames[in-1].Note = "it interrupted different places"
			have.Stack.Truncated = false
		}
		return n
	}
	if len(p.list) == maxPaths {
		p.unkept++
		return 0
	}
	if p.number == nil {
		p.number = map[string]int{}
	}
	s.Frames = append([]stack.Frame(nil), s.Frames...)
	p.list = append(p.list, Path{Of: of, Count: 1, Stack: s})
	p.number[string(key)] = len(p.list)
	return len(p.list)
}

// interrupt is how many frames belong to the innermost interrupt of a stack, its
// entry included; all of them where there is none. What is outside did not ask
// for it, and may be anything.
func interrupt(frames []stack.Frame) int {
	for i, f := range frames {
		if f.Exception && (strings.Contains(f.Name, "irq") || strings.Contains(f.Name, "interrupt") || strings.Contains(f.Name, "sysvec")) {
			return i + 1
		}
	}
	return len(frames)
}

// common keeps the arguments that are the same in both.
func common(a, b []stack.Arg) []stack.Arg {
	var out []stack.Arg
	for _, x := range a {
		for _, y := range b {
			if x == y {
				out = append(out, x)
				break
			}
		}
	}
	return out
}
