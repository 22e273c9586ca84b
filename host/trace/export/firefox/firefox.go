// Package firefox exports a trace for https://profiler.firefox.com, in that project's
// "processed profile format" (docs-developer/CHANGELOG-formats.md of
// firefox-devtools/profiler), version 60: the viewer brings older versions up to its own.
//
// Each task is a thread. An event that has a stack is a sample, so that call trees and
// flame graphs count events, not time; every event is a marker with its fields' text.
// Addresses are resolved: nothing is left for the viewer to look up.
package firefox

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"labctl/host/outcome"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/decode"
	"labctl/host/trace/internal/callstack"
)

// formatVersion is that of the processed format.
const formatVersion = 60

// Bounds on what is kept: the viewer takes a profile whole, and so has it to be made.
const (
	maxMarkers = 1 << 18
	maxSamples = 1 << 20
	maxStrings = 1 << 18
	maxThreads = 1 << 12
	maxText    = 300
)

// Cut says what a profile lacks because of its bounds.
type Cut struct{ Markers, Samples int64 }

func (c *Cut) Error() string {
	return fmt.Sprintf("the profile lacks %d markers and %d stacks: it holds %d and %d at most, of %d tasks", c.Markers, c.Samples, maxMarkers, maxSamples, maxThreads)
}

// Outcome is CheckFailed: the file is not the whole trace.
func (c *Cut) Outcome() outcome.Kind { return outcome.CheckFailed }

// Write writes the events of d. Damage to the trace does not end it: the first is
// returned after all is written; so is a *Cut.
func Write(out io.Writer, d *decode.Decoder) error {
	p := &profile{dec: d, strings: map[string]int{}, threads: map[int]*thread{}, stacks: map[string]int{}, funcs: map[int]int{}, nodes: map[[2]int]int{}}
	var damage error
	for e, err := range d.Events() {
		if err != nil {
			if damage == nil {
				damage = err
			}
			continue
		}
		p.event(e)
	}
	w := bufio.NewWriterSize(out, 64<<10)
	if err := p.write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if damage == nil && p.cut != (Cut{}) {
		return &p.cut
	}
	return damage
}

type profile struct {
	dec     *decode.Decoder
	strings map[string]int // with their numbers
	list    []string
	threads map[int]*thread
	stacks  map[string]int // of a kernel's and a task's addresses, the last node
	funcs   map[int]int    // by name
	names   []int          // of functions
	nodes   map[[2]int]int // by parent and function
	prefix  []int          // of nodes; -1 for none
	frame   []int          // of nodes: a function has one frame

	start, end       uint64
	markers, samples int
	cut              Cut
	key              []byte
}

type thread struct {
	pid     int
	name    string
	samples []sample
	markers []marker
}

type sample struct {
	time  uint64
	stack int
}

type marker struct {
	time       uint64
	name, text int
	cpu        int32
}

func (p *profile) event(e *decode.Event) {
	if p.start == 0 {
		p.start = e.Time
	}
	p.end = max(p.end, e.Time)
	t := p.threads[e.PID]
	if t == nil && len(p.threads) < maxThreads {
		t = &thread{pid: e.PID, name: p.dec.Comm(e.PID)}
		p.threads[e.PID] = t
	}
	if len(e.Stack)+len(e.UserStack) > 0 {
		switch node := -1; {
		case t != nil && p.samples < maxSamples:
			if node = p.stack(e); node >= 0 {
				t.samples = append(t.samples, sample{e.Time, node})
				p.samples++
			}
		default:
			p.cut.Samples++
		}
	}
	if t == nil || p.markers == maxMarkers || len(p.list) >= maxStrings {
		p.cut.Markers++
		return
	}
	t.markers = append(t.markers, marker{e.Time, p.string(e.Name()), p.string(text.Line(p.dec.Text(e), maxText)), int32(e.CPU)})
	p.markers++
}

func (p *profile) string(s string) int {
	n, ok := p.strings[s]
	if !ok {
		n = len(p.list)
		p.strings[s] = n
		p.list = append(p.list, s)
	}
	return n
}

// stack is the node of an event's stack, which it makes if it is new; -1 if nothing is
// left of the stack without the tracing's own frames.
func (p *profile) stack(e *decode.Event) int {
	p.key = append(p.key[:0], e.Name()...)
	for _, pcs := range [][]uint64{e.Stack, e.UserStack} {
		p.key = append(p.key, 0)
		for _, pc := range pcs {
			p.key = binary.LittleEndian.AppendUint64(p.key, pc)
		}
	}
	if node, ok := p.stacks[string(p.key)]; ok {
		return node
	}
	s := callstack.Of(p.dec, e)
	for _, pc := range e.UserStack {
		s.Frames = append(s.Frames, stack.Frame{PC: pc, Kind: stack.User})
	}
	node := -1
	for _, f := range slices.Backward(s.Frames) {
		node = p.node(node, f)
	}
	if len(p.stacks) == maxStrings {
		clear(p.stacks)
	}
	p.stacks[string(p.key)] = node
	return node
}

func (p *profile) node(parent int, f stack.Frame) int {
	name := f.Name
	if name == "" {
		name = "0x" + strconv.FormatUint(f.PC, 16)
	}
	if f.Module != "" {
		name += " [" + f.Module + "]"
	}
	n := p.string(name)
	fn, ok := p.funcs[n]
	if !ok {
		fn = len(p.names)
		p.funcs[n] = fn
		p.names = append(p.names, n)
	}
	node, ok := p.nodes[[2]int{parent, fn}]
	if !ok {
		node = len(p.prefix)
		p.nodes[[2]int{parent, fn}] = node
		p.prefix, p.frame = append(p.prefix, parent), append(p.frame, fn)
	}
	return node
}

// object is one of JSON, written member by member in the order given.
type object []member

type member struct {
	key   string
	value any // marshalled; a func(*bufio.Writer) error writes itself
}

func (o object) write(w *bufio.Writer) error {
	w.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			w.WriteByte(',')
		}
		fmt.Fprintf(w, "%q:", m.key)
		if f, ok := m.value.(func(*bufio.Writer) error); ok {
			if err := f(w); err != nil {
				return err
			}
			continue
		}
		b, err := json.Marshal(m.value)
		if err != nil {
			return err
		}
		w.Write(b)
	}
	return w.WriteByte('}')
}

// column writes n values.
func column(n int, value func(b []byte, i int) []byte) func(*bufio.Writer) error {
	return func(w *bufio.Writer) error {
		w.WriteByte('[')
		for i := range n {
			b := w.AvailableBuffer()
			if i > 0 {
				b = append(b, ',')
			}
			w.Write(value(b, i))
		}
		return w.WriteByte(']')
	}
}

func same(n int, word string) func(*bufio.Writer) error {
	return column(n, func(b []byte, _ int) []byte { return append(b, word...) })
}

func numbers(v []int) func(*bufio.Writer) error {
	return column(len(v), func(b []byte, i int) []byte {
		if v[i] < 0 {
			return append(b, "null"...)
		}
		return strconv.AppendInt(b, int64(v[i]), 10)
	})
}

// time is milliseconds from the trace's start.
func (p *profile) time(b []byte, t uint64) []byte {
	t -= min(t, p.start)
	return fmt.Appendf(b, "%d.%06d", t/1e6, t%1e6)
}

type empty struct{}

func (p *profile) write(w *bufio.Writer) error {
	none := []empty{}
	meta := object{
		{"interval", 1}, {"startTime", 0}, {"profilingStartTime", 0},
		{"profilingEndTime", float64(p.end-p.start)/1e6 + 0.001},
		{"product", "labctl trace"}, {"processType", 0}, {"stackwalk", 1}, {"version", 27},
		{"preprocessedProfileVersion", formatVersion}, {"symbolicated", true},
		{"importedFrom", "trace.dat"}, {"usesOnlyOneStackType", true}, {"sourceCodeIsNotOnSearchfox", true},
		{"sampleUnits", map[string]string{"time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns"}},
		{"categories", []map[string]any{
			{"name": "Other", "color": "grey", "subcategories": []string{"Other"}},
			{"name": "Kernel", "color": "orange", "subcategories": []string{"Other"}},
		}},
		{"markerSchema", []map[string]any{{
			"name": "event", "display": []string{"marker-chart", "marker-table", "timeline-overview"},
			"tooltipLabel": "{marker.name}", "tableLabel": "{marker.data.text}",
			"fields": []map[string]any{
				{"key": "text", "label": "Event", "format": "unique-string"},
				{"key": "cpu", "label": "CPU", "format": "integer"},
			},
		}}},
		{"extensions", map[string]any{"baseURL": none, "id": none, "name": none, "length": 0}},
	}
	var threads []*thread
	for _, pid := range slices.Sorted(maps.Keys(p.threads)) {
		threads = append(threads, p.threads[pid])
	}
	return object{
		{"meta", meta.write},
		{"libs", none}, {"pages", none}, {"counters", none}, {"profilerOverhead", none},
		{"shared", p.shared},
		{"threads", func(w *bufio.Writer) error {
			w.WriteByte('[')
			for i, t := range threads {
				if i > 0 {
					w.WriteByte(',')
				}
				if err := p.thread(w, t); err != nil {
					return err
				}
			}
			return w.WriteByte(']')
		}},
	}.write(w)
}

// shared are the tables of all threads.
func (p *profile) shared(w *bufio.Writer) error {
	none := []empty{}
	f, s := len(p.names), len(p.prefix)
	return object{
		{"stringArray", column(len(p.list), func(b []byte, i int) []byte {
			q, _ := json.Marshal(p.list[i]) // a text always can be
			return append(b, q...)
		})},
		{"stackTable", object{{"frame", numbers(p.frame)}, {"prefix", numbers(p.prefix)}, {"length", s}}.write},
		{"frameTable", object{
			{"address", same(f, "-1")}, {"inlineDepth", same(f, "0")}, {"category", same(f, "1")}, {"subcategory", same(f, "0")},
			{"func", column(f, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(i), 10) })},
			{"nativeSymbol", same(f, "null")}, {"innerWindowID", same(f, "null")}, {"line", same(f, "null")}, {"column", same(f, "null")},
			{"length", f},
		}.write},
		{"funcTable", object{
			{"name", numbers(p.names)}, {"isJS", same(f, "false")}, {"relevantForJS", same(f, "false")}, {"resource", same(f, "-1")},
			{"source", same(f, "null")}, {"lineNumber", same(f, "null")}, {"columnNumber", same(f, "null")}, {"length", f},
		}.write},
		{"resourceTable", object{{"lib", none}, {"name", none}, {"host", none}, {"type", none}, {"length", 0}}.write},
		{"nativeSymbols", object{{"libIndex", none}, {"address", none}, {"name", none}, {"functionSize", none}, {"length", 0}}.write},
		{"sources", object{{"uuid", none}, {"filename", none}, {"length", 0}}.write},
	}.write(w)
}

func (p *profile) thread(w *bufio.Writer, t *thread) error {
	tgid, ok := p.dec.Tgid(t.pid)
	if !ok {
		tgid = t.pid
	}
	m, s := len(t.markers), len(t.samples)
	return object{
		{"processType", "default"}, {"processStartupTime", 0}, {"processShutdownTime", nil},
		{"registerTime", 0}, {"unregisterTime", nil}, {"pausedRanges", []empty{}},
		{"showMarkersInTimeline", true},
		{"name", t.name}, {"processName", p.dec.Comm(tgid)}, {"isMainThread", tgid == t.pid},
		{"pid", strconv.Itoa(tgid)}, {"tid", t.pid},
		{"samples", object{
			{"stack", column(s, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(t.samples[i].stack), 10) })},
			{"time", column(s, func(b []byte, i int) []byte { return p.time(b, t.samples[i].time) })},
			{"weight", nil}, {"weightType", "samples"}, {"length", s},
		}.write},
		{"markers", object{
			{"data", column(m, func(b []byte, i int) []byte {
				return fmt.Appendf(b, `{"type":"event","text":%d,"cpu":%d}`, t.markers[i].text, t.markers[i].cpu)
			})},
			{"name", column(m, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(t.markers[i].name), 10) })},
			{"startTime", column(m, func(b []byte, i int) []byte { return p.time(b, t.markers[i].time) })},
			{"endTime", same(m, "null")}, {"phase", same(m, "0")}, {"category", same(m, "1")}, {"length", m},
		}.write},
	}.write(w)
}
