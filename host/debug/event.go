package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"labctl/host/debug/command"
	"labctl/host/outside/kern"
	"labctl/host/stack"
	"labctl/host/text"
)

// Event is what a session shows, as a line of JSON.
type Event struct {
	Event string `json:"event"` // "stop", "output"

	// Of a stop.
	Reason   string       `json:"reason,omitempty"` // "breakpoint", "watchpoint", "step", "finish", "until", "interrupt", "back"
	Point    *Point       `json:"point,omitempty"`
	CPU      int          `json:"cpu"`
	PC       string       `json:"pc,omitempty"`
	At       string       `json:"at,omitempty"` // "kernel_clone+0x0"
	Comm     string       `json:"comm,omitempty"`
	PID      int          `json:"pid,omitempty"`
	TID      int          `json:"tid,omitempty"`
	Old      *uint64      `json:"old,omitempty"` // of memory that is watched
	New      *uint64      `json:"new,omitempty"`
	Function string       `json:"function,omitempty"` // that has returned
	Returned string       `json:"returned,omitempty"`
	Stack    *stack.Stack `json:"stack,omitempty"`

	// Of a command's output.
	Command string `json:"command,omitempty"`
	Text    string `json:"text,omitempty"`
}

// tell tells of a stop.
func (s *Session) tell(ctx context.Context, e *Event) error {
	p := s.place
	e.Event, e.CPU, e.PC, e.At = "stop", p.cpu, fmt.Sprintf("0x%x", p.pc), p.at(p.pc)
	who, err := p.task(ctx)
	var none *kern.NoTypesError
	if err != nil && !errors.As(err, &none) {
		who = nil // a stop is told of all the same
	}
	if who != nil {
		e.Comm, e.PID, e.TID = who.name(), who.pid, who.tid
	}
	if e.Reason != reasonStep {
		st, err := p.stack(ctx)
		if err != nil {
			e.Text = strings.TrimSpace(e.Text + " " + text.Line(err.Error(), 300))
		}
		e.Stack = st
	}
	if s.o.JSON {
		return s.json(e)
	}
	var b strings.Builder
	if e.Reason == reasonStep {
		ins, _, _ := p.instruction(p.pc)
		fmt.Fprintf(&b, "%s  %s\n", e.At, ins)
	} else {
		b.WriteString(s.head(e))
		switch {
		case e.Stack == nil:
			fmt.Fprintf(&b, "// no stack: %s\n", e.Text)
		case e.Stack.Note != "":
			fmt.Fprintf(&b, "// %s\n", e.Stack.Note)
		default:
			b.WriteString(s.o.Style.Print(e.Stack))
		}
	}
	return s.write(b.String())
}

// head is the lines before the stack of a stop.
func (s *Session) head(e *Event) string {
	who := fmt.Sprintf("CPU %d", e.CPU)
	if e.TID != 0 || e.Comm != "" {
		who = fmt.Sprintf("%s, pid %d", e.Comm, e.PID)
		if e.TID != e.PID {
			who += fmt.Sprintf(", tid %d", e.TID)
		}
		who += fmt.Sprintf(", on CPU %d", e.CPU)
	}
	switch e.Reason {
	case reasonBreak:
		return fmt.Sprintf("// breakpoint %d, %s, hit %d: %s\n", e.Point.Number, e.Point.Name, e.Point.Hits, who)
	case reasonWatch:
		change := "read: " + s.place.watched(e.Point, *e.New)
		if *e.Old != *e.New {
			change = s.place.watched(e.Point, *e.Old) + " -> " + s.place.watched(e.Point, *e.New)
		}
		return fmt.Sprintf("// watchpoint %d, %s: %s, hit %d: %s\n", e.Point.Number, e.Point.Name, change, e.Point.Hits, who)
	case reasonFinish:
		return fmt.Sprintf("// %s has returned%s: %s\n", e.Function, e.Returned, who)
	case reasonInterrupt:
		return fmt.Sprintf("// stopped: %s\n", who)
	case "back":
		return fmt.Sprintf("// back at checkpoint %s: %s\n", e.Text, who)
	}
	return fmt.Sprintf("// %s: %s\n", e.Reason, who)
}

// at names an address.
func (p *place) at(addr uint64) string {
	f := stack.At(p.lookup(), addr, true)
	if f.Name == "" {
		return fmt.Sprintf("0x%x", addr)
	}
	out := fmt.Sprintf("%s+0x%x", f.Name, f.Offset)
	if f.Module != "" {
		out += " [" + f.Module + "]"
	}
	return out
}

// say shows a command's output.
func (s *Session) say(c *command.Command, out string) error {
	out = strings.TrimSuffix(out, "\n")
	if s.o.JSON {
		e := &Event{Event: "output", Command: c.Line, Text: out}
		if s.place != nil {
			e.CPU = s.place.cpu
		}
		return s.json(e)
	}
	if out == "" {
		return nil
	}
	return s.write(out + "\n")
}

func (s *Session) json(e *Event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.write(string(b) + "\n")
}

func (s *Session) write(out string) error {
	_, err := fmt.Fprint(s.o.Out, out)
	return err
}
