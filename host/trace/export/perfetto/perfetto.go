// Package perfetto exports a trace for https://ui.perfetto.dev: a track for each
// task below its process, a track for each CPU with what ran there, an arrow from
// parent to child for each fork, and the stacks of events.
//
// It writes Perfetto's own protobuf (protos/perfetto/trace of the Perfetto
// project), of TrackDescriptor and TrackEvent packets alone, and not Chrome's JSON:
// the JSON importer draws flows but drops stacks and is kept "on a best effort
// basis" (google/perfetto#387), while a TrackEvent has flow ids, and since v53 a
// callstack that the UI shows with the event and sums up as a flame graph
// (google/perfetto#3299). Older versions pass over the stacks.
//
// Times are those of the trace clock.
package perfetto

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/decode"
	"labctl/host/trace/format"
	"labctl/host/trace/internal/callstack"
)

const (
	maxString   = 512 // bytes of a text in an argument
	maxElements = 64  // of an array in an argument
)

// bounds are on what is kept. Past them a table starts anew, and what it had is
// declared again when it comes again.
type bounds struct {
	interned int // names, frames and stacks
	tracks   int
}

// Write writes all events of d. Memory does not grow with the trace, but for
// tables with bounds.
//
// Damage to the trace does not end it: it is marked where it is, and the first is
// returned after all is written.
func Write(out io.Writer, d *decode.Decoder) error {
	return write(out, d, bounds{interned: 1 << 18, tracks: 1 << 16})
}

func write(out io.Writer, d *decode.Decoder, b bounds) error {
	w := &writer{
		out: bufio.NewWriterSize(out, 64<<10), dec: d, bounds: b,
		tasks: map[int]*task{}, processes: map[int]uint64{}, tgids: map[int]int{}, cpus: map[int]*cpu{},
	}
	if s := d.Stats(); len(s) > 0 {
		w.instance = s[0].Instance
	}
	w.forget()
	var damage error
	for e, err := range d.Events() {
		if w.err != nil {
			return w.err
		}
		if err != nil {
			if damage == nil {
				damage = err
			}
			w.damage(err)
			continue
		}
		w.event(e)
	}
	if err := errors.Join(w.err, w.out.Flush()); err != nil {
		return err
	}
	return damage
}

// task is the track of one task.
type task struct {
	uuid   uint64
	born   bool // its fork was seen: a slice is open for its life
	graph  int  // slices of functions open in it
	tgid   int
	thread string
}

// cpu is the track of one CPU.
type cpu struct {
	uuid    uint64
	running bool // a slice is open
}

type writer struct {
	out *bufio.Writer
	err error
	dec *decode.Decoder
	bounds

	instance  string // the first one, whose events make slices and arrows
	now       uint64 // of the latest event
	uuid      uint64 // the latest one given
	flow      uint64
	tasks     map[int]*task
	processes map[int]uint64 // by tgid
	tgids     map[int]int    // of tasks whose making was seen
	cpus      map[int]*cpu
	cpuGroup  uint64

	interned
	// Messages under construction, kept for their memory.
	packet, body, arg, sub []byte
}

func (w *writer) newUUID() uint64 {
	w.uuid++
	return w.uuid
}

func (w *writer) event(e *decode.Event) {
	w.now = e.Time
	if e.Lost > 0 {
		w.lost(e)
	}
	system, name := e.Format.System, e.Format.Name
	// What runs, and who is made, is told by one instance alone.
	first := e.Instance == w.instance
	if first && system == "ftrace" && (name == "funcgraph_entry" || name == "funcgraph_exit") && w.graph(e) {
		return
	}
	flow := uint64(0)
	if first && system == "sched" && name == "sched_process_fork" {
		w.flow++
		flow = w.flow
	}
	w.begin(instant, w.trackOf(e), name)
	w.category(system)
	if flow > 0 {
		w.body = protowire.AppendTag(w.body, flowIDs, protowire.Fixed64Type)
		w.body = protowire.AppendFixed64(w.body, flow)
	}
	if !first {
		w.argument("instance", func(b []byte) []byte {
			return appendString(b, annotationString, text.Line(cmp.Or(e.Instance, "top"), maxString))
		})
	}
	w.args(e)
	w.callstack(e)
	w.end()
	if !first || system != "sched" && system != "task" {
		return
	}
	switch name {
	case "task_newtask":
		w.made(e)
	case "sched_process_fork":
		w.fork(e, flow)
	case "sched_process_exit":
		w.exit(e)
	case "sched_switch":
		w.sched(e)
	}
}

// trackOf is the track of an event's task. The idle tasks of all CPUs share one
// number: theirs is the CPU's.
func (w *writer) trackOf(e *decode.Event) uint64 {
	if e.PID == 0 {
		return w.cpu(e.CPU).uuid
	}
	return w.task(e.PID).uuid
}

func (w *writer) task(pid int) *task {
	t := w.tasks[pid]
	if t == nil {
		t = w.newTask(pid, w.dec.Comm(pid))
	}
	return t
}

// newTask declares the track of a task, and its process's where that is new.
func (w *writer) newTask(pid int, name string) *task {
	if len(w.tasks) >= w.bounds.tracks {
		clear(w.tasks)
		clear(w.processes)
	}
	tgid, ok := w.tgids[pid]
	if !ok {
		if tgid, ok = w.dec.Tgid(pid); !ok {
			tgid = pid
		}
	}
	process := w.processes[tgid]
	if process == 0 {
		process = w.newUUID()
		w.processes[tgid] = process
		processName := name
		if tgid != pid {
			processName = w.dec.Comm(tgid)
		}
		d := appendVarint(nil, processPID, uint64(int64(int32(tgid))))
		d = appendString(d, processProcessName, processName)
		w.track(process, 0, trackProcess, d)
	}
	t := &task{uuid: w.newUUID(), tgid: tgid, thread: name}
	d := appendVarint(nil, threadPID, uint64(int64(int32(tgid))))
	d = appendVarint(d, threadTID, uint64(int64(int32(pid))))
	d = appendString(d, threadName, name)
	w.track(t.uuid, process, trackThread, d)
	w.tasks[pid] = t
	return t
}

func (w *writer) cpu(n int) *cpu {
	c := w.cpus[n]
	if c == nil {
		if w.cpuGroup == 0 {
			w.cpuGroup = w.newUUID()
			w.track(w.cpuGroup, 0, trackName, []byte("CPUs"))
		}
		c = &cpu{uuid: w.newUUID()}
		w.cpus[n] = c
		w.track(c.uuid, w.cpuGroup, trackName, fmt.Appendf(nil, "CPU %d", n))
	}
	return c
}

const cloneThread = 0x00010000 // CLONE_THREAD

// made notes the process of a task that is being made.
func (w *writer) made(e *decode.Event) {
	child, err := e.Int("pid")
	flags, err2 := e.Uint("clone_flags")
	if err != nil || err2 != nil || e.PID == 0 {
		return
	}
	if len(w.tgids) >= w.bounds.tracks {
		clear(w.tgids)
	}
	tgid := int(child)
	if flags&cloneThread != 0 {
		tgid = w.task(e.PID).tgid
	}
	w.tgids[int(child)] = tgid
}

// fork begins the child's life, where the arrow ends. A number that comes again
// is another task.
func (w *writer) fork(e *decode.Event, flow uint64) {
	child, err := e.Int("child_pid")
	if err != nil {
		return
	}
	pid := int(child)
	name := w.dec.Comm(pid)
	if comm, err := e.String("child_comm"); name == "<...>" && err == nil {
		name = comm
	}
	if tgid, ok := w.tgids[pid]; w.tasks[pid] != nil && (!ok || tgid == pid) {
		delete(w.processes, pid)
	}
	t := w.newTask(pid, name)
	t.born = true
	w.begin(sliceBegin, t.uuid, name)
	w.category("task")
	w.body = protowire.AppendTag(w.body, terminatingFlowIDs, protowire.Fixed64Type)
	w.body = protowire.AppendFixed64(w.body, flow)
	w.end()
}

// exit ends the task's life, with what is still open in it.
func (w *writer) exit(e *decode.Event) {
	t := w.tasks[e.PID]
	if t == nil || e.PID == 0 {
		return
	}
	w.close(t, 0)
	if t.born {
		w.begin(sliceEnd, t.uuid, "")
		w.end()
		t.born = false
	}
}

// close ends the task's functions down to a depth.
func (w *writer) close(t *task, depth int) {
	for ; t.graph > depth; t.graph-- {
		w.begin(sliceEnd, t.uuid, "")
		w.end()
	}
}

// sched ends the slice of what ran on the CPU and begins that of what runs next.
func (w *writer) sched(e *decode.Event) {
	c := w.cpu(e.CPU)
	if c.running {
		w.begin(sliceEnd, c.uuid, "")
		w.end()
	}
	next, err := e.Int("next_pid")
	c.running = err == nil && next != 0
	if !c.running {
		return
	}
	name, err := e.String("next_comm")
	if err != nil {
		name = w.dec.Comm(int(next))
	}
	w.begin(sliceBegin, c.uuid, name)
	w.category("sched")
	w.argument("pid", func(b []byte) []byte { return appendVarint(b, annotationInt, uint64(next)) })
	if prio, err := e.Int("next_prio"); err == nil {
		w.argument("prio", func(b []byte) []byte { return appendVarint(b, annotationInt, uint64(prio)) })
	}
	w.end()
}

// graph makes slices of the function graph tracer's events. It is false for one
// that fits no slice: the trace began inside the function, or events were lost.
func (w *writer) graph(e *decode.Event) bool {
	depth, err := e.Int("depth")
	fn, err2 := e.Uint("func")
	if err != nil || err2 != nil || e.PID == 0 || depth < 0 || depth > 1<<10 {
		return false
	}
	t := w.task(e.PID)
	if e.Format.Name == "funcgraph_exit" {
		if t.graph <= int(depth) {
			return false
		}
		w.close(t, int(depth)+1)
		w.begin(sliceEnd, t.uuid, "")
		w.args(e)
		w.end()
		t.graph--
		return true
	}
	w.close(t, int(depth))
	if t.graph < int(depth) {
		return false
	}
	name := fmt.Sprintf("%#x", fn)
	if sym, ok := w.dec.Symbol(fn); ok {
		name = sym.Name
	}
	w.begin(sliceBegin, t.uuid, name)
	w.category("ftrace")
	w.args(e)
	w.callstack(e)
	w.end()
	t.graph++
	return true
}

// lost marks where a CPU lost events.
func (w *writer) lost(e *decode.Event) {
	w.begin(instant, w.cpu(e.CPU).uuid, "lost events")
	w.category("labctl")
	w.argument("at least", func(b []byte) []byte { return appendVarint(b, annotationUint, e.Lost) })
	w.end()
}

func (w *writer) damage(err error) {
	if w.cpuGroup == 0 {
		w.cpu(0)
	}
	w.begin(instant, w.cpuGroup, "damage")
	w.category("labctl")
	w.argument("what", func(b []byte) []byte { return appendString(b, annotationString, text.Line(err.Error(), maxString)) })
	w.end()
}

// args adds the event's own fields.
func (w *writer) args(e *decode.Event) {
	if e.Stack != nil && e.Format.System == "ftrace" && e.Format.Name == "kernel_stack" {
		return
	}
	for i := range e.Format.Fields {
		f := &e.Format.Fields[i]
		w.argument(f.Name, func(b []byte) []byte { return w.value(b, e, f) })
	}
	if _, name, ok := e.Syscall(); ok {
		w.argument("syscall", func(b []byte) []byte { return appendString(b, annotationString, name) })
	}
	if name, ok := e.Error(); ok {
		w.argument("error", func(b []byte) []byte { return appendString(b, annotationString, name) })
	}
}

// value appends a field's value as a DebugAnnotation has it; nothing when the
// field is not in the record.
func (w *writer) value(b []byte, e *decode.Event, f *format.Field) []byte {
	switch {
	case f.IsText():
		if s, err := e.String(f.Name); err == nil {
			b = appendString(b, annotationString, text.Line(s, maxString))
		}
	case f.Array:
		values, err := e.Array(nil, f.Name)
		if err != nil {
			break
		}
		for _, v := range values[:min(len(values), maxElements)] {
			w.sub = appendVarint(w.sub[:0], annotationUint, v)
			b = appendBytes(b, annotationArray, w.sub)
		}
	default:
		v, ok := e.UintOf(f)
		if !ok {
			break
		}
		if sym, found := w.symbol(f, v); found {
			return appendString(b, annotationString, sym)
		}
		if f.Signed {
			n, _ := e.Int(f.Name)
			return appendVarint(b, annotationInt, uint64(n))
		}
		return appendVarint(b, annotationUint, v)
	}
	return b
}

// symbol is the name of an address of the kernel's code, for fields that can
// hold one.
func (w *writer) symbol(f *format.Field, v uint64) (string, bool) {
	if f.Size < 4 || v < 1<<31 {
		return "", false
	}
	sym, ok := w.dec.Symbol(v)
	if !ok {
		return "", false
	}
	return stack.Frame{Name: sym.Name, PC: v, Offset: v - sym.Start, Size: sym.Size, Module: sym.Module}.String(), true
}

// callstack adds the event's stack: the task's own frames outside, the kernel's
// inside.
func (w *writer) callstack(e *decode.Event) {
	if len(e.Stack)+len(e.UserStack) == 0 {
		return
	}
	w.sub = append(w.sub[:0], e.Format.Name...)
	for _, pcs := range [][]uint64{e.Stack, e.UserStack} {
		w.sub = append(w.sub, 0)
		for _, pc := range pcs {
			w.sub = binary.LittleEndian.AppendUint64(w.sub, pc)
		}
	}
	iid, ok := w.stacks[string(w.sub)]
	if !ok {
		key := string(w.sub)
		s := callstack.Of(w.dec, e)
		for _, pc := range e.UserStack {
			s.Frames = append(s.Frames, stack.Frame{PC: pc, Kind: stack.User})
		}
		iid = w.internStack(key, s.Frames)
	}
	if iid != 0 {
		w.body = appendVarint(w.body, callstackIID, iid)
	}
}
