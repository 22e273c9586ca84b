package trace

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/golden"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/stack"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
)

// captures are the real ones of testdata, and what was asked for in each.
var captures = map[string][]plan.Line{
	"4.14-amd64": {{Kind: "probe", Name: "clone", Armed: []string{"_do_fork"}, Count: 1}},
	"4.19-arm":   {{Kind: "probe", Name: "clone", Armed: []string{"_do_fork"}, Count: 1}},
	"5.10-arm64": {{Kind: "probe", Name: "clone", Armed: []string{"kernel_clone"}, Count: 1}},
	"7.2-amd64": {
		{Kind: "function", Name: "vfs_read", Armed: []string{"vfs_read"}, Count: 1},
		{Kind: "event", Name: "sched/sched_process_exit", Armed: []string{"sched/sched_process_exit"}, Count: 1},
		{Kind: "probe", Name: "do_sys_openat2", Armed: []string{"do_sys_openat2"}, Count: 1},
	},
}

func readSample(t *testing.T, name string, log io.Writer, style string) *record.Trace {
	t.Helper()
	f, err := tracedat.Open(filepath.Join("testdata", name+".dat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr := &record.Trace{Argv: []string{"labprobe", "fork"}, Lines: captures[name], CPUs: []record.TraceCPU{{CPU: 0}, {CPU: 1}}, Exit: &wire.ExecResult{Exited: true}}
	s, ok := stack.FindStyle(style)
	if !ok {
		t.Fatalf("no style %s", style)
	}
	if err := Read(tr, &f.Capture, log, s); err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestRead(t *testing.T) {
	for name := range captures {
		var log, b strings.Builder
		tr := readSample(t, name, &log, "ftrace")
		if err := report.Trace(&b, &record.Run{Trace: tr}, report.Options{Style: report.TRACE32}); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, filepath.Join("testdata", name+".txt"), b.String()+"\n"+log.String())
	}
}

// TestLogChangesNothing: events that are not printed need not be read whole, and
// that makes no difference to the rest.
func TestLogChangesNothing(t *testing.T) {
	for name := range captures {
		if d := cmp.Diff(readSample(t, name, io.Discard, "gdb"), readSample(t, name, nil, "gdb")); d != "" {
			t.Errorf("%s: with a log, -, and without, +:\n%s", name, d)
		}
	}
}

// TestReadTells holds the captures to what ran.
func TestReadTells(t *testing.T) {
	for name := range captures {
		tr := readSample(t, name, nil, "gdb")
		program, child := 0, 0
		for i, task := range tr.Timeline.Tasks {
			if task.Exec == "/labctl/labprobe" {
				program = i
			}
			coded := tr.Timeline.Events[plan.EventExit] > 0 // probes alone do not trace exit codes
			if task.Flags == "SIGCHLD" && task.Died != nil && (!coded || task.Exit != nil && task.Exit.String() == "exit 0") {
				child = i
			}
		}
		if program == 0 || child == 0 {
			t.Fatalf("%s: the program is task %d, its child %d", name, program, child)
		}
		parent := tr.Timeline.Tasks[child].Parent
		if parent == nil || tr.Timeline.Tasks[*parent].Comm != "labprobe" {
			t.Errorf("%s: the child's parent is %v", name, parent)
		}
		if tr.Damaged != 0 || tr.Lost() != 0 || tr.Count() == 0 {
			t.Errorf("%s: %d damaged, %d lost of %d events", name, tr.Damaged, tr.Lost(), tr.Count())
		}
		for i, p := range tr.Timeline.Paths {
			if p.Stack.Truncated {
				t.Errorf("%s: path #%d of %s is truncated", name, i+1, p.Of)
			}
			if len(p.Stack.Frames) < 3 {
				t.Errorf("%s: path #%d of %s has %d frames", name, i+1, p.Of, len(p.Stack.Frames))
			}
		}
	}
}
