package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/vm"
	"labctl/host/vm/agent"
	"labctl/host/vm/qemu"
)

// TestExitCode has a row for each type of end.
func TestExitCode(t *testing.T) {
	exit := &qemu.ExitError{Code: 1, Argv: []string{"qemu"}}
	segv := &qemu.ExitError{Code: -1, Signal: syscall.SIGSEGV, Argv: []string{"qemu"}}
	late := &vm.DeadlineError{Cause: errors.New("probe x: deadline")}
	died := &vm.CrashError{Report: &crash.Report{Kind: crash.Panic, Title: "x"}}
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, exitOK},
		{"the program's own", statusError{7}, 7},
		{"a signal", interrupted{syscall.SIGTERM}, 128 + 15},
		{"a check", checkError{1}, exitCheck},
		{"usage", usageError{errors.New("x")}, exitInput},
		{"input", &machine.InputError{Msg: "x"}, exitInput},
		{"no such kernel", kernel.ErrNotKernel, exitInput},
		{"QEMU missing", &qemu.NotFoundError{Binary: "qemu"}, exitHost},
		{"QEMU refused", &vm.BootError{Phase: vm.PhaseQEMU, Cause: &vm.RefusedError{ExitError: exit}}, exitHost},
		{"QEMU died while booting", &vm.BootError{Phase: vm.PhaseInit, Cause: &vm.DiedError{ExitError: segv}}, exitHost},
		{"QEMU died", &vm.DiedError{ExitError: segv}, exitHost},
		{"guest crashed", died, exitCrash},
		{"guest crashed, and its disk was full", errors.Join(died, &vm.LogError{Path: "c", Err: syscall.ENOSPC}), exitCrash},
		{"guest powered off", vm.ErrPoweredOff, exitCrash},
		{"guest reset", vm.ErrReset, exitCrash},
		{"guest powered off while booting", &vm.BootError{Phase: vm.PhaseInit, Cause: vm.ErrPoweredOff}, exitCrash},
		{"guest's agent started again", &vm.BootError{Phase: vm.PhaseHello, Cause: agent.ErrClosed}, exitCrash},
		{"agent silent", fmt.Errorf("x: %w", &vm.AgentError{DeadlineError: late}), exitCrash},
		{"deadline", late, exitDeadline},
		{"deadline of the boot", &vm.BootError{Phase: vm.PhaseInit, Deadline: true}, exitDeadline},
		{"--timeout", &vm.DeadlineError{Cause: errDeadline}, exitDeadline},
		{"the log's disk full", &vm.LogError{Path: "c", Err: syscall.ENOSPC}, exitHost},
		{"a disk full", fmt.Errorf("write x: %w", syscall.ENOSPC), exitHost},
		{"a quota", fmt.Errorf("write x: %w", syscall.EDQUOT), exitHost},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: exitCode(%v) = %d, want %d", tt.name, tt.err, got, tt.want)
		}
	}
}

// TestReportEnds holds what a user is told of a guest that died or hung.
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
	state := vm.State{
		CPUs: []vm.CPU{{ID: 0, PC: 0x1234, Mode: "EL1h", Masked: true}}, File: "out/registers.txt",
		Hangs: []*crash.Report{stall}, Tail: []string{"last words"}, Log: "out/console.log",
	}
	for _, tt := range []struct {
		name string
		err  error
		want []string
	}{
		{"a deadline", &vm.DeadlineError{Cause: errDeadline, State: state}, []string{
			"labctl: deadline: --timeout has passed", "  CPU 0: pc 0x1234, EL1h, interrupts masked\n", "all registers: out/registers.txt\n",
			"kernel soft lockup: watchdog: BUG", "   task: x-154 on CPU 0\n", "-001|invoke_syscall(...)", "-003|el0t_64_sync(asm)\n",
			"  | last words\n", "the whole console: out/console.log\n",
		}},
		{"a boot's deadline", &vm.BootError{Phase: vm.PhaseInit, Deadline: true, State: state}, []string{"boot: phase init took too long", "CPU 0: pc 0x1234", "last words"}},
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

// TestNoKill: a program that ended otherwise is not asked about.
func TestNoKill(t *testing.T) {
	for _, r := range []wire.ExecResult{{Exited: true}, {Exited: true, Code: 9}, {Signaled: true, Signal: 15}} {
		if err := killedByOOM(nil, r); err != nil {
			t.Errorf("killedByOOM(%+v) = %v, want nil", r, err)
		}
	}
}
