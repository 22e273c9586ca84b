package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/text"
)

// maxScriptNames bounds the names that one script is known to have written.
const maxScriptNames = 10_000

// ParseScriptLog reads what the guest's shell says of the names that a script wrote
// to tracefs: a wire.TraceName as JSON a line. Names are made fit for a terminal.
// With an error there are those that could be read before it.
func ParseScriptLog(log []byte) ([]wire.TraceName, error) {
	var names []wire.TraceName
	for line := range bytes.Lines(log) {
		var n wire.TraceName
		if err := json.Unmarshal(line, &n); err != nil {
			return names, fmt.Errorf("line %d of the script's log: %w", len(names)+1, err)
		}
		if len(names) == maxScriptNames {
			return names, fmt.Errorf("the script wrote more than %d names", maxScriptNames)
		}
		names = append(names, wire.TraceName{
			File: text.Line(n.File, 200), Asked: text.Line(n.Asked, 200), Became: text.Line(n.Became, 200), Why: text.Line(n.Why, 400),
		})
	}
	return names, nil
}

// Scripted plans the capture of what a script has armed in the top instance:
// nothing of it is changed, and what the tree of tasks is drawn from comes beside
// it. names are what the script wrote.
func Scripted(names []wire.TraceName, k Kernel) (*Plan, error) {
	m := maker{k: k, armed: map[string]bool{}}
	m.plan.Params = wire.CaptureParams{Instance: Instance, Keep: true}
	for _, n := range names {
		l := scriptLine(n)
		if !slices.ContainsFunc(m.plan.Lines, func(had Line) bool {
			return had.Kind == l.Kind && had.Name == l.Name && slices.Equal(had.Armed, l.Armed)
		}) {
			m.line(l)
		}
		if e := eventOf(l); e != "" && !slices.Contains(m.plan.Params.Formats, e) {
			m.plan.Params.Formats = append(m.plan.Params.Formats, e)
		}
	}
	return &m.plan, m.creations(Request{})
}

// scriptLine is what became of one name.
func scriptLine(n wire.TraceName) Line {
	l := Line{Kind: "file", Name: n.Asked, Why: n.Why}
	if n.Became != "" {
		l.Armed = []string{n.Became}
	}
	switch base := path.Base(n.File); {
	case slices.Contains(ksym.StandIns, n.Became), strings.HasPrefix(n.Asked, "!"), strings.HasSuffix(base, "_notrace"):
		l.Kind = "filter"
	case base == "set_ftrace_filter":
		l.Kind = "function"
	case base == "set_graph_function":
		l.Kind = "graph"
	case base == "kprobe_events":
		l.Kind = "probe"
	case base == "current_tracer":
		l.Kind = "tracer"
	case base == "set_event", strings.HasPrefix(n.File, "events/"), strings.Contains(n.File, "/events/"):
		l.Kind = "event"
		l.Name = strings.Replace(l.Name, ":", "/", 1)
		for i := range l.Armed {
			l.Armed[i] = strings.Replace(l.Armed[i], ":", "/", 1)
		}
	case n.Asked == base: // the file itself is not there
		l.Name = n.File
	default: // a value that the kernel refused
		l.Name = n.File + " = " + n.Asked
	}
	return l
}

var plainEvent = text.Lazy(`^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64})?$`)

// eventOf is the event or the system of events that a line enabled: "sched/sched_switch",
// "signal". A glob of events is taken for its system, and an event without one is
// not found.
func eventOf(l Line) string {
	if l.Kind != "event" || len(l.Armed) == 0 {
		return ""
	}
	name := l.Armed[0]
	if system, event, ok := strings.Cut(name, "/"); ok && strings.ContainsAny(event, "*?[") {
		name = system
	}
	if !plainEvent.MatchString(name) {
		return ""
	}
	return name
}

// found puts what a kept instance has into the lines: globs and systems of events
// become what they stand for, and what no line mentions gets one.
func (p *Plan) found(armed wire.CaptureArmed) {
	functions := slices.Sorted(slices.Values(armed.Functions))
	known := map[string]bool{}
	for i := range p.Lines {
		l := &p.Lines[i]
		if l.Missing() {
			continue
		}
		var all []string
		switch l.Kind {
		case "function":
			all = match(functions, l.Armed[0])
		case "event":
			for _, glob := range []string{l.Armed[0], l.Armed[0] + "/*", "*/" + l.Armed[0]} {
				all = append(all, match(slices.Sorted(slices.Values(armed.Found)), glob)...)
			}
		}
		if len(all) > 0 {
			l.take(all)
		}
		for _, name := range append(all, l.Armed...) {
			known[name] = true
		}
	}
	for _, e := range armed.Found {
		if !known[e] {
			p.Lines = append(p.Lines, Line{Kind: "event", Name: e, Armed: []string{e}, Count: 1})
		}
	}
	switch {
	case armed.Tracer == "nop":
	case armed.Matched == 0:
		p.Lines = append(p.Lines, Line{Kind: "function", Name: "*", Armed: []string{"every function"}, Count: 1, Why: "the filter is empty"})
	default:
		for _, f := range functions {
			if !known[f] {
				p.Lines = append(p.Lines, Line{Kind: "function", Name: f, Armed: []string{f}, Count: 1})
			}
		}
	}
	if armed.Off {
		p.Lines = append(p.Lines, Line{Kind: "file", Name: "tracing_on", Why: "0 at the script's end: nothing was recorded from then on"})
	}
}
