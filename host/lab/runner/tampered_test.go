package runner

import (
	"slices"
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/trace"
	"labctl/host/trace/creation"
)

// TestTampered spoils one thing at a time of what a program leaves that was traced as it
// should be.
func TestTampered(t *testing.T) {
	no := false
	for _, tt := range []struct {
		name  string
		spoil func(*result.Step, *trace.Step, *wire.Watched)
		trace *lab.Trace
		want  []string // a part of each
	}{
		{name: "nothing", spoil: func(*result.Step, *trace.Step, *wire.Watched) {}},
		{name: "a setting", spoil: func(_ *result.Step, _ *trace.Step, w *wire.Watched) {
			w.Changed = []string{"tracing_on: 1 before,\x1b 0 now"}
		}, want: []string{"settings have changed: tracing_on"}},
		{name: "a mark", spoil: func(_ *result.Step, p *trace.Step, _ *wire.Watched) { p.Strange = []string{"labctl step 0"} },
			want: []string{`a mark in the trace that is not labctl's: "labctl step 0"`}},
		{name: "flags", spoil: func(_ *result.Step, p *trace.Step, _ *wire.Watched) {
			p.Creations[0].Disputed = "task_newtask has other flags: 0"
		},
			want: []string{"the creation of task 11: task_newtask has other flags: 0"}},
		{name: "no end", spoil: func(_ *result.Step, p *trace.Step, _ *wire.Watched) { p.Ended = false },
			want: []string{"the end of the program is not in the trace"}},
		{name: "hidden tasks", spoil: func(_ *result.Step, _ *trace.Step, w *wire.Watched) { w.Forks = 5 },
			want: []string{"the kernel counts 5 new tasks, and the trace has 2 of them"}},
		{name: "others' tasks are not traced", spoil: func(_ *result.Step, _ *trace.Step, w *wire.Watched) { w.Forks = 5 },
			trace: &lab.Trace{ProgramOnly: true}},
		{name: "no exit", spoil: func(s *result.Step, _ *trace.Step, _ *wire.Watched) { s.Events = s.Events[:1] },
			want: []string{"the exit of the program"}},
		{name: "one event of two", spoil: func(s *result.Step, _ *trace.Step, _ *wire.Watched) { s.Events = s.Events[1:] },
			want: []string{"the creation of task 11: task_newtask is not in the trace"}},
		{name: "a capture with holes", spoil: func(s *result.Step, p *trace.Step, w *wire.Watched) {
			s.Events, s.Lost, p.Ended, w.Forks = nil, 1, false, 100
		}},
		{name: "no creations", spoil: func(s *result.Step, p *trace.Step, w *wire.Watched) {
			s.Events, p.Ended, w.Forks = nil, false, 100
		}, trace: &lab.Trace{Creations: &no}},
	} {
		s := &result.Step{
			PID:       10,
			Events:    []result.Event{{Name: "task_newtask", TID: 10, Fields: map[string]string{"pid": "11"}}, {Name: "sched_process_exit", TID: 10}},
			Creations: []result.Creation{{Child: result.Who{TID: 11}}},
		}
		p := &trace.Step{Ended: true, NewTasks: 2, Creations: []creation.Creation{{Child: creation.Child{TID: 11}}}}
		w := &wire.Watched{Forks: 2}
		tt.spoil(s, p, w)
		got := tampered(s, p, w, tt.trace)
		if !slices.EqualFunc(got, tt.want, strings.Contains) || strings.Contains(strings.Join(got, ""), "\x1b") {
			t.Errorf("%s: %q; want %q", tt.name, got, tt.want)
		}
	}
}
