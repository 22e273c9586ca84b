// Package tasks holds the probes that look at tasks from outside, by /proc: all
// processes of the system, and tasks of the probe's own in every state.
package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() {
	probe.Register(probe.Probe{Name: "tasklist", Run: list})
	probe.Register(probe.Probe{Name: "states", Run: states})
}

// row is one process as /proc shows it.
type row struct {
	PID     int    `json:"pid"`
	PPID    int    `json:"ppid"`
	Comm    string `json:"comm"`
	State   string `json:"state"`
	Kthread bool   `json:"kthread"` // PF_KTHREAD, of stat
	// KthreadLine is the value of status's line "Kthread:", "" without one.
	KthreadLine string `json:"kthread_line"`
	VM          bool   `json:"vm"`      // status has a line "VmSize:"
	Exe         string `json:"exe"`     // what the link exe points to, "" for nothing
	Cmdline     int    `json:"cmdline"` // bytes
	UTime       uint64 `json:"utime"`   // clock ticks in user mode
	WChan       string `json:"wchan"`   // "0" when it runs, or may not be told
}

// list reads every process of /proc while a child of its own sleeps.
func list(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	gate := prog.Var(0)
	prog.FutexWait(gate, 0)
	prog.Exit(0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, prog)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	unix.Nanosleep(&unix.Timespec{Nsec: 5_000_000}, nil) // this CPU may idle now
	rows, listErr := rowsOf("/proc")
	_, zeroErr := os.Stat("/proc/0")
	if err := prog.Post(gate, 1); err != nil {
		return nil, err
	}
	status, err := child.Wait()
	if err := errors.Join(listErr, err); err != nil {
		return nil, err
	}
	raw, self := int(status), probe.Self()
	return &wire.ProbeResult{
		Probe:  "tasklist",
		Method: "stat, status, exe, cmdline and wchan of every process in /proc",
		Tasks: []wire.Task{self, {
			Role: "child", PID: child.TID, TID: child.TID, TGID: child.TID, PPID: self.PID,
			Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
			Status: &raw,
		}},
		Data: map[string]any{"rows": rows, "zero": zeroErr == nil}, // zero: there is a /proc/0
	}, prog.Close()
}

// rowsOf reads the processes below root. One that ends meanwhile is left out.
func rowsOf(root string) ([]row, error) {
	stats, err := procfs.Processes(root)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, s := range stats {
		dir := filepath.Join(root, strconv.Itoa(s.PID))
		status, err := procfs.ReadFile(filepath.Join(dir, "status"))
		if procfs.Gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := row{PID: s.PID, PPID: s.PPID, Comm: s.Comm, State: string(s.State), Kthread: s.KernelThread(), UTime: s.UTime}
		_, r.VM = line(status, "VmSize")
		r.KthreadLine, _ = line(status, "Kthread")
		r.Exe, _ = os.Readlink(filepath.Join(dir, "exe"))
		cmdline, _ := procfs.ReadFile(filepath.Join(dir, "cmdline"))
		r.Cmdline = len(cmdline)
		r.WChan = wchan(dir)
		rows = append(rows, r)
	}
	return rows, nil
}

// line is the value of a line "NAME:\tvalue" of a status file.
func line(status []byte, name string) (value string, ok bool) {
	for l := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(l, name+":"); found {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// wchan is the function that a task sleeps in, "0" when there is none to tell.
func wchan(dir string) string {
	text, err := procfs.ReadFile(filepath.Join(dir, "wchan"))
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name
	}
	return "0"
}

// kill ends a child for good.
func kill(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	return nil
}
