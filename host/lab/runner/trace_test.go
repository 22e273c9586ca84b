package runner

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace"
	"labctl/host/trace/collect"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
)

// captured is a real run of the lab P1 on 6.12, parted into steps by the pids of
// their probes. TestParts of host/trace has the rest of what can be in a capture.
func captured(t *testing.T, dat string) (*trace.Parted, []*result.Step) {
	t.Helper()
	f, err := tracedat.Open(dat)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	armed := wire.CaptureArmed{Missing: []wire.CaptureMissing{{What: "event a/b", Why: "none"}}}
	steps := []*result.Step{{ID: "fork", PID: 138}, {ID: "thread", PID: 147}, {ID: "second", PID: 153}, {ID: "raw", PID: 159}}
	p, err := trace.Part(&collect.Result{Capture: &f.Capture, Armed: armed}, []string{"fork", "thread", "second", "raw"})
	if err != nil {
		t.Fatal(err)
	}
	return p, steps
}

var p1 = filepath.Join("testdata", "P1-arm64.dat")

// TestTake gives steps their parts of a capture.
func TestTake(t *testing.T) {
	p, steps := captured(t, p1)
	keep := map[string]bool{"task_newtask": true}
	take(p, steps, keep)
	last := int64(0)
	for i, s := range steps {
		if s.Lost != 0 || !slices.Equal(s.NotTraced, []string{"event a/b: none"}) {
			t.Errorf("step %s: %d lost, %q not traced", s.ID, s.Lost, s.NotTraced)
		}
		events, others := []int{35, 26, 26, 26}[i], []int{4, 1, 1, 1}[i]
		if len(s.Events) != events || len(s.Creations) != 5 || len(s.Others) != others {
			t.Errorf("step %s: %d events, %d creations, %d others; want %d, 5, %d", s.ID, len(s.Events), len(s.Creations), len(s.Others), events, others)
		}
		for _, e := range s.Events {
			if e.Time < last {
				t.Errorf("step %s: %s at %d; the step before ended at %d or later", s.ID, e.Name, e.Time, last)
			}
			if got, want := len(e.Stack.Frames) > 0, keep[e.Name]; got != want {
				t.Errorf("step %s: %s has a stack: %v; want %v", s.ID, e.Name, got, want)
			}
		}
		last = s.Events[len(s.Events)-1].Time
		for _, c := range s.Creations {
			if c.Stack.Truncated || len(c.Stack.Frames) < 5 || c.Symbol != "kernel_clone" {
				t.Errorf("step %s: creation of %d by %s, stack %+v", s.ID, c.Child.TID, c.Symbol, c.Stack)
			}
		}
	}

	// What was kept of it reads the same.
	kept := filepath.Join(t.TempDir(), record.DataFile)
	if err := p.WriteFile(kept); err != nil {
		t.Fatal(err)
	}
	p, again := captured(t, kept)
	take(p, again, keep)
	if d := cmp.Diff(steps, again); d != "" {
		t.Errorf("from the record: -want +got\n%s", d)
	}
}

func TestTakeCountsLost(t *testing.T) {
	p, steps := captured(t, p1)
	p.Lost, p.Damaged, p.Steps[1].Unkept = 3, 2, 10
	take(p, steps, nil)
	for i, s := range steps {
		if want := []int64{5, 15, 5, 5}[i]; s.Lost != want {
			t.Errorf("step %s: %d lost; want %d", s.ID, s.Lost, want)
		}
	}
}

func TestRequest(t *testing.T) {
	off := false
	for _, tt := range []struct {
		name   string
		trace  *lab.Trace
		events []wire.CaptureEvent // before those of creations
		probes []string
		kb     int
	}{
		{"creations alone", nil, nil, []string{"clone", "kthread_request", "clone_call"}, plan.CreationsKB},
		{"an event that is there already", &lab.Trace{Events: []lab.Event{{Name: "task/task_rename"}, {Name: "a/b", Filter: "c"}}},
			[]wire.CaptureEvent{{Name: "task/task_rename"}, {Name: "a/b", Filter: "c"}}, []string{"clone", "kthread_request", "clone_call"}, 4096},
		{"a function", &lab.Trace{Functions: []lab.Function{{Name: "leave", Of: []string{"do_exit", "exit"}}}, ProgramOnly: true},
			nil, []string{"leave", "clone", "kthread_request", "clone_call"}, 4096},
		{"no creations", &lab.Trace{Creations: &off, Events: []lab.Event{{Name: "a/b"}}}, []wire.CaptureEvent{{Name: "a/b"}}, nil, 4096},
	} {
		for _, arch := range []string{"amd64", "arm64"} {
			made, err := plan.Make(request(tt.trace), plan.Kernel{Arch: arch})
			if err != nil {
				t.Fatal(err)
			}
			p := made.Params
			want := tt.events
			if tt.trace.WithCreations() {
				for _, e := range creation.Events {
					if !slices.ContainsFunc(tt.events, func(have wire.CaptureEvent) bool { return have.Name == e }) {
						want = append(want[:len(want):len(want)], wire.CaptureEvent{Name: e})
					}
				}
			}
			if d := cmp.Diff(want, p.Events); d != "" {
				t.Errorf("%s on %s: events -want +got\n%s", tt.name, arch, d)
			}
			var probes []string
			for _, probe := range p.Probes {
				probes = append(probes, probe.Event)
				// On arm64 each name is tried with the link register as a symbol, as a word, and as
				// older kernels have words.
				if want := map[string]int{"amd64": 2, "arm64": 6}[arch]; probe.Event == "leave" && len(probe.Alternatives) != want {
					t.Errorf("%s on %s: %d alternatives of leave; want %d", tt.name, arch, len(probe.Alternatives), want)
				}
				if want := probe.Event != "clone"; probe.Optional != want {
					t.Errorf("%s on %s: %s is optional: %v; want %v", tt.name, arch, probe.Event, probe.Optional, want)
				}
			}
			if !slices.Equal(probes, tt.probes) || p.BufferKB != tt.kb || p.Max != maxPages || !p.Stacks || p.PIDOnly != (tt.trace != nil && tt.trace.ProgramOnly) {
				t.Errorf("%s on %s: probes %q of %q, %+v", tt.name, arch, probes, tt.probes, p)
			}
		}
	}
}

// TestWrongState: only a task that leaves for good in a state that is not its own shows
// that the states are wrong.
func TestWrongState(t *testing.T) {
	switched := func(name, state string, calls ...string) *event.Event {
		e := &event.Event{Name: name, Fields: []event.Field{{Key: "prev_state", Value: state}}, Stack: &stack.Stack{}}
		for _, c := range calls {
			e.Stack.Frames = append(e.Stack.Frames, stack.Frame{Name: c})
		}
		return e
	}
	bare := switched("sched_switch", "P ==>")
	bare.Stack = nil
	for _, tt := range []struct {
		name string
		e    *event.Event
		want bool
	}{
		{"dead in P", switched("sched_switch", "P ==>", "do_task_dead", "do_exit"), true},
		{"dead in Z", switched("sched_switch", "Z ==>", "__schedule", "do_task_dead", "do_exit"), false},
		{"parked", switched("sched_switch", "P ==>", "schedule", "__kthread_parkme"), false},
		{"another event", switched("sched_wakeup", "P", "do_task_dead"), false},
		{"no stack", bare, false},
	} {
		if got := wrongState(tt.e); got != tt.want {
			t.Errorf("%s: %t; want %t", tt.name, got, tt.want)
		}
	}
}
