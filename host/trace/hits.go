package trace

import (
	"path"
	"slices"
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

// idle puts into the lines how many of what they armed was never hit.
func (h *hits) idle(lines []plan.Line, d *decode.Decoder) {
	events, names := map[string]bool{}, map[string]bool{}
	for f := range h.events {
		events[f.System+"/"+f.Name] = true
	}
	for addr := range h.functions {
		if s, ok := d.Symbol(addr); ok {
			names[s.Name] = true
		}
	}
	for i := range lines {
		l := &lines[i]
		if l.Missing() {
			continue
		}
		seen := 0
		switch l.Kind {
		case "event":
			for name := range events {
				if slices.Contains(l.Armed, name) || l.Count > len(l.Armed) && of(l.Name, name) {
					seen++
				}
			}
		case "probe":
			if events[plan.Instance+"/"+l.Name] {
				seen = l.Count
			}
		case "function", "graph":
			for name := range names {
				if slices.Contains(l.Armed, name) || l.Count > len(l.Armed) && of(l.Name, name) {
					seen++
				}
			}
			if l.Armed[0] == "every function" {
				continue
			}
		default:
			continue
		}
		l.Idle = max(l.Count-seen, 0)
	}
}

// of reports whether a glob, or a system of events, has a name.
func of(asked, name string) bool {
	ok, err := path.Match(asked, name)
	return err == nil && ok || strings.HasPrefix(name, asked+"/")
}
