package trace

import (
	"path/filepath"
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
)

func wakeupSample(t *testing.T) *tracedat.File {
	t.Helper()
	f, err := tracedat.Open(filepath.Join("testdata", "wakeup-7.2-arm64.dat"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func wakeupTrace(missing bool) *record.Trace {
	l := plan.Line{Kind: "wakeup", Name: wire.WakeupEvent, Armed: []string{"x"}, Count: 1}
	if missing {
		l = plan.Line{Kind: "wakeup", Name: wire.WakeupEvent, Why: "no"}
	}
	return &record.Trace{Argv: []string{"cat"}, Lines: []plan.Line{l}, CPUs: []record.TraceCPU{{CPU: 0}, {CPU: 1}}}
}

// one is an event of a sample, with what is needed of it.
type one struct {
	name            string
	time            uint64
	cpu             int
	pid, prev, next int64
	lat             uint64
}

func sampleEvents(t *testing.T, f *tracedat.File) (all []one) {
	t.Helper()
	r, err := NewReader(&f.Capture)
	if err != nil {
		t.Fatal(err)
	}
	for e := range r.Events() {
		o := one{name: e.Name(), time: e.Time, cpu: e.CPU}
		o.pid, _ = e.Int("pid")
		o.prev, _ = e.Int("prev_pid")
		o.next, _ = e.Int("next_pid")
		o.lat, _ = e.Uint("lat")
		all = append(all, o)
	}
	return all
}

// TestWakeups holds what is made of a real trace against a search for each latency: back to
// the switch, and from there back to the latest wake-up.
func TestWakeups(t *testing.T) {
	f := wakeupSample(t)
	tr := wakeupTrace(false)
	if err := Read(tr, &f.Capture, nil, stack.Style{}); err != nil {
		t.Fatal(err)
	}
	w := tr.Wakeups
	all := sampleEvents(t, f)
	var found, ran, before int64
	var longest uint64
	for i, e := range all {
		if e.name != wire.WakeupEvent {
			continue
		}
		at := i - 1
		for at >= 0 && (all[at].name != "sched_switch" || all[at].cpu != e.cpu) {
			at--
		}
		if at < 0 || all[at].next != e.pid {
			t.Fatalf("event %d: no switch to task %d just before", i, e.pid)
		}
		from, left := at-1, false
		for ; from >= 0; from-- {
			if all[from].name == "sched_waking" && all[from].pid == e.pid {
				break
			}
			left = left || all[from].name == "sched_switch" && all[from].prev == e.pid
		}
		switch {
		case from < 0:
			before++
		case all[at].time-all[from].time != e.lat:
			t.Errorf("task %d at %d: the kernel says %d ns, the events %d", e.pid, e.time, e.lat, all[at].time-all[from].time)
		case left:
			ran++
		default:
			found++
			longest = max(longest, e.lat)
		}
	}
	if found < 100 || w.Count != found || w.Running != ran || w.Before != before || w.Agree != found+ran || w.Kernel != w.Agree || w.Reckoned != w.Agree || w.Differ != 0 || w.Lost || w.Max != int64(longest) {
		t.Errorf("%+v; want %d, %d that ran, %d before, the longest %d ns", w, found, ran, before, longest)
	}
	var sum int64
	for i, r := range w.Ranges {
		sum += r.Count
		if i > 0 && r.From != w.Ranges[i-1].To || r.To != max(1000, 2*r.From) {
			t.Errorf("range %d is %+v", i, r)
		}
	}
	if sum != w.Count || w.Max >= w.Ranges[len(w.Ranges)-1].To || w.Median > w.P90 || w.P90 > w.P99 || w.P99 > w.Max {
		t.Errorf("%d in ranges of %d; median %d, 90%% %d, 99%% %d, longest %d", sum, w.Count, w.Median, w.P90, w.P99, w.Max)
	}
	if len(w.Worst) != maxWorst || w.Worst[0].Latency != w.Max || w.Worst[0].By == nil || w.Worst[0].Task.Comm == "" {
		t.Errorf("worst %+v", w.Worst)
	}
}

// TestWakeupsContradict: a kernel that measures something else than its events say is
// contradicted, and one that does not measure is reckoned for.
func TestWakeupsContradict(t *testing.T) {
	run := func(missing bool, keep func(e *decode.Event, n int) bool) *record.Wakeups {
		f := wakeupSample(t)
		r, err := NewReader(&f.Capture)
		if err != nil {
			t.Fatal(err)
		}
		tr := wakeupTrace(missing)
		w := wakeupsOf(tr)
		count := map[string]int{}
		for e := range r.Events() {
			count[e.Name()]++
			if keep(e, count[e.Name()]) {
				w.event(e)
			}
		}
		w.end(tr, r.Decoder)
		return tr.Wakeups
	}
	whole := run(false, func(*decode.Event, int) bool { return true })
	if whole.Differ != 0 || whole.Agree == 0 {
		t.Fatalf("the whole: %+v", whole)
	}
	w := run(true, func(e *decode.Event, _ int) bool { return e.Name() != wire.WakeupEvent })
	if w.Kernel != 0 || w.Differ != 0 || w.Count < whole.Count || w.Count > whole.Count+2 || w.Max != whole.Max {
		t.Errorf("without the kernel's: %+v; want what it measured, and at most two at the end: %+v", w, whole)
	}
	w = run(false, func(e *decode.Event, n int) bool { return e.Name() != wire.WakeupEvent || n != 50 })
	if w.Differ != 1 || w.Kernel != whole.Kernel-1 || w.Reckoned != whole.Reckoned || !strings.Contains(w.Differing[0], "none by the kernel") {
		t.Errorf("one that the kernel kept to itself: %+v", w)
	}
	w = run(false, func(e *decode.Event, n int) bool { return e.Name() != "sched_switch" || n < 50 || n > 52 })
	if w.Differ == 0 || w.Agree >= whole.Agree {
		t.Errorf("without three switches: %+v", w)
	}
	w = run(false, func(e *decode.Event, n int) bool { return e.Name() != "sched_waking" || n != 80 })
	if w.Differ != 1 || w.Agree != whole.Agree-1 || w.Kernel != whole.Kernel {
		t.Errorf("without a wake-up: %+v", w)
	}
	w = run(false, func(e *decode.Event, n int) bool {
		if n == 100 {
			e.Lost = 3
		}
		return true
	})
	if !w.Lost {
		t.Errorf("events were lost, and that is not said: %+v", w)
	}
}

func TestPrograms(t *testing.T) {
	tr := readSample(t, "5.10-arm64", nil, "gdb")
	for i := range tr.Timeline.Tasks {
		if tr.Timeline.Tasks[i].Exec == "/labctl/labprobe" {
			tr.Exit = &wire.ExecResult{PID: tr.Timeline.Tasks[i].TID}
		}
	}
	of := programs(tr)
	for i := range tr.Timeline.Tasks {
		k := &tr.Timeline.Tasks[i]
		if k.Comm == "labprobe" != of[k.TID] {
			t.Errorf("%s-%d is of the program: %v", k.Comm, k.TID, of[k.TID])
		}
	}
}
