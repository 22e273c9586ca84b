package trace

import (
	"io"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/capture"
	"labctl/host/trace/creation"
	"labctl/host/trace/listing"
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
	out := listing.New(log, r.Decoder, style)
	seen, waking := hits{}, wakeupsOf(t)
	for e := range r.Events() {
		name := e.Name()
		seen.event(e)
		waking.event(e)
		if log == nil && !b.Wants(name, e.Stack != nil) {
			b.Count(name, int64(e.Time))
			continue
		}
		if log != nil {
			if err := out.Event(e); err != nil {
				return outcome.Default(outcome.HostLacks, err)
			}
		}
		ev := r.Event(e)
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
	seen.idle(t.Lines, r.Decoder, t.Script != nil)
	if t.Timeline, _, err = b.Build(); err != nil {
		return outcome.Default(outcome.CheckFailed, err)
	}
	waking.end(t, r.Decoder)
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
