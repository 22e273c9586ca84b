package perfetto

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"labctl/host/golden"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/internal/sample"
)

func export(t testing.TB, s sample.Sample) []byte {
	t.Helper()
	d, err := decode.Open(s.Capture)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSamples: the traces of every kernel become files that keep the rules of
// the format, with each event of the trace in them.
func TestSamples(t *testing.T) {
	for _, s := range sample.All(t) {
		t.Run(s.Name, func(t *testing.T) {
			b := export(t, s)
			if !bytes.Equal(b, export(t, s)) {
				t.Error("Write gives other bytes the second time")
			}
			tr := parse(t, b)
			checkOrder(t, tr)
			checkSlices(t, tr)
			checkThreads(t, tr)
			checkEvents(t, s, tr)
			checkFlows(t, tr)
		})
	}
}

func checkOrder(t *testing.T, tr *trace) {
	t.Helper()
	for i := 1; i < len(tr.events); i++ {
		if a, b := tr.events[i-1], tr.events[i]; b.time < a.time {
			t.Errorf("event %d (%s) at %d comes after %s at %d", i, b.name, b.time, a.name, a.time)
		}
	}
}

// checkSlices: no slice ends that did not begin.
func checkSlices(t *testing.T, tr *trace) {
	t.Helper()
	open := map[uint64]int{}
	for i, e := range tr.events {
		switch e.kind {
		case sliceBegin:
			if e.name == "" {
				t.Errorf("event %d: a slice without a name", i)
			}
			open[e.track]++
		case sliceEnd:
			if open[e.track]--; open[e.track] < 0 {
				t.Fatalf("event %d: the end of a slice that did not begin, on track %d", i, e.track)
			}
		case instant:
		default:
			t.Errorf("event %d: kind %d", i, e.kind)
		}
	}
	for uuid, n := range open {
		if tk := tr.tracks[uuid]; n > 1 && tk.kind == "track" {
			t.Errorf("%d slices are open on %s; want at most what runs at the end", n, tk.name)
		}
	}
}

// checkThreads: each task has one track, below that of its process.
func checkThreads(t *testing.T, tr *trace) {
	t.Helper()
	seen := map[int32]uint64{}
	for _, uuid := range tr.order {
		tk := tr.tracks[uuid]
		if tk.kind != "thread" {
			continue
		}
		if other, again := seen[tk.tid]; again {
			t.Errorf("task %d has tracks %d and %d; no number comes twice in the samples", tk.tid, other, uuid)
		}
		seen[tk.tid] = uuid
		if process := tr.tracks[tk.parent]; process.kind != "process" || process.pid != tk.pid {
			t.Errorf("task %d of process %d is below %+v", tk.tid, tk.pid, process)
		}
	}
}

// checkEvents: each event of the trace is there once, on its task's track, with
// a stack where it had one.
func checkEvents(t *testing.T, s sample.Sample, tr *trace) {
	t.Helper()
	d, err := decode.Open(s.Capture)
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		time  uint64
		tid   int32
		name  string
		stack bool
	}
	want := map[key]int{}
	for e, err := range d.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(e.Name(), "funcgraph_") {
			want[key{e.Time, int32(e.PID), e.Name(), len(e.Stack)+len(e.UserStack) > 0}]++
		}
	}
	got := map[key]int{}
	for _, e := range tr.events {
		tk := tr.tracks[e.track]
		if e.kind == instant && e.name != "lost events" && !strings.HasPrefix(e.name, "funcgraph_") {
			got[key{e.time, tk.tid, e.name, len(e.stack) > 0}]++
		}
	}
	if len(want) == 0 && !strings.HasSuffix(s.Name, "/graph") {
		t.Error("the sample has no events")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-trace +file):\n%s", diff)
	}
}

// checkFlows: each arrow goes from the parent's fork to the child's life, once.
func checkFlows(t *testing.T, tr *trace) {
	t.Helper()
	type half struct {
		tid   int32
		child string
	}
	begins := map[uint64]half{}
	forks, ends := 0, 0
	for i, e := range tr.events {
		tk := tr.tracks[e.track]
		if e.name == "sched_process_fork" && e.kind == instant {
			forks++
			if len(e.starts) != 1 {
				t.Errorf("event %d: a fork with %d arrows; want 1", i, len(e.starts))
			}
		}
		for _, f := range e.starts {
			if _, again := begins[f]; again || e.name != "sched_process_fork" {
				t.Errorf("event %d: arrow %d begins at %s, again %t; want once, at a fork", i, f, e.name, again)
			}
			begins[f] = half{tk.tid, arg(e, "child_pid")}
			if parent := arg(e, "parent_pid"); parent != fmt.Sprint(tk.tid) {
				t.Errorf("event %d: arrow %d begins at task %d; the parent is %s", i, f, tk.tid, parent)
			}
		}
		for _, f := range e.ends {
			ends++
			b, ok := begins[f]
			if !ok || b.child != fmt.Sprint(tk.tid) || e.kind != sliceBegin {
				t.Errorf("event %d: arrow %d ends at task %d; it begins for child %s", i, f, tk.tid, b.child)
			}
		}
	}
	if len(begins) != forks || ends != forks {
		t.Errorf("%d forks, %d arrows begin and %d end; want as many", forks, len(begins), ends)
	}
}

func arg(e event, name string) string {
	for _, a := range e.args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v
		}
	}
	return ""
}

// TestForks: the samples of task creation really have forks, with stacks that
// lead to the function that makes tasks, and a graph has slices.
func TestForks(t *testing.T) {
	for _, boot := range sample.Boots(t) {
		t.Run(boot, func(t *testing.T) {
			tr := parse(t, export(t, sample.Load(t, boot+"/creation")))
			forks := 0
			for _, e := range tr.events {
				if e.name != "sched_process_fork" {
					continue
				}
				forks++
				if n := len(e.stack); n == 0 || e.stack[n-1] != "kernel_clone" {
					t.Errorf("stack of a fork: %q; want kernel_clone innermost", e.stack)
				}
			}
			if forks == 0 {
				t.Error("no forks")
			}
			graph := parse(t, export(t, sample.Load(t, boot+"/graph")))
			if !slices.ContainsFunc(graph.events, func(e event) bool {
				return e.kind == sliceBegin && e.category == "ftrace" && e.name == "vfs_open"
			}) {
				t.Error("no slice of vfs_open in the function graph")
			}
			sched := parse(t, export(t, sample.Load(t, boot+"/sched")))
			if !slices.ContainsFunc(sched.events, func(e event) bool {
				return e.kind == sliceBegin && e.category == "sched" && strings.HasPrefix(sched.tracks[e.track].name, "CPU ")
			}) {
				t.Error("no slice of what ran on a CPU")
			}
		})
	}
}

// TestGolden exports a trace of task creation on arm64, a trace.dat that keeps
// when the samples are made anew.
func TestGolden(t *testing.T) {
	name := filepath.Join("testdata", "6.12-arm64-creation")
	packed, err := os.ReadFile(name + ".dat.zst")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := z.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tracedat.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, export(t, sample.Sample{Capture: &f.Capture})).String()
	golden.Check(t, name+".golden", got)
}

// TestBounds: with tables that hold next to nothing the file still keeps the
// rules, and says the same events.
func TestBounds(t *testing.T) {
	s := sample.Load(t, "6.12-amd64/creation")
	d, err := decode.Open(s.Capture)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := write(&b, d, bounds{interned: 20, tracks: 2}); err != nil {
		t.Fatal(err)
	}
	tr, whole := parse(t, b.Bytes()), parse(t, export(t, s))
	checkOrder(t, tr)
	checkSlices(t, tr)
	checkEvents(t, s, tr)
	checkFlows(t, tr)
	if len(tr.tracks) <= len(whole.tracks) {
		t.Errorf("%d tracks; want more than the %d that fit without bounds", len(tr.tracks), len(whole.tracks))
	}
}

func TestWriteError(t *testing.T) {
	d, err := decode.Open(sample.Load(t, "6.12-amd64/creation").Capture)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(full{}, d); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Write to a full disk = %v; want its error", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, iotest.ErrTimeout }
