package perfetto

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"labctl/host/stack"
)

// Numbers of fields, by message (protos/perfetto/trace of the Perfetto project).
const (
	tracePacket = 1 // Trace

	// TracePacket
	packetTimestamp  = 8
	packetSequence   = 10
	packetEvent      = 11
	packetInterned   = 12
	packetFlags      = 13
	packetDropped    = 42
	packetDescriptor = 60
	packetFirst      = 87

	// TrackDescriptor, ProcessDescriptor, ThreadDescriptor
	trackUUID          = 1
	trackName          = 2
	trackProcess       = 3
	trackThread        = 4
	trackParent        = 5
	processPID         = 1
	processProcessName = 6
	threadPID          = 1
	threadTID          = 2
	threadName         = 5

	// TrackEvent
	categoryIIDs       = 3
	debugAnnotations   = 4
	eventType          = 9
	nameIID            = 10
	eventTrack         = 11
	flowIDs            = 47
	terminatingFlowIDs = 48
	callstackIID       = 56

	// DebugAnnotation
	annotationNameIID = 1
	annotationUint    = 3
	annotationInt     = 4
	annotationString  = 6
	annotationArray   = 12

	// InternedData
	internedCategories      = 1
	internedEventNames      = 2
	internedAnnotationNames = 3
	internedFunctionNames   = 5
	internedFrames          = 6
	internedStacks          = 7
	internedPaths           = 17
	internedMappings        = 19

	// What is interned: EventName, InternedString, Frame, Callstack, Mapping
	internedIID    = 1
	internedString = 2
	frameFunction  = 2
	frameMapping   = 3
	framePC        = 4
	stackFrames    = 2
	mappingPath    = 7
)

// TrackEvent.Type
const (
	sliceBegin = 1
	sliceEnd   = 2
	instant    = 3
)

// TracePacket.SequenceFlags
const (
	stateCleared = 1
	needsState   = 2
)

// sequence is the number of the only writer.
const sequence = 1

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendString(b []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// interned are the tables of what is written once and referred to by number.
type interned struct {
	last     uint64 // number given; none is given twice, even to what was forgotten
	strings  map[internedKey]uint64
	frames   map[internedFrame]uint64
	stacks   map[string]uint64
	fresh    []byte // InternedData of the packet under construction
	entry    []byte
	started  bool // a packet was written
	restated bool // the reader was told to forget what it knew
}

type internedKey struct {
	field protowire.Number
	text  string
}

type internedFrame struct {
	name, module string
	pc           uint64
}

// forget starts the tables anew.
func (w *writer) forget() {
	w.strings, w.frames, w.stacks = map[internedKey]uint64{}, map[internedFrame]uint64{}, map[string]uint64{}
	w.restated = false
}

func (w *writer) intern(field protowire.Number, text string) uint64 {
	key := internedKey{field, text}
	if iid, ok := w.strings[key]; ok {
		return iid
	}
	w.last++
	w.strings[key] = w.last
	w.entry = appendVarint(w.entry[:0], internedIID, w.last)
	w.entry = appendString(w.entry, internedString, text)
	w.fresh = appendBytes(w.fresh, field, w.entry)
	return w.last
}

// internMapping is the kernel's image, or a module: no more than a name.
func (w *writer) internMapping(name string) uint64 {
	key := internedKey{internedMappings, name}
	if iid, ok := w.strings[key]; ok {
		return iid
	}
	path := w.intern(internedPaths, name)
	w.last++
	w.strings[key] = w.last
	w.entry = appendVarint(w.entry[:0], internedIID, w.last)
	w.entry = appendVarint(w.entry, mappingPath, path)
	w.fresh = appendBytes(w.fresh, internedMappings, w.entry)
	return w.last
}

func (w *writer) internFrame(f stack.Frame) uint64 {
	key := internedFrame{f.Name, f.Module, f.PC}
	switch {
	case f.Kind == stack.User:
		key.module = "user"
	case f.Module == "":
		key.module = "kernel"
	}
	if key.name == "" {
		key.name = fmt.Sprintf("%#x", f.PC)
	}
	if iid, ok := w.frames[key]; ok {
		return iid
	}
	function, mapping := w.intern(internedFunctionNames, key.name), w.internMapping(key.module)
	w.last++
	w.frames[key] = w.last
	w.entry = appendVarint(w.entry[:0], internedIID, w.last)
	w.entry = appendVarint(w.entry, frameFunction, function)
	w.entry = appendVarint(w.entry, frameMapping, mapping)
	w.entry = appendVarint(w.entry, framePC, f.PC)
	w.fresh = appendBytes(w.fresh, internedFrames, w.entry)
	return w.last
}

// internStack takes frames innermost first and writes them outermost first. It
// is 0 for no frames.
func (w *writer) internStack(key string, frames []stack.Frame) uint64 {
	if len(frames) == 0 {
		return 0
	}
	ids := make([]uint64, len(frames))
	for i, f := range frames {
		ids[len(frames)-1-i] = w.internFrame(f)
	}
	w.last++
	w.stacks[key] = w.last
	w.entry = appendVarint(w.entry[:0], internedIID, w.last)
	for _, id := range ids {
		w.entry = appendVarint(w.entry, stackFrames, id)
	}
	w.fresh = appendBytes(w.fresh, internedStacks, w.entry)
	return w.last
}

// track writes the packet that declares a track. what is the one field that
// tells what it is of.
func (w *writer) track(uuid, parent uint64, field protowire.Number, what []byte) {
	b := appendVarint(nil, trackUUID, uuid)
	if parent != 0 {
		b = appendVarint(b, trackParent, parent)
	}
	b = appendBytes(b, field, what)
	w.write(appendBytes(w.head(0), packetDescriptor, b))
}

// begin starts an event; end writes it. Tracks must be declared before.
func (w *writer) begin(kind, track uint64, name string) {
	if len(w.strings)+len(w.frames)+len(w.stacks) > w.bounds.interned {
		w.forget()
	}
	w.body = appendVarint(w.body[:0], eventType, kind)
	w.body = appendVarint(w.body, eventTrack, track)
	if name != "" {
		w.body = appendVarint(w.body, nameIID, w.intern(internedEventNames, name))
	}
}

func (w *writer) category(name string) {
	if name != "" {
		w.body = appendVarint(w.body, categoryIIDs, w.intern(internedCategories, name))
	}
}

// argument adds an argument, whose value is what the function appends.
func (w *writer) argument(name string, value func([]byte) []byte) {
	w.arg = appendVarint(w.arg[:0], annotationNameIID, w.intern(internedAnnotationNames, name))
	w.arg = value(w.arg)
	w.body = appendBytes(w.body, debugAnnotations, w.arg)
}

func (w *writer) end() {
	p := appendVarint(w.head(needsState), packetTimestamp, w.now)
	if len(w.fresh) > 0 {
		p = appendBytes(p, packetInterned, w.fresh)
		w.fresh = w.fresh[:0]
	}
	w.packet = appendBytes(p, packetEvent, w.body)
	w.write(w.packet)
}

// head starts a packet. The first one after forget tells the reader to forget,
// too, and the first of all that nothing came before it.
func (w *writer) head(flags uint64) []byte {
	p := appendVarint(w.packet[:0], packetSequence, sequence)
	if !w.restated {
		w.restated = true
		flags |= stateCleared
	}
	if flags != 0 {
		p = appendVarint(p, packetFlags, flags)
	}
	if !w.started {
		w.started = true
		p = appendVarint(appendVarint(p, packetFirst, 1), packetDropped, 1)
	}
	return p
}

func (w *writer) write(packet []byte) {
	if w.err != nil {
		return
	}
	head := protowire.AppendVarint(protowire.AppendTag(w.arg[:0], tracePacket, protowire.BytesType), uint64(len(packet)))
	if _, w.err = w.out.Write(head); w.err == nil {
		_, w.err = w.out.Write(packet)
	}
}
