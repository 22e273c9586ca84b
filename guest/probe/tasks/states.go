package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// pose is a child that comes to stand in one state and stays there.
type pose struct {
	what  string
	state byte // of /proc/PID/stat, fs/proc/array.c
	build func(p *rawclone.Program, pipe int) (child rawclone.Word)
}

// poses are in the order of a lesson. Those that make a child of their own give
// the word where it leaves its number.
var poses = []pose{
	{"nanosleep", 'S', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		hour := p.Buffer(16)
		p.Set(hour, 3600)
		p.Syscall(unix.SYS_NANOSLEEP, p.Addr(hour))
		return none
	}},
	{"poll", 'S', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		p.Syscall(unix.SYS_PPOLL)
		return none
	}},
	{"epoll", 'S', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		fd := p.Syscall(unix.SYS_EPOLL_CREATE1)
		p.Syscall(unix.SYS_EPOLL_PWAIT, fd, p.Addr(p.Buffer(16)), p.Const(1), p.Const(^uintptr(0)), p.Const(0), p.Const(8))
		return none
	}},
	{"futex", 'S', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		p.FutexWait(p.Var(0), 0)
		return none
	}},
	{"pipe", 'S', func(p *rawclone.Program, pipe int) (none rawclone.Word) {
		p.Syscall(unix.SYS_READ, p.Const(uintptr(pipe)), p.Addr(p.Buffer(8)), p.Const(1))
		return none
	}},
	{"wait", 'S', func(p *rawclone.Program, _ int) rawclone.Word { return parent(p, 0) }},
	{"vfork", 'D', func(p *rawclone.Program, _ int) rawclone.Word { return parent(p, unix.CLONE_VFORK) }},
	{"stopped", 'T', func(p *rawclone.Program, _ int) (none rawclone.Word) { stop(p); return none }},
	{"traced", 't', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		p.Syscall(unix.SYS_PTRACE, p.Const(unix.PTRACE_TRACEME))
		stop(p)
		return none
	}},
	{"zombie", 'Z', func(p *rawclone.Program, _ int) (none rawclone.Word) { p.Exit(0); return none }},
	{"busy", 'R', func(p *rawclone.Program, _ int) (none rawclone.Word) {
		p.JumpIfEqual(p.Here(), p.Const(0), p.Const(0))
		return none
	}},
}

// parent makes a child and waits for it by wait4. Both run the same operations:
// the child has no child to wait for, leaves its number and sleeps.
func parent(p *rawclone.Program, flags uintptr) (child rawclone.Word) {
	p.Syscall(unix.SYS_CLONE, p.Const(flags|uintptr(unix.SIGCHLD)))
	p.Syscall(unix.SYS_WAIT4, p.Const(^uintptr(0)))
	child = p.Syscall(unix.SYS_GETPID)
	p.Syscall(unix.SYS_PPOLL)
	return child
}

// stop has the task stop itself. SIGSTOP cannot be blocked.
func stop(p *rawclone.Program) {
	self := p.Syscall(unix.SYS_GETPID)
	p.Syscall(unix.SYS_KILL, self, p.Const(uintptr(unix.SIGSTOP)))
	p.Syscall(unix.SYS_PPOLL)
}

// seen is a child in its pose.
type seen struct {
	What  string   `json:"what"`
	PID   int      `json:"pid"`
	State string   `json:"state"`
	WChan string   `json:"wchan"` // "0" when it does not sleep, or may not be told
	Stack []string `json:"stack"` // innermost first; empty where it may not be read
}

// states puts a child into every state and looks at all of them.
func states(ctx context.Context, params json.RawMessage) (res *wire.ProbeResult, err error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	res = &wire.ProbeResult{
		Probe:  "states",
		Method: "a raw clone for each state, stat, wchan and stack of /proc, SIGKILL, wait4",
		Tasks:  []wire.Task{probe.Self()},
	}
	var rows []seen
	for _, p := range poses {
		s, t, err := p.strike(ctx, pipe[0])
		if err != nil {
			return nil, fmt.Errorf("state of %s: %w", p.what, err)
		}
		rows, res.Tasks = append(rows, s), append(res.Tasks, t)
	}
	res.Data = map[string]any{"rows": rows}
	return res, nil
}

// strike makes the child, looks at it once it stands still, and ends it.
func (p pose) strike(ctx context.Context, pipe int) (s seen, t wire.Task, err error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return s, t, err
	}
	grandchild := p.build(prog, pipe)
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, prog)
	if err != nil {
		return s, t, errors.Join(err, prog.Close())
	}
	s, err = p.still(ctx, child.TID, func() bool { return grandchild == (rawclone.Word{}) || prog.Get(grandchild) != 0 })
	if grandchild != (rawclone.Word{}) && err == nil {
		// Once it is gone the child reaps it and leaves a number of its own there.
		if err = kill(int(prog.Get(grandchild))); err == nil {
			err = prog.Await(ctx, grandchild, uintptr(child.TID))
		}
	}
	err = errors.Join(err, kill(child.TID))
	status, werr := child.Wait()
	if werr != nil {
		return s, t, errors.Join(err, werr)
	}
	raw := int(status)
	t = wire.Task{
		Role: "child", PID: child.TID, TID: child.TID, TGID: child.TID, PPID: unix.Getpid(),
		Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
		Status: &raw,
	}
	return s, t, errors.Join(err, prog.Close())
}

// still looks until the task is in the pose's state, twice in a row at the same
// place.
func (p pose) still(ctx context.Context, pid int, ready func() bool) (last seen, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	for {
		stat, err := procfs.ReadStat(filepath.Join(dir, "stat"))
		if err != nil {
			return last, err
		}
		s := seen{What: p.what, PID: pid, State: string(stat.State), WChan: wchan(dir)}
		s.Stack, _ = procfs.ReadStack(filepath.Join(dir, "stack"))
		if stat.State == p.state && ready() && s.State == last.State && (p.state == 'R' || s.WChan == last.WChan && slices.Equal(s.Stack, last.Stack)) {
			return s, nil
		}
		last = s
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("task %d is in state %s, not %c: %w", pid, last.State, p.state, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}
