package tracefs

import (
	"strings"
	"testing"

	"labctl/guest/wire"
)

// TestChanged bends a capture's settings one after another.
func TestChanged(t *testing.T) {
	k, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Probes: []wire.Kprobe{forkFamily}, Events: []wire.CaptureEvent{{Name: "sched/sched_process_fork"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remember(); err == nil || !strings.Contains(err.Error(), "does not record") {
		t.Errorf("Remember() of a capture that is off = %v; want an error", err)
	}
	r.remembered = nil
	set := func(name, text string) { k.file("instances/lab/"+name, text) }
	set("tracing_on", "1\n")
	if err := r.Remember(); err != nil {
		t.Fatal(err)
	}
	if got := r.Changed(); len(got) != 0 {
		t.Errorf("Changed() of nothing = %q", got)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"tracing_on", "0\n", `tracing_on: "1" before, "0" now`},
		{"events/sched/sched_process_fork/filter", "pid == 1\n", `events/sched/sched_process_fork/filter: "none" before, "pid == 1" now`},
		{"events/labctl_lab/clone/trigger", "traceoff:unlimited\n", `clone/trigger: "`},
		{"trace_options", "print-parent\nnooverwrite\n", `now`},
		{"tracing_cpumask", "1\n", `tracing_cpumask: "no such file or directory" before, "1" now`},
	} {
		set(tt.name, tt.text)
		got := r.Changed()
		if len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("Changed() after %s = %q; want %q", tt.name, got, tt.want)
		}
		if again := r.Changed(); len(again) != 0 {
			t.Errorf("Changed() after that = %q; want nothing", again)
		}
	}
	k.file("kprobe_events", "p:labctl_lab/clone kernel_clone flags=\\1024:x64\n")
	if got := r.Changed(); len(got) != 1 || !strings.Contains(got[0], `flags=\\1024:x64" now`) {
		t.Errorf("Changed() after another probe = %q", got)
	}
}
