package trace

import (
	"path"
	"strings"

	"labctl/host/trace/decode"
	"labctl/host/trace/format"
	"labctl/host/trace/plan"
)

// hits is what a trace has events of.
type hits struct {
	events    map[*format.Event]bool
	functions map[uint64]bool // by address, of the function tracers
}

// maxHits bounds the functions that are told apart: a kernel has tens of thousands.
const maxHits = 1 << 17

func (h *hits) event(e *decode.Event) {
	if h.events == nil {
		h.events, h.functions = map[*format.Event]bool{}, map[uint64]bool{}
	}
	f := e.Format
	if f.System != "ftrace" {
		h.events[f] = true
		return
	}
	field := ""
	switch f.Name {
	case "function":
		field = "ip"
	case "funcgraph_entry", "fgraph_retaddr_entry":
		field = "func"
	default:
		return
	}
	if addr, err := e.Uint(field); err == nil && len(h.functions) < maxHits {
		h.functions[addr] = true
	}
}

// idle puts into the lines what they armed and was never hit. Of a script it is not
// known which probe is at which function: the event of a probe has a line of its own.
func (h *hits) idle(lines []plan.Line, d *decode.Decoder, script bool) {
	events, functions := map[string]bool{}, map[string]bool{}
	for f := range h.events {
		events[f.System+"/"+f.Name] = true
	}
	for addr := range h.functions {
		if s, ok := d.Symbol(addr); ok {
			functions[s.Name] = true
		}
	}
	for i := range lines {
		l := &lines[i]
		if l.Missing() {
			continue
		}
		var hit func(name string) bool
		switch {
		case l.Kind == "event":
			hit = func(name string) bool {
				return events[name] || (isGlob(name) || !strings.Contains(name, "/")) && has(events, name)
			}
		case l.Kind == "probe" && !script:
			hit = func(string) bool { return events[plan.Instance+"/"+l.Name] }
		case (l.Kind == "function" || l.Kind == "graph") && l.Armed[0] != "every function":
			hit = func(name string) bool { return functions[name] || isGlob(name) && has(functions, name) }
		default:
			continue
		}
		l.Idle, l.Never = 0, nil
		for _, name := range l.Names() {
			if hit(name) {
				continue
			}
			if l.Idle++; l.Idle <= plan.MaxNever {
				l.Never = append(l.Never, name)
			}
		}
	}
}

func isGlob(name string) bool { return strings.ContainsAny(name, "*?[") }

// has reports whether any of the names is one that was asked for by a glob, by a system
// of events or by an event of any system: as a script writes them, of which the kernel
// had none armed any longer when it was asked.
func has(names map[string]bool, asked string) bool {
	for name := range names {
		if ok, err := path.Match(asked, name); err == nil && ok || strings.HasPrefix(name, asked+"/") || strings.HasSuffix(name, "/"+asked) {
			return true
		}
	}
	return false
}
