package tracefs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

// What somebody else has armed in the top instance is recorded as it is, and is
// there afterwards.
func TestRecordKeep(t *testing.T) {
	k, fsys := captureFake(t)
	for name, text := range map[string]string{
		"current_tracer":                          "function\n",
		"set_ftrace_filter":                       "kernel_clone\ndo_exit:traceon:unlimited\n",
		"set_event":                               "sched:sched_process_fork\nkprobes:make\n../x:y\n",
		"events/sched/sched_process_fork/enable":  "1\n",
		"events/sched/sched_process_fork/trigger": "",
		"events/task/task_newtask/format":         "name: task_newtask\n",
		"events/task/task_newtask/enable":         "0\n",
		"events/kprobes/make/format":              "name: make\n",
		"events/signal/signal_deliver/format":     "name: signal_deliver\n",
	} {
		k.file(name, text)
	}
	params := wire.CaptureParams{
		Instance: "lab", Keep: true,
		Events:  []wire.CaptureEvent{{Name: "sched/sched_process_fork", Stack: true}, {Name: "task/task_newtask"}},
		Formats: []string{"signal", "nosuch/nosuch", "kprobes/make"},
	}
	r, err := fsys.Arm(params)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Arm(wire.CaptureParams{Instance: "other", Keep: true}); err == nil || !strings.Contains(err.Error(), "capture lab has current_tracer") {
		t.Errorf("a second capture of the top instance: %v; want that the first has it", err)
	}
	chunks, armed, _, pages := ship(t, r, 1<<20)
	if !armed.Top || armed.Off || armed.Tracer != "function" || armed.Matched != 2 || !slices.Equal(armed.Found, []string{"sched/sched_process_fork", "kprobes/make"}) {
		t.Errorf("armed %+v; want what the top instance has", armed)
	}
	var formats []string
	for _, c := range chunks {
		if strings.Contains(c, "/") {
			formats = append(formats, c)
		}
	}
	for _, e := range []string{"sched/sched_process_fork", "kprobes/make", "task/task_newtask", "signal/signal_deliver"} {
		if n := strings.Count(strings.Join(chunks, "\n"), e); n != 1 {
			t.Errorf("%d formats of %s, want one: %q", n, e, formats)
		}
	}
	if len(pages[0]) == 0 {
		t.Error("no pages of CPU 0")
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	want := []string{"events/sched/sched_process_fork/trigger=stacktrace", "events/task/task_newtask/enable=1", "tracing_on=0", "tracing_on=0", "events/task/task_newtask/enable=0", "events/sched/sched_process_fork/trigger=!stacktrace"}
	if diff := cmp.Diff(want, k.log); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}

	// One that does not record is not started.
	k.file("tracing_on", "0\n")
	r, err = fsys.Arm(wire.CaptureParams{Instance: "lab", Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Remove()
	if _, armed, _, _ := ship(t, r, 1<<20); !armed.Off {
		t.Error("tracing_on is 0, and what is armed does not say so")
	}
	if on, err := os.ReadFile(filepath.Join(k.root, "tracing_on")); err != nil || strings.TrimSpace(string(on)) != "0" {
		t.Errorf("tracing_on = %q, %v; want 0", on, err)
	}
}
