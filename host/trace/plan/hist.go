package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/text"
)

// Bounds that the kernel sets on a histogram's size (kernel/trace/tracing_map.h).
const (
	minHist = 1 << 7
	maxHist = 1 << 17
)

// maxHistName bounds the name by which a histogram is spoken of, in bytes.
const maxHistName = 140

// hist is a histogram as it is asked for: "sched:sched_switch key=next_comm sort=hitcount
// size=256 if prev_prio < 100".
type hist struct {
	event              string
	keys, values, sort string
	size               int
	filter             string
}

// parseHist reads what --hist takes. Between the parts there may be spaces or, as in the
// kernel's triggers, colons.
func parseHist(asked string) (h hist, err error) {
	event, rest, _ := strings.Cut(strings.TrimSpace(asked), " ")
	h.event = strings.Replace(event, ":", "/", 1)
	rest, h.filter, _ = strings.Cut(" "+rest+" ", " if ")
	h.filter = strings.TrimSpace(h.filter)
	system, name, both := strings.Cut(h.event, "/")
	if !isEvent(system) || both && !isEvent(name) || strings.ContainsAny(h.event, "*?") {
		return h, fmt.Errorf("want one event, SYSTEM:EVENT, and then key=FIELD")
	}
	if strings.ContainsAny(h.filter, "\n\x00") {
		return h, fmt.Errorf("want a filter of one line")
	}
	rest = strings.TrimPrefix(strings.TrimSpace(rest), "hist:")
	for _, word := range strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ':' }) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "key", "keys":
			err = setFields(&h.keys, value)
		case "val", "vals", "values":
			err = setFields(&h.values, value)
		case "sort":
			err = setFields(&h.sort, value)
		case "size":
			if h.size, err = strconv.Atoi(value); err != nil || h.size < minHist || h.size > maxHist {
				err = fmt.Errorf("size: want a number from %d to %d", minHist, maxHist)
			}
		default:
			err = fmt.Errorf("%q: want key=, val=, sort=, size=, or if and a filter", text.Line(word, 40))
		}
		if err != nil {
			return h, err
		}
	}
	if h.keys == "" {
		return h, fmt.Errorf("key=FIELD is missing: by what is it to be counted?")
	}
	return h, nil
}

// setFields takes fields with their modifiers, "common_pid.execname,bytes.buckets=100".
func setFields(to *string, value string) error {
	if *to != "" {
		return fmt.Errorf("%s and %s: give fields once, with commas", text.Line(*to, 40), text.Line(value, 40))
	}
	for _, f := range strings.Split(value, ",") {
		name, mod, _ := strings.Cut(f, ".")
		mod, number, buckets := strings.Cut(mod, "=")
		for _, part := range strings.Split(mod, ".") {
			if part == "percent" || part == "graph" {
				return fmt.Errorf("%q: the table draws bars by itself", text.Line(f, 40))
			}
		}
		_, err := strconv.Atoi(number)
		if !isEvent(name) || mod != "" && !isEvent(strings.ReplaceAll(mod, ".", "")) || buckets && (err != nil || mod != "buckets") {
			return fmt.Errorf("%q: want a field of the event, with .hex, .sym, .execname and the like behind it", text.Line(f, 40))
		}
	}
	*to = value
	return nil
}

// specs are what to try as a trigger.
func (h *hist) specs() []string {
	keys := strings.Split(h.keys, ",")
	sort := h.sort
	if sort == "" {
		sort = "hitcount.descending"
		// Ranges are read in their own order.
		if name, mod, _ := strings.Cut(keys[0], "."); len(keys) == 1 && (mod == "log2" || strings.HasPrefix(mod, "buckets")) {
			sort = name
		}
	}
	tail := ""
	if h.values != "" {
		tail += ":vals=" + h.values
	}
	tail += ":sort=" + sort
	if h.size != 0 {
		tail += ":size=" + strconv.Itoa(h.size)
	}
	out := []string{"keys=" + h.keys + tail}
	// Older kernels call it so, and newer ones take both.
	if i := slices.Index(keys, "common_stacktrace"); i >= 0 {
		keys[i] = "stacktrace"
		out = append(out, "keys="+strings.Join(keys, ",")+tail)
	}
	return out
}

// hist plans one histogram.
func (m *maker) hist(asked string) error {
	h, err := parseHist(asked)
	if err != nil {
		return fmt.Errorf("hist %q: %w", text.Line(asked, 80), err)
	}
	l := Line{Kind: "hist", Name: text.Line(strings.TrimSpace(asked), maxHistName)}
	names := m.k.Names
	switch system, _, both := strings.Cut(h.event, "/"); {
	case system == Instance, names == nil, m.exact:
		l.Armed = []string{h.event}
	case both:
		for _, c := range ksym.EventCandidates(h.event) {
			if found := match(names.events, c.Name); len(found) > 0 {
				l.Armed, l.Why = found, c.Why
				break
			}
		}
	default:
		l.Armed = match(names.events, "*/"+h.event)
	}
	switch {
	case len(l.Armed) == 0:
		l.Why = "this kernel has no such event"
	case len(l.Armed) > 1:
		l.Armed, l.Why = nil, "several systems have an event of this name: "+strings.Join(l.Armed, ", ")
	default:
		m.plan.Params.Hists = append(m.plan.Params.Hists, wire.CaptureHist{Name: l.Name, Event: l.Armed[0], Specs: h.specs(), Filter: h.filter})
	}
	m.line(l)
	return nil
}
