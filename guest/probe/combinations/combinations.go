// Package combinations holds the probe that asks the kernel for children by flags
// that go together and flags that do not.
package combinations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "combinations", Run: run}) }

// trial is one request.
type trial struct {
	name   string
	flags  uint64
	signal int
}

const (
	sigchld = int(unix.SIGCHLD)

	vm      = unix.CLONE_VM
	sighand = unix.CLONE_SIGHAND
	thread  = unix.CLONE_THREAD
)

// trials are, by the call: every combination of the three flags that are tied to
// one another, then pairs that the kernel is said to refuse, each with what stops
// it left out; and of clone3 what only its structure can say.
// (copy_process, kernel_clone and clone3_args_valid in kernel/fork.c, copy_namespaces in kernel/nsproxy.c)
var trials = map[string][]trial{
	"clone": {
		{"nothing", 0, sigchld},
		{"vm", vm, sigchld},
		{"sighand", sighand, sigchld},
		{"thread", thread, 0},
		{"vm and sighand", vm | sighand, sigchld},
		{"vm and thread", vm | thread, 0},
		{"sighand and thread", sighand | thread, 0},
		{"vm, sighand and thread", vm | sighand | thread, 0},

		{"fs and files", unix.CLONE_FS | unix.CLONE_FILES, sigchld},
		{"newns", unix.CLONE_NEWNS, sigchld},
		{"newns and fs", unix.CLONE_NEWNS | unix.CLONE_FS, sigchld},
		{"newuser and fs", unix.CLONE_NEWUSER | unix.CLONE_FS, sigchld},
		{"newuser and thread", vm | sighand | thread | unix.CLONE_NEWUSER, 0},
		{"newpid and thread", vm | sighand | thread | unix.CLONE_NEWPID, 0},
		{"newipc and sysvsem", unix.CLONE_NEWIPC | unix.CLONE_SYSVSEM, sigchld},
		{"pidfd", unix.CLONE_PIDFD, sigchld},
		{"pidfd and detached", unix.CLONE_PIDFD | unix.CLONE_DETACHED, sigchld},
		{"pidfd and thread", vm | sighand | thread | unix.CLONE_PIDFD, 0},
		{"thread with a signal", vm | sighand | thread, sigchld},
		{"detached", unix.CLONE_DETACHED, sigchld},
		{"signal 65", 0, 65},
	},
	"clone3": {
		{"nothing", 0, sigchld},
		{"sighand", sighand, sigchld},
		{"vm and thread", vm | thread, 0},
		{"vm, sighand and thread", vm | sighand | thread, 0},
		{"thread with a signal", vm | sighand | thread, sigchld},
		{"detached", unix.CLONE_DETACHED, sigchld},
		{"signal among the flags", uint64(sigchld), 0},
		{"signal 65", 0, 65},
		{"unknown flag", 1 << 62, sigchld},
		{"clear_sighand", unix.CLONE_CLEAR_SIGHAND, sigchld},
		{"clear_sighand and sighand", unix.CLONE_CLEAR_SIGHAND | vm | sighand, sigchld},
	},
}

var kinds = map[string]rawclone.Kind{"clone": rawclone.Clone, "clone3": rawclone.Clone3}

// row is what came of a trial.
type row struct {
	Name       string `json:"name"`
	Flags      uint64 `json:"flags"`
	ExitSignal int    `json:"exit_signal"`
	Errno      string `json:"errno"` // "" when a child was made
	TID        int    `json:"tid"`   // 0 when none was
}

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		By string `json:"by"`
	}{By: "clone"}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	kind, ok := kinds[p.By]
	if !ok {
		return nil, probe.Paramf(`by %q: give "clone" or "clone3"`, p.By)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{
		Probe:  "combinations",
		Method: fmt.Sprintf("raw %s for each combination; a child that comes to be exits", p.By),
		Tasks:  []wire.Task{probe.Self()},
	}
	var rows []row
	for _, t := range trials[p.By] {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r, task, err := try(kind, t)
		if err != nil {
			return nil, fmt.Errorf("%s with %s: %w", p.By, t.name, err)
		}
		if r.Errno == "ENOSYS" {
			// clone3 is younger than clone: no rows at all.
			res.Data = map[string]any{"missing": true, "rows": []row{}}
			return res, nil
		}
		rows = append(rows, r)
		if task != nil {
			res.Tasks = append(res.Tasks, *task)
		}
	}
	res.Data = map[string]any{"missing": false, "rows": rows}
	return res, nil
}

// try makes a child, or does not: there is no task then. The error is not the
// kernel's answer.
func try(kind rawclone.Kind, t trial) (row, *wire.Task, error) {
	r := row{Name: t.name, Flags: t.flags, ExitSignal: t.signal}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return r, nil, err
	}
	pid, tid, ppid := prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID), prog.Syscall(unix.SYS_GETPPID)
	prog.Exit(0)
	child, err := rawclone.Spawn(kind, rawclone.Args{Flags: t.flags, ExitSignal: t.signal}, prog)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno, err = unix.ErrnoName(errno), nil
		}
		return r, nil, errors.Join(err, prog.Close())
	}
	r.TID = child.TID
	task := &wire.Task{Role: "child", Asked: &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal}}
	status, err := child.Wait()
	if err != nil {
		return r, nil, err // prog's memory stays: the child may still use it
	}
	if t.flags&thread != 0 {
		task.Role = "thread"
	} else {
		raw := int(status)
		task.Status = &raw
	}
	task.PID, task.TID, task.PPID = int(prog.Get(pid)), int(prog.Get(tid)), int(prog.Get(ppid))
	task.TGID = task.PID
	return r, task, prog.Close()
}
