// Package event is an event of a trace in words: its name, its task and time, its
// fields as the kernel prints them, and the stack that was taken with it. Package
// decode makes events of ring-buffer pages; what an event says comes from a guest
// and is believed no further than its form goes.
package event

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/arch"
	"labctl/host/stack"
)

// Event is one event of a trace.
type Event struct {
	Task  string // comm as the kernel remembers it for PID; "<...>" when it does not
	PID   int    // of the task: a TID
	CPU   int
	Flags string // latency columns: "d....", five of them since 5.17, four before
	// Time is nanoseconds of the instance's trace clock, which counts from boot.
	Time int64
	Name string // "sched_process_fork"; "function" for one of the function tracer
	// At is where a kprobe event fired: "kernel_clone+0x0/0x478".
	At     string
	Fields []Field
	Text   string // what the trace file shows behind the name, cleaned
	// Stack is as the kernel took it, the tracer's own frames included, not
	// classified; nil when none was taken.
	Stack *stack.Stack
}

// Field is one key=value of an event, the value without its quotes.
type Field struct {
	Key, Value string
}

// String names the event in an error: "sched_process_fork at 2.632099 on CPU 1".
func (e *Event) String() string {
	return fmt.Sprintf("%s at %d.%06d on CPU %d", e.Name, e.Time/1e9, e.Time%1e9/1000, e.CPU)
}

// Field is the value of a key, "" and false when the event lacks it.
func (e *Event) Field(key string) (string, bool) {
	for _, f := range e.Fields {
		if f.Key == key {
			return f.Value, true
		}
	}
	return "", false
}

// Complete puts into a stack of the event what it lacks for being taken at a function's
// first instruction: the direct caller, if the probe has fetched it (arch.Entry.Caller).
func (e *Event) Complete(s *stack.Stack) {
	if v, ok := e.Field(arch.LinkField); ok {
		if f, ok := stack.ParseFrame(v); ok {
			s.InsertCaller(0, f)
		}
	}
	if v, ok := e.Field(arch.FrameField); ok {
		f, ok := stack.ParseFrame(v)
		if !ok {
			return
		}
		if at, ok := stack.ParseFrame(e.At); ok && len(s.Frames) > 0 && s.Frames[0].Base() != at.Base() {
			// 3.19 leaves out the function, too.
			s.Frames = slices.Insert(slices.Clone(s.Frames), 0, at)
		}
		f.Note = stack.FromReturnAddress
		s.InsertCaller(0, f)
	}
}

// Uint is a field as a number: decimal, or hexadecimal behind "0x". A fetch
// that failed in the kernel prints "(fault)" and is an error.
func (e *Event) Uint(key string) (uint64, error) {
	v, ok := e.Field(key)
	if !ok {
		return 0, fmt.Errorf("event %v has no field %s", e, key)
	}
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("event %v: field %s is %q, not a number", e, key, v)
	}
	return n, nil
}

// Int is Uint for a field with a sign that fits 32 bits: a pid, a signal.
func (e *Event) Int(key string) (int, error) {
	v, ok := e.Field(key)
	if !ok {
		return 0, fmt.Errorf("event %v has no field %s", e, key)
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("event %v: field %s is %q, not a 32-bit number", e, key, v)
	}
	return int(n), nil
}

// Symbol is the function of a kprobe event: At without its offset.
func (e *Event) Symbol() string {
	name, _, _ := strings.Cut(e.At, "+")
	return stack.Sanitise(name)
}
