package trace

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/creation"
	"labctl/host/trace/decode"
)

// Bounds of what is kept of wake-ups.
const (
	maxWoken     = 1 << 16 // tasks that were woken and did not run yet
	maxLatencies = 1 << 20
	maxWorst     = 10
	maxDiffering = 10
)

// wakeups reckons how long tasks wait from sched_waking to sched_switch, as the kernel's
// triggers do, and holds that against the event in which the kernel says the same. Nil does
// nothing.
type wakeups struct {
	record.Wakeups
	kernels bool // the kernel measures
	begun   bool
	start   uint64 // of the trace
	woken   map[int]waking
	last    map[int]*switched // by CPU
	comms   map[int]string
	all     []latency
}

// waking is a task's wake-up.
type waking struct {
	time      uint64
	by, cpu   int
	interrupt bool
	ran       bool // it has left its CPU since: it had not slept
}

// switched is the latest switch of a CPU.
type switched struct {
	time      uint64
	pid, prio int
	waking    *waking // of the task, when there was one
	told      bool    // the kernel has measured
}

type latency struct {
	ns, time uint64
	pid      int
	prio     int
	cpu      int
	waking   *waking
}

// wakeupsOf is nil when t is not about wake-ups.
func wakeupsOf(t *record.Trace) *wakeups {
	for i := range t.Lines {
		if l := &t.Lines[i]; l.Kind == "wakeup" {
			return &wakeups{kernels: !l.Missing(), woken: map[int]waking{}, last: map[int]*switched{}, comms: map[int]string{}}
		}
	}
	return nil
}

func (w *wakeups) event(e *decode.Event) {
	if w == nil {
		return
	}
	if !w.begun {
		w.begun, w.start = true, e.Time
	}
	if e.Lost > 0 {
		// What was woken may have run, and been woken again.
		w.Lost = true
		clear(w.woken)
		delete(w.last, e.CPU)
	}
	switch f := e.Format; {
	case f.System == "sched" && f.Name == "sched_waking":
		w.waking(e)
	case f.System == "sched" && f.Name == "sched_switch":
		w.switched(e)
	case f.System == "synthetic" && strings.HasPrefix(f.Name, wire.WakeupEvent):
		w.measured(e)
	}
}

func (w *wakeups) waking(e *decode.Event) {
	pid, err := e.Int("pid")
	if err != nil {
		return
	}
	if _, ok := w.woken[int(pid)]; !ok && len(w.woken) == maxWoken {
		w.Lost = true
		return
	}
	w.woken[int(pid)] = waking{time: e.Time, by: e.PID, cpu: e.CPU, interrupt: e.Flags&(decode.HardIRQ|decode.SoftIRQ|decode.NMI) != 0}
}

func (w *wakeups) switched(e *decode.Event) {
	prev, err := e.Int("prev_pid")
	next, nerr := e.Int("next_pid")
	prio, perr := e.Int("next_prio")
	comm, cerr := e.String("next_comm")
	if cmp.Or(err, nerr, perr, cerr) != nil {
		return
	}
	w.settle(w.last[e.CPU])
	if len(w.comms) < maxWoken {
		w.comms[int(next)] = text.Line(comm, 32)
	}
	if was, ok := w.woken[int(prev)]; ok {
		was.ran = true
		w.woken[int(prev)] = was
	}
	s := &switched{time: e.Time, pid: int(next), prio: int(prio)}
	if was, ok := w.woken[int(next)]; ok {
		delete(w.woken, int(next))
		s.waking = &was
		if !w.kernels {
			w.Reckoned++
			w.add(latency{ns: e.Time - was.time, time: e.Time, pid: s.pid, prio: s.prio, cpu: e.CPU, waking: s.waking})
		}
	}
	w.last[e.CPU] = s
}

// settle says of a switch that is no CPU's last one whether the kernel has measured it.
func (w *wakeups) settle(s *switched) {
	if s != nil && s.waking != nil && !s.told && w.kernels {
		w.Reckoned++
		w.differ("task %d, which ran at %d: %d ns by the events, and none by the kernel", s.pid, s.time, s.time-s.waking.time)
	}
}

func (w *wakeups) differ(format string, args ...any) {
	w.Differ++
	if len(w.Differing) < maxDiffering {
		w.Differing = append(w.Differing, fmt.Sprintf(format, args...))
	}
}

// measured takes what the kernel says, just after the switch.
func (w *wakeups) measured(e *decode.Event) {
	ns, err := e.Uint("lat")
	pid, perr := e.Int("pid")
	prio, rerr := e.Int("prio")
	if cmp.Or(err, perr, rerr) != nil {
		return
	}
	s := w.last[e.CPU]
	l := latency{ns: ns, time: e.Time, pid: int(pid), prio: int(prio), cpu: e.CPU}
	switch {
	case s == nil || s.pid != l.pid || s.told:
		// The switch was lost, or was before the trace.
		if l.ns > e.Time-w.start {
			w.Before++
			return
		}
		w.differ("task %d, at %d: %d ns by the kernel, and there is no switch to it", l.pid, l.time, ns)
	case s.waking != nil && s.time-s.waking.time == ns:
		w.Agree++
	case s.waking != nil:
		w.differ("task %d, which ran at %d: %d ns by the kernel, and %d by the events", l.pid, s.time, ns, s.time-s.waking.time)
	case ns > s.time-w.start:
		// Before the kernel records, its triggers see events, and times that are not theirs.
		s.told = true
		w.Before++
		return
	default:
		w.differ("task %d, which ran at %d: %d ns by the kernel, and no wake-up by the events", l.pid, s.time, ns)
	}
	w.Kernel++
	if s != nil && s.pid == l.pid {
		if s.waking != nil {
			w.Reckoned++
		}
		s.told, l.time, l.waking = true, s.time, s.waking
	}
	w.add(l)
}

func (w *wakeups) add(l latency) {
	switch {
	case l.waking != nil && l.waking.ran:
		w.Running++
	case len(w.all) == maxLatencies:
		w.Unkept++
	default:
		w.all = append(w.all, l)
	}
}

// end puts the table into t, whose tree is known by now.
func (w *wakeups) end(t *record.Trace, d *decode.Decoder) {
	if w == nil {
		return
	}
	w.Lost = w.Lost || t.Lost() > 0 || t.Damaged > 0 || t.Left > 0
	if t.PIDOnly {
		of := programs(t)
		w.all = slices.DeleteFunc(w.all, func(l latency) bool {
			if !of[l.pid] {
				w.Others++
			}
			return !of[l.pid]
		})
	}
	slices.SortStableFunc(w.all, func(a, b latency) int { return cmp.Compare(a.ns, b.ns) })
	w.Count, w.Ranges, w.Worst = int64(len(w.all)), []record.WakeupRange{}, []record.WakeupLatency{}
	at := func(percent int) int64 { return int64(w.all[(len(w.all)-1)*percent/100].ns) }
	if len(w.all) > 0 {
		w.Median, w.P90, w.P99, w.Max = at(50), at(90), at(99), at(100)
		w.Ranges = ranges(w.all)
	}
	for i := len(w.all) - 1; i >= 0 && len(w.Worst) < maxWorst; i-- {
		w.Worst = append(w.Worst, w.worst(w.all[i], d))
	}
	t.Wakeups = &w.Wakeups
	for i := range t.Lines {
		if l := &t.Lines[i]; l.Kind == "wakeup" && !l.Missing() && w.Kernel == 0 {
			l.Idle, l.Never = 1, l.Names()
		}
	}
}

// ranges counts latencies, which are in their order, by powers of two of microseconds.
func ranges(all []latency) (out []record.WakeupRange) {
	for _, l := range all {
		from, to := int64(0), int64(1000)
		if k := min(bits.Len64(l.ns/1000), 50); k > 0 {
			from, to = 1000<<(k-1), 1000<<k
		}
		if out == nil {
			out = append(out, record.WakeupRange{From: from, To: to})
		}
		for last := out[len(out)-1]; last.From < from; last = out[len(out)-1] {
			out = append(out, record.WakeupRange{From: last.To, To: 2 * last.To})
		}
		out[len(out)-1].Count++
	}
	return out
}

func (w *wakeups) worst(l latency, d *decode.Decoder) record.WakeupLatency {
	task := func(pid int) creation.Task {
		comm := w.comms[pid]
		if comm == "" {
			comm = d.Comm(pid)
		}
		return creation.Task{TID: pid, Comm: comm}
	}
	out := record.WakeupLatency{Latency: int64(l.ns), Time: int64(l.time), CPU: l.cpu, Task: task(l.pid), Prio: l.prio}
	if l.waking != nil {
		by := task(l.waking.by)
		out.By, out.WokenOn, out.Interrupt = &by, l.waking.cpu, l.waking.interrupt
	}
	return out
}

// programs are the tasks of the program: those that it has made, and theirs.
func programs(t *record.Trace) map[int]bool {
	of := map[int]bool{}
	if t.Exit != nil {
		of[t.Exit.PID] = true
	}
	if t.Timeline == nil {
		return of
	}
	for more := true; more; {
		more = false
		for i := range t.Timeline.Tasks {
			k := &t.Timeline.Tasks[i]
			if k.Parent != nil && *k.Parent < len(t.Timeline.Tasks) && of[t.Timeline.Tasks[*k.Parent].TID] && !of[k.TID] {
				of[k.TID], more = true, true
			}
		}
	}
	return of
}
