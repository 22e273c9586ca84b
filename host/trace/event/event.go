// Package event reads the text of an ftrace instance's `trace` file: its
// events in order, each with its fields and the stack that was taken with it
// (options/stacktrace). The text comes from the guest and is believed no
// further than its form goes.
package event

import (
	"fmt"
	"strconv"
	"strings"

	"labctl/host/outcome"
	"labctl/host/stack"
)

// Trace is one `trace` file.
type Trace struct {
	Tracer  string // "nop"
	CPUs    int    // online, "#P:2"
	Entries int64  // in the buffer when it was read, stacks included
	Written int64  // ever written; more than Entries means overwritten ones
	Events  []Event
	// Lost counts events that the text itself says are missing.
	Lost int64
	// Bad are the first lines that could not be read, BadLines counts them all.
	Bad      []LineError
	BadLines int
}

// LineError is a line that is not what it should be.
type LineError struct {
	Line   int // from 1
	Reason string
}

func (e LineError) Error() string { return fmt.Sprintf("trace text line %d: %s", e.Line, e.Reason) }

// Outcome is CheckFailed.
func (e LineError) Outcome() outcome.Kind { return outcome.CheckFailed }

// Event is one event of the trace.
type Event struct {
	Line  int    // where in the text, from 1
	Task  string // comm as the kernel remembers it for PID; "<...>" when it does not
	PID   int    // of the task: a TID
	CPU   int
	Flags string // latency columns: "d....", five of them since 5.17, four before
	// Time is nanoseconds of the instance's trace clock, which counts from boot.
	Time int64
	Name string // "sched_process_fork"; "function" for a line of the function tracer
	// At is where a kprobe event fired: "kernel_clone+0x0/0x478".
	At     string
	Fields []Field
	Text   string // what stands after the name, cleaned
	// Stack is as the kernel printed it, machinery included, not classified;
	// nil when none was taken.
	Stack *stack.Stack
}

// Field is one key=value of an event, the value without its quotes.
type Field struct {
	Key, Value string
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

// Uint is a field as a number: decimal, or hexadecimal behind "0x". A fetch
// that failed in the kernel prints "(fault)" and is an error.
func (e *Event) Uint(key string) (uint64, error) {
	v, ok := e.Field(key)
	if !ok {
		return 0, fmt.Errorf("trace text line %d: event %s has no field %s", e.Line, e.Name, key)
	}
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("trace text line %d: field %s of %s is %q, not a number", e.Line, key, e.Name, v)
	}
	return n, nil
}

// Int is Uint for a field with a sign that fits 32 bits: a pid, a signal.
func (e *Event) Int(key string) (int, error) {
	v, ok := e.Field(key)
	if !ok {
		return 0, fmt.Errorf("trace text line %d: event %s has no field %s", e.Line, e.Name, key)
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("trace text line %d: field %s of %s is %q, not a 32-bit number", e.Line, key, e.Name, v)
	}
	return int(n), nil
}

// Symbol is the function of a kprobe event: At without its offset.
func (e *Event) Symbol() string {
	name, _, _ := strings.Cut(e.At, "+")
	return stack.Sanitise(name)
}
