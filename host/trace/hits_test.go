package trace

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/plan"
)

// TestNeverHit holds what is armed against what a real capture has events of: vfs_read,
// sched_process_exit and the tree's own.
func TestNeverHit(t *testing.T) {
	f, err := tracedat.Open(filepath.Join("testdata", "7.2-amd64.dat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	many := make([]string, plan.MaxNever+5)
	for i := range many {
		many[i] = "never"
	}
	line := func(kind, name string, armed ...string) plan.Line {
		return plan.Line{Kind: kind, Name: name, Armed: armed, Count: len(armed)}
	}
	long := line("function", "vfs_*", "vfs_a", "vfs_read")
	long.All, long.Count = []string{"vfs_a", "vfs_read", "vfs_z"}, 3
	most := line("function", "*", "never")
	most.All, most.Count = many, len(many)
	for _, tt := range []struct {
		line   plan.Line
		script bool
		want   string // names of those that were never hit
	}{
		{line: line("function", "vfs_read", "vfs_read")},
		{line: line("function", "vfs_*", "vfs_read", "vfs_write"), want: "vfs_write"},
		{line: long, want: "vfs_a vfs_z"},
		{line: line("graph", "vfs_write", "vfs_write"), want: "vfs_write"},
		{line: line("function", "*", "every function")},
		{line: line("function", "vfs_*", "vfs_*"), script: true},
		{line: line("function", "ext9_*", "ext9_*"), script: true, want: "ext9_*"},
		{line: line("event", "sched", "sched/sched_process_exit", "sched/sched_switch"), want: "sched/sched_switch"},
		{line: line("event", "sched", "sched"), script: true},
		{line: line("event", "sched/sched_process_e*", "sched/sched_process_e*"), script: true},
		{line: line("event", "sched_process_exit", "sched_process_exit"), script: true},
		{line: line("event", "irq", "irq"), script: true, want: "irq"},
		{line: line("probe", "do_sys_openat2", "do_sys_openat2")},
		{line: line("probe", "other", "do_sys_openat2"), want: "do_sys_openat2"},
		{line: line("probe", "do_sys_openat2", "do_sys_openat3"), script: true},
		{line: plan.Line{Kind: "event", Name: "gone", Why: "this kernel has no such event"}},
		{line: line("tracer", "function", "function")},
	} {
		tr := record.Trace{Lines: []plan.Line{tt.line, most}}
		if tt.script {
			tr.Script = &record.Script{}
		}
		if err := Read(&tr, &f.Capture, nil, stack.Style{}); err != nil {
			t.Fatal(err)
		}
		l, want := tr.Lines[0], strings.Fields(tt.want)
		if d := cmp.Diff(want, l.Never, cmp.Transformer("join", func(s []string) string { return strings.Join(s, " ") })); d != "" || l.Idle != len(want) {
			t.Errorf("%s %s: %d never hit (-want +got):\n%s", l.Kind, l.Name, l.Idle, d)
		}
		if l := tr.Lines[1]; l.Idle != len(many) || len(l.Never) != plan.MaxNever {
			t.Errorf("of %d functions %d were never hit, and %d are named; want all, and %d", len(many), l.Idle, len(l.Never), plan.MaxNever)
		}
	}
}
