package runner

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/record"
	"labctl/host/trace/collect"
	"labctl/host/trace/export/tracedat"
)

// recorded is a real run of the lab P1 on 6.12, its steps by the pids of their
// probes.
func recorded(t *testing.T, dat string) (*collect.Result, []*result.Step) {
	t.Helper()
	f, err := tracedat.Open(dat)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	armed := wire.CaptureArmed{Missing: []wire.CaptureMissing{{What: "event a/b", Why: "none"}}}
	return &collect.Result{Capture: &f.Capture, Armed: armed}, []*result.Step{
		{ID: "fork", PID: 138}, {ID: "thread", PID: 147}, {ID: "second", PID: 153}, {ID: "raw", PID: 159},
	}
}

var p1 = filepath.Join("testdata", "P1-arm64.dat")

// TestRead parts a recording by its marks.
func TestRead(t *testing.T) {
	res, steps := recorded(t, p1)
	dir := record.Dir{Path: t.TempDir()}
	p := plan{keep: map[string]bool{"task_newtask": true}}
	if err := p.read(res, steps, dir); err != nil {
		t.Fatal(err)
	}
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
			if got, want := len(e.Stack.Frames) > 0, p.keep[e.Name]; got != want {
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
	kept, again := recorded(t, dir.File(record.DataFile))
	if err := p.read(kept, again, record.Dir{}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(steps, again); d != "" {
		t.Errorf("from the record: -want +got\n%s", d)
	}
}

// TestReadSpoilt has marks that are missing, with and without a reason.
func TestReadSpoilt(t *testing.T) {
	res, steps := recorded(t, p1)
	more := append(steps, &result.Step{ID: "more", PID: 1})
	p := plan{}
	if err := p.read(res, more, record.Dir{}); err == nil || err.Error() != "the trace has no mark of step more" {
		t.Errorf("read of five steps = %v; want that the fifth has no mark", err)
	}
	res, steps = recorded(t, p1)
	res.Stopped.CPUs = []wire.CaptureCPU{{CPU: 0, Dropped: 3}}
	more = append(steps, &result.Step{ID: "more", PID: 1})
	if err := p.read(res, more, record.Dir{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range more {
		if s.Lost != 3 {
			t.Errorf("step %s: %d lost; want 3", s.ID, s.Lost)
		}
	}
	res.Stopped.Truncated = "enough"
	if err := p.read(res, steps, record.Dir{}); err == nil || !strings.Contains(err.Error(), "longer than 64 MB: enough") {
		t.Errorf("read of a recording that was cut = %v", err)
	}
}

func TestNewPlan(t *testing.T) {
	k := &kernel.Kernel{Dir: t.TempDir(), Files: map[string]kernel.File{}}
	off := false
	for _, tt := range []struct {
		name   string
		trace  *lab.Trace
		events []wire.CaptureEvent // behind those of creations
		probes []string
		kb     int
	}{
		{"creations alone", nil, nil, []string{"clone", "kthread_request"}, 1024},
		{"an event that is there already", &lab.Trace{Events: []lab.Event{{Name: "task/task_rename"}, {Name: "a/b", Filter: "c"}}},
			[]wire.CaptureEvent{{Name: "a/b", Filter: "c"}}, []string{"clone", "kthread_request"}, 4096},
		{"a function", &lab.Trace{Functions: []lab.Function{{Name: "leave", Of: []string{"do_exit", "exit"}}}, ProgramOnly: true},
			nil, []string{"clone", "kthread_request", "leave"}, 4096},
		{"no creations", &lab.Trace{Creations: &off, Events: []lab.Event{{Name: "a/b"}}}, []wire.CaptureEvent{{Name: "a/b"}}, nil, 4096},
	} {
		for _, arch := range []string{"amd64", "arm64"} {
			p, err := newPlan(t.Context(), arch, k, tt.trace)
			if err != nil {
				t.Fatal(err)
			}
			own := 5
			if !tt.trace.WithCreations() {
				own = 0
			}
			if d := cmp.Diff(tt.events, append([]wire.CaptureEvent(nil), p.Events[own:]...)); d != "" {
				t.Errorf("%s on %s: events -want +got\n%s", tt.name, arch, d)
			}
			var probes []string
			for _, probe := range p.Probes {
				probes = append(probes, probe.Event)
				// On arm64 each name is tried with the link register, and without.
				if want := map[string]int{"amd64": 2, "arm64": 4}[arch]; probe.Event == "leave" && len(probe.Alternatives) != want {
					t.Errorf("%s on %s: %d alternatives of leave; want %d", tt.name, arch, len(probe.Alternatives), want)
				}
			}
			if !slices.Equal(probes, tt.probes) || p.BufferKB != tt.kb || p.Max != maxPages || !p.Stacks || p.PIDOnly != (tt.trace != nil && tt.trace.ProgramOnly) {
				t.Errorf("%s on %s: probes %q of %q, %+v", tt.name, arch, probes, tt.probes, p.CaptureParams)
			}
		}
	}
}
