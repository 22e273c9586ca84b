// Package stats counts what a trace has: events by kind, CPU, task and function, and
// what is missing.
package stats

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"labctl/host/text"
	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
)

// Schema is that of Stats as JSON.
const Schema = "labctl.tracestats.v1"

// Bounds on what is told apart and on what is listed.
const (
	maxKeys   = 1 << 16
	maxDamage = 20
)

// Stats are the counts of one trace.
type Stats struct {
	Schema  string   `json:"schema"`
	File    string   `json:"file"`
	Version int      `json:"version"` // of trace.dat
	Kernel  string   `json:"kernel,omitempty"`
	Clock   string   `json:"clock,omitempty"`
	Events  int64    `json:"events"` // stacks, which are records of their own, included
	Stacks  int64    `json:"stacks"` // of them taken with another
	Lost    int64    `json:"lost"`
	Ticks   bool     `json:"ticks,omitempty"` // times count no nanoseconds but the clock's own unit
	Start   uint64   `json:"start"`           // nanoseconds
	End     uint64   `json:"end"`
	CPUs    []CPU    `json:"cpus"`
	Kinds   []Count  `json:"kinds"`     // of events, the most frequent first, as the rest
	Funcs   []Count  `json:"functions"` // traced ones, and the innermost of stacks
	Tasks   []Count  `json:"tasks"`
	Unkept  int64    `json:"unkept,omitempty"` // counted in no list: too many names
	Damaged int64    `json:"damaged,omitempty"`
	Damage  []string `json:"damage,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// CPU is one CPU's buffer, of one instance.
type CPU struct {
	CPU      int    `json:"cpu"`
	Instance string `json:"instance,omitempty"`
	Bytes    int64  `json:"bytes"`
	Events   int64  `json:"events"`
	Lost     int64  `json:"lost"`
	AtLeast  bool   `json:"at_least,omitempty"`
	Unknown  int64  `json:"unknown,omitempty"` // records of events without a format
	Damaged  int64  `json:"damaged,omitempty"`
}

// Count is how often something was there.
type Count struct {
	Name string `json:"name"`
	N    int64  `json:"n"`
}

var clock = regexp.MustCompile(`\[([^\]]+)\]`)

// Of counts a capture's events.
func Of(c *capture.Capture) (*Stats, error) {
	d, err := decode.Open(c)
	if err != nil {
		return nil, err
	}
	s := &Stats{Schema: Schema, Kernel: text.Line(c.Uname, 200)}
	if m := clock.FindSubmatch(c.Clocks); m != nil {
		s.Clock = text.Line(string(m[1]), 40)
	}
	s.Ticks = d.Ticks()
	kinds, funcs, tasks := counter{}, map[uint64]int64{}, map[int]int64{}
	first := true
	for e, err := range d.Events() {
		if err != nil {
			s.Damaged++
			if len(s.Damage) < maxDamage {
				s.Damage = append(s.Damage, text.Line(err.Error(), 300))
			}
			continue
		}
		if first {
			s.Start, first = e.Time, false
		}
		s.End = max(s.End, e.Time)
		system, name := e.Format.System, e.Format.Name
		if system == "" {
			system = "?"
		}
		s.Unkept += kinds.add(system+":"+name, 1)
		s.Unkept += add(tasks, e.PID)
		if pc, ok := function(e); ok {
			s.Unkept += add(funcs, pc)
		}
		for _, pcs := range [][]uint64{e.Stack, e.UserStack} {
			if len(pcs) > 0 && name != "kernel_stack" && name != "user_stack" {
				s.Stacks++
			}
		}
	}
	for i, st := range d.Stats() {
		s.CPUs = append(s.CPUs, CPU{
			CPU: st.CPU, Instance: text.Line(st.Instance, 60), Bytes: c.CPUs[i].Size, Events: st.Events,
			Lost: st.Missing(), AtLeast: st.AtLeast, Unknown: st.Unknown, Damaged: st.Damaged,
		})
		s.Events += st.Events
		s.Lost += st.Missing()
	}
	s.Kinds = kinds.sorted()
	named := counter{}
	for pc, n := range funcs {
		name := "?"
		if sym, ok := d.Symbol(pc); ok {
			name = sym.Name
		}
		named.add(name, n)
	}
	s.Funcs = named.sorted()
	byTask := counter{}
	for pid, n := range tasks {
		byTask.add(text.Line(d.Comm(pid), 16)+"-"+strconv.Itoa(pid), n)
	}
	s.Tasks = byTask.sorted()
	return s, nil
}

// function is where the kernel was: the function that was traced, called or probed.
func function(e *decode.Event) (uint64, bool) {
	for _, field := range []string{"ip", "func", "__probe_ip", "__probe_func"} {
		if f := e.Format.Field(field); f != nil {
			// A return is the same call once more.
			if e.Format.Name == "funcgraph_exit" {
				return 0, false
			}
			v, ok := e.UintOf(f)
			return v, ok && v != 0
		}
	}
	return 0, false
}

type counter map[string]int64

// add is how many could not be counted.
func (c counter) add(name string, n int64) int64 {
	if _, ok := c[name]; !ok {
		if len(c) >= maxKeys {
			return n
		}
		name = strings.Clone(name)
	}
	c[name] += n
	return 0
}

func add[K comparable](m map[K]int64, k K) int64 {
	if _, ok := m[k]; !ok && len(m) >= maxKeys {
		return 1
	}
	m[k]++
	return 0
}

func (c counter) sorted() []Count {
	out := make([]Count, 0, len(c))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		out = append(out, Count{name, c[name]})
	}
	slices.SortStableFunc(out, func(a, b Count) int { return cmp.Compare(b.N, a.N) })
	return out
}
