package agree

import (
	"testing"

	"labctl/guest/wire"
	"labctl/host/clone"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/creation"
)

// good is a probe that agrees with the kernel; each case spoils one thing.
func good() *record.Probe {
	sig := clone.Signal(17)
	return &record.Probe{
		Name: "vfork",
		Result: &wire.ProbeResult{Probe: "vfork", Tasks: []wire.Task{
			{Role: "self", PID: 10, TID: 10, TGID: 10, PPID: 1},
			{Role: "child", PID: 11, TID: 11, TGID: 11, PPID: 10, Asked: &wire.Asked{Syscall: "vfork", Flags: 0x4100, ExitSignal: 17}},
		}},
		Creations: []creation.Creation{{
			Via: "vfork", Symbol: "kernel_clone",
			Requester: creation.Task{TID: 10, Comm: "labprobe"}, Child: creation.Child{TID: 11, Comm: "labprobe"},
			Args:  &creation.Args{Flags: 0x4100, ExitSignal: &sig},
			Stack: stack.Stack{Frames: []stack.Frame{{Name: "kernel_clone"}, {Name: "entry_SYSCALL_64_after_hwframe"}}},
		}},
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*record.Probe)
		want  string // the finding that fails; "" for none
	}{
		{"agrees", func(*record.Probe) {}, ""},
		{"flags differ", func(p *record.Probe) { p.Creations[0].Args.Flags = 0x100 }, "child 11 flags as the kernel received them"},
		{"exit signal differs", func(p *record.Probe) { *p.Creations[0].Args.ExitSignal = 0 }, "child 11 exit signal as the kernel received it"},
		{"another system call", func(p *record.Probe) { p.Creations[0].Via = "clone" }, "child 11 came by the system call"},
		{"another maker", func(p *record.Probe) { p.Creations[0].Requester.TID = 12 }, "child 11 was made by the probe's task"},
		{"never made", func(p *record.Probe) { p.Creations = nil }, "child 11 was made in the kernel"},
		{"arguments not traced", func(p *record.Probe) { p.Creations[0].Args = nil }, "child 11 flags as the kernel received them"},
		{"stack cut short", func(p *record.Probe) { p.Creations[0].Stack.Truncated = true }, "child 11 stack goes down to the kernel's entry"},
		{"stack not trimmed", func(p *record.Probe) { p.Creations[0].Stack.Frames[0].Name = "ftrace_caller" }, "child 11 stack starts at the creation function"},
		{"events lost", func(p *record.Probe) { p.Lost = 3 }, "the trace is whole"},
		{"nothing made", func(p *record.Probe) { p.Result.Tasks = p.Result.Tasks[:1] }, "tasks made of role child"},
		{"no tasks at all", func(p *record.Probe) { p.Result.Tasks = nil }, "the probe reports itself"},
		{"itself not first", func(p *record.Probe) { p.Result.Tasks = p.Result.Tasks[1:] }, "the probe reports itself"},
		{"no result", func(p *record.Probe) { p.Result = nil }, ""},
		{"not asked by kthreadd", func(p *record.Probe) {
			p.Name, p.Result.Tasks[1].Role, p.Result.Tasks[1].Asked = "kthread", "kthread", nil
			p.Creations[0].Via, p.Creations[0].AskedBy = "kthread", &creation.Request{}
		}, "kthread 11 was made by kthreadd"},
		{"no stack", func(p *record.Probe) { p.Creations[0].Stack.Frames = nil }, "child 11 stack starts at the creation function"},
		{"a damaged page", func(p *record.Probe) { p.Damaged = 1 }, "the trace is whole"},
		{"a library asked", func(p *record.Probe) {
			p.Result.Tasks[1].Asked = &wire.Asked{Syscall: "os.StartProcess", Unknown: true}
		}, ""},
		{"kthread without a request", func(p *record.Probe) {
			p.Name, p.Result.Tasks[1].Role, p.Result.Tasks[1].Asked = "kthread", "kthread", nil
			p.Creations[0].Via, p.Creations[0].Requester.TID = "kthread", 2
		}, "kthread 11 was asked for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good()
			c.spoil(p)
			var got string
			for _, f := range Check(p) {
				if !f.OK {
					if got != "" {
						t.Errorf("also fails: %q", f.What)
					}
					got = f.What
				}
			}
			if got != c.want {
				t.Errorf("failing finding: got %q, want %q", got, c.want)
			}
		})
	}
}
