package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/capture"
	"labctl/host/trace/creation"
	"labctl/host/trace/decode"
	"labctl/host/trace/event"
	"labctl/host/trace/plan"
	"labctl/host/trace/tasks"
)

// Read decodes a capture into t. log, when it is not nil, gets every event, in
// the order of time, with its stack in the style given.
func Read(t *record.Trace, c *capture.Capture, log io.Writer, style stack.Style) error {
	r, err := NewReader(c)
	if err != nil {
		return outcome.Default(outcome.CheckFailed, err)
	}
	b := tasks.Builder{Stacks: asked(t)}
	for e := range r.Events() {
		name := e.Name()
		if log == nil && !b.Wants(name, e.Stack != nil) {
			b.Count(name, int64(e.Time))
			continue
		}
		ev := r.Event(e)
		if log != nil {
			if err := writeEvent(log, e, &ev, style); err != nil {
				return outcome.Default(outcome.HostLacks, err)
			}
		}
		b.Event(&ev)
	}
	t.Damaged, t.Damage = r.Damage()
	for _, s := range r.Stats() {
		for i := range t.CPUs {
			if t.CPUs[i].CPU == s.CPU {
				t.CPUs[i].Events = s.Events
				t.CPUs[i].Lost = max(t.CPUs[i].Lost, s.Missing())
			}
		}
	}
	if t.Timeline, _, err = b.Build(); err != nil {
		return outcome.Default(outcome.CheckFailed, err)
	}
	if t.Script != nil && t.Armed != nil && t.Armed.Symbols[creation.EventClone] == "" {
		for i := range t.Timeline.Tasks {
			k := &t.Timeline.Tasks[i]
			k.Notes = slices.DeleteFunc(k.Notes, func(n string) bool { return n == creation.NoteNoEntry })
		}
	}
	return nil
}

// asked says which events' stacks are wanted: those that were asked for, and not
// those that are there for the tree alone.
func asked(t *record.Trace) func(string) bool {
	want := map[string]bool{}
	for _, l := range t.Lines {
		switch {
		case l.Missing():
		case l.Kind == "function":
			want["function"] = true
		case l.Kind == "probe":
			want[l.Name] = !slices.Contains(plan.Own, l.Name)
		case l.Kind == "event":
			for _, name := range l.Armed {
				_, event, _ := strings.Cut(name, "/")
				want[event] = true
			}
		}
	}
	return func(event string) bool { return want[event] }
}

// writeEvent prints an event as the kernel's trace file does.
func writeEvent(w io.Writer, r *decode.Event, e *event.Event, style stack.Style) error {
	if r.Lost > 0 {
		if _, err := fmt.Fprintf(w, "CPU:%d [LOST %d EVENTS]\n", e.CPU, r.Lost); err != nil {
			return err
		}
	}
	body := e.Name + ": " + e.Text
	switch {
	case e.Name == "function":
		body = e.Text
	case isGraph(e.Name):
		body = graph(r, e)
	}
	_, err := fmt.Fprintf(w, "%16s-%-7d [%03d] %s %d.%06d: %s\n",
		text.Line(e.Task, 16), e.PID, e.CPU, e.Flags, e.Time/1e9, e.Time%1e9/1000, text.Clean(body))
	if err == nil && e.Stack != nil {
		_, s := tasks.Place(e)
		_, err = io.WriteString(w, style.Print(&s))
	}
	return err
}

// maxDepth bounds the indentation of a graph (FTRACE_RETFUNC_DEPTH is 50).
const maxDepth = 60

// graph prints a call or a return as function_graph does: indented by its depth,
// a return with how long the function took.
func graph(r *decode.Event, e *event.Event) string {
	depth, err := r.Uint("depth")
	if err != nil || depth > maxDepth {
		depth = maxDepth
	}
	took := ""
	called, err := r.Uint("calltime")
	if returned, rerr := r.Uint("rettime"); err == nil && rerr == nil && returned >= called {
		took = fmt.Sprintf("%d.%03d us", (returned-called)/1000, (returned-called)%1000)
	}
	return fmt.Sprintf("%14s |  %*s%s", took, 2*int(depth), "", text.Line(e.Text, 600))
}
