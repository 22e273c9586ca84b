package perfetto

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a decoded protobuf message: its fields in order.
type message []field

type field struct {
	number protowire.Number
	num    uint64
	bytes  []byte
}

func unmarshal(t testing.TB, b []byte) (m message) {
	t.Helper()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("tag: %v", protowire.ParseError(n))
		}
		b = b[n:]
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.num, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("field %d: wire type %d", number, kind)
		}
		if n < 0 {
			t.Fatalf("field %d: %v", number, protowire.ParseError(n))
		}
		m, b = append(m, f), b[n:]
	}
	return m
}

func (m message) all(number protowire.Number) (fields []field) {
	for _, f := range m {
		if f.number == number {
			fields = append(fields, f)
		}
	}
	return fields
}

func (m message) num(number protowire.Number) uint64 {
	if f := m.all(number); len(f) > 0 {
		return f[len(f)-1].num
	}
	return 0
}

func (m message) text(number protowire.Number) string {
	if f := m.all(number); len(f) > 0 {
		return string(f[len(f)-1].bytes)
	}
	return ""
}

// trace is what a reader of Perfetto's makes of a file.
type trace struct {
	tracks map[uint64]track
	order  []uint64 // of tracks
	events []event
}

type track struct {
	name, kind string
	pid, tid   int32
	parent     uint64
}

type event struct {
	time     uint64
	kind     uint64
	track    uint64
	name     string
	category string
	args     []string // "child_pid=137"
	starts   []uint64 // flows that go on from here
	ends     []uint64
	stack    []string // outermost first
}

// parse reads a trace strictly: what is referred to must have been said before.
func parse(t testing.TB, b []byte) *trace {
	t.Helper()
	tr := &trace{tracks: map[uint64]track{}}
	known := map[protowire.Number]map[uint64]message{}
	look := func(table protowire.Number, iid uint64) message {
		m, ok := known[table][iid]
		if !ok {
			t.Fatalf("packet %d: interned %d of field %d was not said", len(tr.events), iid, table)
		}
		return m
	}
	given := map[uint64]bool{}
	for i, p := range unmarshal(t, b) {
		if p.number != tracePacket {
			t.Fatalf("field %d in the trace; want packets only", p.number)
		}
		packet := unmarshal(t, p.bytes)
		if packet.num(packetSequence) != sequence {
			t.Fatalf("packet %d: sequence %d; want %d", i, packet.num(packetSequence), sequence)
		}
		flags := packet.num(packetFlags)
		if (i == 0) != (packet.num(packetFirst) == 1) || i == 0 && flags&stateCleared == 0 {
			t.Fatalf("packet %d: first %d, flags %d; want the first to say so and to clear", i, packet.num(packetFirst), flags)
		}
		if flags&stateCleared != 0 {
			clear(known)
		}
		for _, data := range packet.all(packetInterned) {
			for _, f := range unmarshal(t, data.bytes) {
				m := unmarshal(t, f.bytes)
				iid := m.num(internedIID)
				if iid == 0 || given[iid] {
					t.Fatalf("packet %d: number %d is given again", i, iid)
				}
				given[iid] = true
				if known[f.number] == nil {
					known[f.number] = map[uint64]message{}
				}
				known[f.number][iid] = m
			}
		}
		for _, d := range packet.all(packetDescriptor) {
			m := unmarshal(t, d.bytes)
			uuid := m.num(trackUUID)
			if _, again := tr.tracks[uuid]; again || uuid == 0 {
				t.Fatalf("packet %d: track %d is declared again", i, uuid)
			}
			tk := track{name: m.text(trackName), parent: m.num(trackParent), kind: "track"}
			if _, ok := tr.tracks[tk.parent]; tk.parent != 0 && !ok {
				t.Fatalf("packet %d: track %d comes before its parent %d", i, uuid, tk.parent)
			}
			for _, f := range m.all(trackProcess) {
				m := unmarshal(t, f.bytes)
				tk.kind, tk.pid, tk.name = "process", int32(m.num(processPID)), m.text(processProcessName)
			}
			for _, f := range m.all(trackThread) {
				m := unmarshal(t, f.bytes)
				tk.kind, tk.pid, tk.tid, tk.name = "thread", int32(m.num(threadPID)), int32(m.num(threadTID)), m.text(threadName)
			}
			tr.tracks[uuid] = tk
			tr.order = append(tr.order, uuid)
		}
		for _, f := range packet.all(packetEvent) {
			if flags&needsState == 0 {
				t.Fatalf("packet %d: an event without the flag that it needs what was said before", i)
			}
			m := unmarshal(t, f.bytes)
			e := event{time: packet.num(packetTimestamp), kind: m.num(eventType), track: m.num(eventTrack)}
			if _, ok := tr.tracks[e.track]; !ok {
				t.Fatalf("packet %d: track %d was not declared", i, e.track)
			}
			if iid := m.num(nameIID); iid != 0 {
				e.name = look(internedEventNames, iid).text(internedString)
			}
			for _, c := range m.all(categoryIIDs) {
				e.category = look(internedCategories, c.num).text(internedString)
			}
			for _, a := range m.all(debugAnnotations) {
				m := unmarshal(t, a.bytes)
				e.args = append(e.args, look(internedAnnotationNames, m.num(annotationNameIID)).text(internedString)+"="+value(t, m))
			}
			for _, f := range m.all(flowIDs) {
				e.starts = append(e.starts, f.num)
			}
			for _, f := range m.all(terminatingFlowIDs) {
				e.ends = append(e.ends, f.num)
			}
			if iid := m.num(callstackIID); iid != 0 {
				for _, id := range look(internedStacks, iid).all(stackFrames) {
					frame := look(internedFrames, id.num)
					path := look(internedMappings, frame.num(frameMapping)).num(mappingPath)
					look(internedPaths, path)
					e.stack = append(e.stack, look(internedFunctionNames, frame.num(frameFunction)).text(internedString))
				}
				if len(e.stack) == 0 {
					t.Fatalf("packet %d: a stack without frames", i)
				}
			}
			tr.events = append(tr.events, e)
		}
	}
	return tr
}

func value(t testing.TB, m message) string {
	if s := m.all(annotationString); len(s) > 0 {
		return fmt.Sprintf("%q", s[0].bytes)
	}
	if v := m.all(annotationInt); len(v) > 0 {
		return fmt.Sprint(int64(v[0].num))
	}
	if v := m.all(annotationUint); len(v) > 0 {
		return fmt.Sprint(v[0].num)
	}
	var elements []string
	for _, a := range m.all(annotationArray) {
		elements = append(elements, value(t, unmarshal(t, a.bytes)))
	}
	return "[" + strings.Join(elements, " ") + "]"
}

// String is the trace as text, for golden files.
func (tr *trace) String() string {
	var b strings.Builder
	for _, uuid := range tr.order {
		tk := tr.tracks[uuid]
		fmt.Fprintf(&b, "track %d: %s %q", uuid, tk.kind, tk.name)
		if tk.kind != "track" {
			fmt.Fprintf(&b, " pid %d tid %d", tk.pid, tk.tid)
		}
		fmt.Fprintf(&b, " in %d\n", tk.parent)
	}
	for _, e := range tr.events {
		kind := map[uint64]string{sliceBegin: "begin", sliceEnd: "end", instant: "at"}[e.kind]
		fmt.Fprintf(&b, "%d %d %s", e.time, e.track, kind)
		if e.name != "" {
			fmt.Fprintf(&b, " %s:%s", e.category, e.name)
		}
		for _, a := range e.args {
			fmt.Fprintf(&b, " %s", a)
		}
		for _, f := range e.starts {
			fmt.Fprintf(&b, " flow %d>", f)
		}
		for _, f := range e.ends {
			fmt.Fprintf(&b, " >flow %d", f)
		}
		b.WriteString("\n")
		if len(e.stack) > 0 {
			fmt.Fprintf(&b, "   %s\n", strings.Join(e.stack, ";"))
		}
	}
	return b.String()
}
