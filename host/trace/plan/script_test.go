package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

// scriptLog is what the guest's shell says of a script of the book's kind.
const scriptLog = `{"file":"set_ftrace_filter","asked":"secondary_start_kernel","became":"kernel_halt","why":"not traceable"}
{"file":"set_ftrace_filter","asked":"_do_fork","became":"kernel_clone","why":"renamed"}
{"file":"set_ftrace_filter","asked":"copy_process*","became":"copy_process*"}
{"file":"set_ftrace_filter","asked":"_do_fork","became":"kernel_clone","why":"renamed"}
{"file":"set_ftrace_filter","asked":"!schedule","became":"!schedule"}
{"file":"set_ftrace_filter","asked":"bcm2835_mmc_irq","why":"hardware of a Raspberry Pi"}
{"file":"set_ftrace_notrace","asked":"insert_work","became":"insert_work"}
{"file":"events/signal/enable","asked":"signal","became":"signal"}
{"file":"events/kmem/kmalloc_node/enable","asked":"kmem/kmalloc_node","became":"kmem/kmalloc","why":"merged"}
{"file":"instances/x/events/a/b/enable","asked":"a/b","why":"no such event in this kernel"}
{"file":"set_event","asked":"sched:sched_*","became":"sched:sched_*"}
{"file":"set_event","asked":"sys_enter","became":"sys_enter"}
{"file":"options/nosuch","asked":"nosuch","why":"no such file in this kernel's tracefs"}
{"file":"buffer_size_kb","asked":"-1","why":"invalid argument"}
{"file":"current_tracer","asked":"wakeup","why":"this kernel has function, nop"}
{"file":"kprobe_events","asked":"_do_fork","became":"kernel_clone","why":"renamed"}
`

func TestScripted(t *testing.T) {
	names, err := ParseScriptLog([]byte(scriptLog))
	if err != nil || len(names) != 16 {
		t.Fatalf("ParseScriptLog = %d names, %v; want 16", len(names), err)
	}
	p, err := Scripted(names, Kernel{Arch: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"signal", "kmem/kmalloc", "sched", "sys_enter"}, p.Params.Formats); diff != "" {
		t.Errorf("formats (-want +got):\n%s", diff)
	}
	if !p.Params.Keep || p.Params.Tracer != "" || len(p.Params.Probes) == 0 || len(p.Params.Events) == 0 {
		t.Errorf("params %+v; want what is armed kept, and the tree's probes and events beside", p.Params)
	}
	p.Took(wire.CaptureArmed{
		Tracer: "function", Functions: []string{"kernel_clone", "kernel_halt", "copy_process", "copy_process_x", "vfs_read"}, Matched: 5,
		Found: []string{"signal/signal_deliver", "signal/signal_generate", "sched/sched_switch", "irq/irq_handler_entry", "raw_syscalls/sys_enter"},
		Off:   true, Missing: []wire.CaptureMissing{{What: "probe exit", Why: "no"}},
	})
	const want = `filter secondary_start_kernel: kernel_halt (not traceable)
function _do_fork: kernel_clone (renamed)
function copy_process*: copy_process copy_process_x ()
filter !schedule: !schedule ()
function bcm2835_mmc_irq:  (hardware of a Raspberry Pi)
filter insert_work: insert_work ()
event signal: signal/signal_deliver signal/signal_generate ()
event kmem/kmalloc_node: kmem/kmalloc (merged)
event a/b:  (no such event in this kernel)
event sched/sched_*: sched/sched_switch ()
event sys_enter: raw_syscalls/sys_enter ()
file options/nosuch:  (no such file in this kernel's tracefs)
file buffer_size_kb = -1:  (invalid argument)
tracer wakeup:  (this kernel has function, nop)
probe _do_fork: kernel_clone (renamed)
event irq/irq_handler_entry: irq/irq_handler_entry ()
function vfs_read: vfs_read ()
file tracing_on:  (0 at the script's end: nothing was recorded from then on)
probe exit:  (no)
`
	var got strings.Builder
	for _, l := range p.Lines {
		got.WriteString(l.Kind + " " + l.Name + ": " + strings.Join(l.Armed, " ") + " (" + l.Why + ")\n")
		if l.Count != len(l.Armed) {
			t.Errorf("%s %s: count %d of %d names", l.Kind, l.Name, l.Count, len(l.Armed))
		}
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// TestScriptedAll: a tracer without a filter traces every function, and that is said.
func TestScriptedAll(t *testing.T) {
	p, err := Scripted(nil, Kernel{Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	p.Took(wire.CaptureArmed{Tracer: "function"})
	if len(p.Lines) != 1 || p.Lines[0].Name != "*" || p.Lines[0].Missing() {
		t.Errorf("lines %+v; want one of every function", p.Lines)
	}
}

func TestParseScriptLog(t *testing.T) {
	names, err := ParseScriptLog([]byte("{\"asked\":\"a\\u001b[2J\\n\"}\nno JSON\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2 ") || len(names) != 1 || strings.ContainsAny(names[0].Asked, "\x1b\n") {
		t.Errorf("ParseScriptLog = %q, %v; want one clean name and a complaint of line 2", names, err)
	}
	names, err = ParseScriptLog([]byte(strings.Repeat("{}\n", maxScriptNames+1)))
	if err == nil || len(names) != maxScriptNames {
		t.Errorf("too many names: %d, %v; want %d and an error", len(names), err, maxScriptNames)
	}
}

func FuzzParseScriptLog(f *testing.F) {
	f.Add([]byte(scriptLog))
	f.Add([]byte(`{"file":"/events/","asked":":*","became":"/"}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		names, err := ParseScriptLog(log)
		if len(names) > maxScriptNames {
			t.Fatalf("%d names", len(names))
		}
		if err != nil {
			return
		}
		p, err := Scripted(names, Kernel{Arch: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Params.Formats {
			if !plainEvent.MatchString(e) {
				t.Errorf("format of %q", e)
			}
		}
		p.Took(wire.CaptureArmed{Tracer: "function", Functions: []string{"kernel_clone"}, Found: []string{"signal/signal_deliver"}})
	})
}
