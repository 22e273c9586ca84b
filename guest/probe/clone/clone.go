// Package clone holds the probes that make user tasks.
package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() {
	probe.Register(probe.Probe{Name: "ids", Run: ids})
	probe.Register(probe.Probe{Name: "spawn", Run: spawn})
	probe.Register(probe.Probe{Name: "fork", Run: fork})
	probe.Register(probe.Probe{Name: "vfork", Run: vfork})
	probe.Register(probe.Probe{Name: "thread", Run: thread})
	probe.Register(probe.Probe{Name: "clone3", Run: clone3})
}

func ids(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return &wire.ProbeResult{Probe: "ids", Method: "getpid, gettid, getppid", Tasks: []wire.Task{probe.Self()}}, nil
}

func fork(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Syscall string `json:"syscall"`
		Flags   uint64 `json:"flags"`
	}{Syscall: "clone"}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Syscall == "clone":
		return raw("fork", rawclone.Clone, rawclone.Args{Flags: p.Flags, ExitSignal: int(unix.SIGCHLD)})
	case p.Syscall == "fork" && p.Flags == 0:
		return raw("fork", rawclone.Fork, rawclone.Args{})
	}
	return nil, probe.Paramf(`syscall %q with flags %#x: give "clone", or "fork" without flags`, p.Syscall, p.Flags)
}

func vfork(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Syscall string `json:"syscall"`
	}{Syscall: "vfork"}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	switch p.Syscall {
	case "vfork":
		return raw("vfork", rawclone.VFork, rawclone.Args{})
	case "clone":
		return raw("vfork", rawclone.Clone, rawclone.Args{Flags: unix.CLONE_VM | unix.CLONE_VFORK, ExitSignal: int(unix.SIGCHLD)})
	}
	return nil, probe.Paramf(`syscall %q: give "vfork" or "clone"`, p.Syscall)
}

func thread(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	return raw("thread", rawclone.Clone, rawclone.Args{Flags: rawclone.PThreadFlags})
}

func clone3(_ context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Flags      uint64 `json:"flags"`
		ExitSignal int    `json:"exit_signal"`
		Size       int    `json:"size"`
	}{ExitSignal: int(unix.SIGCHLD), Size: 64}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	res, err := raw("clone3", rawclone.Clone3, rawclone.Args{Flags: p.Flags, ExitSignal: p.ExitSignal, Size: p.Size})
	if errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("this kernel has no clone3: %w", err)
	}
	return res, err
}

// commBytes is TASK_COMM_LEN.
const commBytes = 16

// raw makes one child that asks for its own ids and name and exits, and waits
// for it.
func raw(name string, kind rawclone.Kind, args rawclone.Args) (*wire.ProbeResult, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	pid := prog.Syscall(unix.SYS_GETPID)
	tid := prog.Syscall(unix.SYS_GETTID)
	ppid := prog.Syscall(unix.SYS_GETPPID)
	comm := prog.Buffer(commBytes)
	prog.Syscall(unix.SYS_PRCTL, prog.Const(unix.PR_GET_NAME), prog.Addr(comm))
	prog.Exit(0)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{Probe: name, Tasks: []wire.Task{probe.Self()}}
	child, err := rawclone.Spawn(kind, args, prog)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	status, err := child.Wait()
	if err != nil {
		return nil, err // prog's memory stays: the child may still use it
	}
	task := wire.Task{
		Role: "child",
		Comm: strings.TrimRight(string(prog.Bytes(comm, commBytes)), "\x00"),
		PID:  int(prog.Get(pid)),
		TID:  int(prog.Get(tid)),
		TGID: int(prog.Get(pid)),
		PPID: int(prog.Get(ppid)),
		Asked: &wire.Asked{
			Syscall:    child.Syscall,
			Flags:      child.Flags,
			ExitSignal: child.ExitSignal,
		},
	}
	if child.Thread() {
		task.Role = "thread"
		res.Method = fmt.Sprintf("raw %s, exit, joined by futex", child.Syscall)
	} else {
		raw := int(status)
		task.Status = &raw
		res.Method = fmt.Sprintf("raw %s, exit, wait4", child.Syscall)
	}
	res.Tasks = append(res.Tasks, task)
	res.Data = map[string]any{"returned": child.TID} // differs from tid in a new PID namespace
	return res, prog.Close()
}
