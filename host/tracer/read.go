package tracer

import (
	"fmt"
	"io"
	"strings"

	"labctl/host/ftrace"
	"labctl/host/ftrace/capture"
	"labctl/host/ftrace/raw"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/timeline"
)

// maxDamage bounds the places that a record names, and their length.
const (
	maxDamage     = 20
	maxDamageText = 300
)

// Read decodes a capture into t. log, when it is not nil, gets every event, in
// the order of time, with its stack in the style given.
func Read(t *record.Trace, c *capture.Capture, log io.Writer, style stack.Style) error {
	d, err := raw.Open(c)
	if err != nil {
		return err
	}
	b := timeline.Builder{Stacks: asked(t)}
	for e, err := range d.Events() {
		if err != nil {
			t.Damaged++
			if len(t.Damage) < maxDamage {
				t.Damage = append(t.Damage, text.Line(err.Error(), maxDamageText))
			}
			continue
		}
		name := e.Name()
		if log == nil && !b.Wants(name, e.Stack != nil) {
			b.Count(name, int64(e.Time))
			continue
		}
		ev := d.Ftrace(e)
		if log != nil {
			if err := writeEvent(log, &ev, e.Lost, style); err != nil {
				return err
			}
		}
		b.Event(&ev)
	}
	for _, s := range d.Stats() {
		for i := range t.CPUs {
			if t.CPUs[i].CPU == s.CPU {
				t.CPUs[i].Events = s.Events
				t.CPUs[i].Lost = max(t.CPUs[i].Lost, s.Missing())
			}
		}
	}
	t.Timeline, _, err = b.Build()
	return err
}

// asked says which events' stacks are wanted: those that were asked for, and not
// those that are there for the tree alone.
func asked(t *record.Trace) func(string) bool {
	want := map[string]bool{}
	for _, l := range t.Lines {
		switch {
		case l.Missing():
		case l.Kind == "function" || l.Kind == "graph":
			want["function"] = true
		case l.Kind == "probe":
			want[l.Name] = true
		}
	}
	if t.Armed != nil {
		for _, l := range t.Lines {
			if l.Kind != "event" {
				continue
			}
			for _, name := range l.Armed {
				_, event, _ := strings.Cut(name, "/")
				want[event] = true
			}
		}
	}
	return func(event string) bool { return want[event] }
}

// writeEvent prints an event as the kernel's trace file does.
func writeEvent(w io.Writer, e *ftrace.Event, lost uint64, style stack.Style) error {
	if lost > 0 {
		if _, err := fmt.Fprintf(w, "CPU:%d [LOST %d EVENTS]\n", e.CPU, lost); err != nil {
			return err
		}
	}
	body := e.Text
	if e.Name != "function" {
		body = e.Name + ": " + e.Text
	}
	_, err := fmt.Fprintf(w, "%16s-%-7d [%03d] %s %d.%06d: %s\n",
		text.Line(e.Task, 16), e.PID, e.CPU, e.Flags, e.Time/1e9, e.Time%1e9/1000, text.Line(body, 2000))
	if err == nil && e.Stack != nil {
		_, s := timeline.Place(e)
		_, err = io.WriteString(w, style.Print(&s))
	}
	return err
}
