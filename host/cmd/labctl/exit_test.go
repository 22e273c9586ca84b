package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/vm"
)

// TestReportEnds holds what a user is shown of a guest that died or hung.
func TestReportEnds(t *testing.T) {
	stall := &crash.Report{Kind: crash.SoftLockup, Title: "watchdog: BUG: soft lockup - CPU#0 stuck for 5s! [x:154]", Lines: []string{
		"[   11.0] not a stamp",
		"[   11.221646] watchdog: BUG: soft lockup - CPU#0 stuck for 5s! [x:154]",
		"[   11.224732] pc : __arm64_sys_getppid+0x0/0x40",
		"[   11.225262] lr : invoke_syscall+0x60/0xe0",
		"[   11.225853] Call trace:",
		"[   11.225882]  __arm64_sys_getppid+0x0/0x40",
		"[   11.225938]  el0_svc_common.constprop.0+0x48/0xf0",
		"[   11.226037]  el0t_64_sync+0x190/0x198",
	}}
	oops := &crash.Report{Kind: crash.Oops, Title: "Unable to handle kernel NULL pointer dereference at virtual address 10", Lines: []string{
		"[   12.1] Unable to handle kernel NULL pointer dereference at virtual address 10",
		"[   12.224732] CPU: 0 PID: 149 Comm: x Not tainted 6.12",
		"[   12.224732] pc : f+0x8/0x10 [m]",
		"[   12.225853] Call trace:",
		"[   12.225882]  f+0x8/0x10 [m]",
		"[   12.226037]  el0t_64_sync+0x190/0x198",
	}}
	state := vm.State{
		CPUs: []vm.CPU{{ID: 0, PC: 0x1234, Mode: "EL1h", Masked: true}}, File: "out/registers.txt",
		Reports: []*crash.Report{stall}, Tail: []string{"last words"}, Log: "out/console.log",
	}
	for _, tt := range []struct {
		name string
		err  error
		want []string
	}{
		{"a deadline", &vm.DeadlineError{Cause: outcome.ErrTimeout, State: state}, []string{
			"labctl: deadline: --timeout has passed", "  CPU 0: pc 0x1234, EL1h, interrupts masked\n", "all registers: out/registers.txt\n",
			"kernel soft lockup: watchdog: BUG", "   task: x-154 on CPU 0\n", "-001|invoke_syscall(...)", "-003|el0t_64_sync(asm)\n",
			"  | last words\n", "the whole console: out/console.log\n",
		}},
		{"a boot's deadline", &vm.BootError{Phase: vm.PhaseInit, Deadline: true, State: state}, []string{"boot: phase init took too long", "CPU 0: pc 0x1234", "last words"}},
		{"a deadline after an oops", &vm.DeadlineError{Cause: outcome.ErrTimeout, State: vm.State{
			Reports: []*crash.Report{oops, stall}, Tail: []string{"x29: 0"}, Log: "out/console.log",
		}}, []string{"kernel oops: Unable to handle", "   task: x-149 on CPU 0\n-000|f(...)\n", "kernel soft lockup: ", "-000|__arm64_sys_getppid(...)", "|end of frame\nthe whole console: out/console.log\n"}},
		{"a dead task", &vm.DeadTaskError{Report: oops, Idle: 5 * time.Second}, []string{
			"labctl: the program was ended: its task x:149 died in the kernel, and for 5 s nothing has run\n   task: x-149 on CPU 0\n-000|f(...)\n",
		}},
		{"a report", &session.ReportedError{Report: oops, Status: 0}, []string{
			"labctl: the kernel's oops fails this run (--fail-on oops); the program's own status was 0\n   task: x-149 on CPU 0\n-000|f(...)\n",
		}},
		{"a crash", &vm.CrashError{Report: stall, Log: "out/console.log"}, []string{"-000|__arm64_sys_getppid(...)", "  | [   11.225853] Call trace:\n"}},
	} {
		var out strings.Builder
		(&app{stdout: io.Discard, stderr: &out}).report(tt.err)
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: report = \n%s\nwant in it %q", tt.name, out.String(), want)
			}
		}
	}
}
