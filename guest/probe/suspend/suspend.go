// Package suspend holds the probe that measures how long the parent of a child
// stands still.
//
// CLONE_VFORK holds the calling thread up in wait_for_vfork_done (kernel/fork.c)
// until the child's mm_release, in its exit or its execve. The probe has another
// thread look at the one that waits, and lets the child go on only when it has
// looked: what it reports does not hang on timing.
package suspend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "suspend", Run: run}) }

const vforkFlags = unix.CLONE_VM | unix.CLONE_VFORK

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Flags   uint64 `json:"flags"`
		SleepMS int    `json:"sleep_ms"`
		End     string `json:"end"`
	}{Flags: vforkFlags, SleepMS: 20, End: "exit"}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Flags&^vforkFlags != 0:
		return nil, probe.Paramf("flags %#x: give CLONE_VM (%#x), CLONE_VFORK (%#x), both or none", p.Flags, unix.CLONE_VM, unix.CLONE_VFORK)
	case p.SleepMS < 0 || p.SleepMS > 60_000:
		return nil, probe.Paramf("sleep_ms %d: give 0 to 60000", p.SleepMS)
	case p.End != "exit" && p.End != "exec":
		return nil, probe.Paramf(`end %q: give "exit" or "exec"`, p.End)
	}
	c, err := newChild(time.Duration(p.SleepMS)*time.Millisecond, p.End == "exec")
	if err != nil {
		return nil, err
	}

	// The runtime does not know that a vfork holds this thread up: it must have a
	// second P for the one that looks, and must not stop the world.
	if n := runtime.GOMAXPROCS(0); n < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // one that has begun must not end in the middle

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	var back atomic.Bool
	looked := make(chan look, 1)
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		close(ready)
		looked <- c.watch(ctx, filepath.Join("/proc/self/task", strconv.Itoa(self.TID)), &back)
	}()
	<-ready

	kind := rawclone.Clone
	args := rawclone.Args{Flags: p.Flags, ExitSignal: int(unix.SIGCHLD)}
	if p.Flags == vforkFlags {
		kind, args = rawclone.VFork, rawclone.Args{}
	}
	called := now()
	child, err := rawclone.Spawn(kind, args, c.prog)
	returned := now()
	back.Store(true)
	seen := <-looked
	if err != nil {
		return nil, errors.Join(err, c.prog.Close())
	}
	status, err := child.Wait()
	if err != nil {
		return nil, err
	}
	if seen.err != nil {
		return nil, errors.Join(seen.err, c.prog.Close())
	}
	waitStatus := int(status)
	_, failed := c.prog.Result(c.failed)
	res := &wire.ProbeResult{
		Probe:  "suspend",
		Method: fmt.Sprintf("raw %s, the maker watched by another thread, %s, wait4", child.Syscall, p.End),
		Tasks: []wire.Task{self, {
			Role: "child",
			PID:  int(c.prog.Get(c.pid)), TID: int(c.prog.Get(c.tid)), TGID: int(c.prog.Get(c.pid)), PPID: self.PID,
			Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
			Status: &waitStatus,
		}},
		Data: map[string]any{
			"held_ns":      returned - called,               // from before the call to after it
			"child_end_ns": c.ended() - called,              // when the child was about to exit or exec
			"outlived":     returned >= c.ended(),           // the call came back after that
			"written":      c.private[0] != 0,               // the child's write to private memory is seen here
			"state":        seen.state, "wchan": seen.wchan, // of the parent, while the child lived
			"stack": seen.stack, // innermost first; empty where it may not be read
		},
	}
	if p.End == "exec" && failed != nil {
		return nil, errors.Join(fmt.Errorf("execve /proc/self/exe in the child: %w", failed), c.prog.Close())
	}
	return res, errors.Join(c.prog.Close(), unix.Munmap(c.private))
}

// child is what the child runs, and the words that it reports in.
type child struct {
	prog     *rawclone.Program
	pid, tid rawclone.Word
	private  []byte        // one page: the child sets its first word
	gate     rawclone.Word // the child goes on when this is 1
	end      rawclone.Word // struct timespec
	failed   rawclone.Word // execve's result, when it returns
}

func newChild(sleep time.Duration, exec bool) (*child, error) {
	private, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map a private page: %w", err)
	}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(private))
	}
	c := &child{prog: prog, private: private, gate: prog.Var(0)}
	c.pid, c.tid = prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID)
	prog.Store(prog.Const(address(private)), prog.Const(7))
	prog.FutexWait(c.gate, 0)
	prog.Syscall(unix.SYS_NANOSLEEP, prog.Addr(timespec(prog, sleep)))
	c.end = timespec(prog, 0)
	prog.Syscall(unix.SYS_CLOCK_GETTIME, prog.Const(unix.CLOCK_MONOTONIC), prog.Addr(c.end))
	if exec {
		// "labprobe ids", for a program that ends soon, with nowhere to print to.
		// An image inherits the mask of blocked signals, which is full here.
		const setMask, maskBytes = 2, 8
		prog.Syscall(unix.SYS_RT_SIGPROCMASK, prog.Const(setMask), prog.Addr(prog.Buffer(maskBytes)), prog.Const(0), prog.Const(maskBytes))
		prog.Syscall(unix.SYS_CLOSE, prog.Const(1))
		argv := prog.Pointers(prog.CString("labprobe"), prog.CString("ids"))
		c.failed = prog.Syscall(unix.SYS_EXECVE, prog.Addr(prog.CString("/proc/self/exe")), prog.Addr(argv), prog.Addr(prog.Pointers()))
		prog.Exit(127)
	} else {
		prog.Exit(0)
	}
	return c, nil
}

// ended is the child's clock before its end, in nanoseconds.
func (c *child) ended() int64 {
	half := int(unix.SizeofLong)
	b := c.prog.Bytes(c.end, 2*half)
	return number(b[:half])*int64(time.Second) + number(b[half:])
}

// look is what another thread saw of the parent.
type look struct {
	state, wchan string
	stack        []string
	err          error
}

// watch looks at the task until it sleeps for its child or its call has come
// back, and then lets the child go on.
func (c *child) watch(ctx context.Context, task string, back *atomic.Bool) (l look) {
	defer func() { l.err = errors.Join(l.err, c.prog.Post(c.gate, 1)) }()
	for {
		stat, err := procfs.ReadStat(filepath.Join(task, "stat"))
		if err != nil {
			l.err = err
			return l
		}
		l.state = string(stat.State)
		asleep := stat.State == 'D' && c.prog.Get(c.tid) != 0
		if asleep {
			wchan, _ := procfs.ReadFile(filepath.Join(task, "wchan"))
			l.wchan = strings.TrimSpace(string(wchan))
			l.stack, _ = procfs.ReadStack(filepath.Join(task, "stack"))
			maker, _ := strconv.ParseInt(filepath.Base(task), 10, 64) // we made it of a number
			l.err = probe.Look("suspended", map[string][]int64{"maker": {maker}, "child": {int64(c.prog.Get(c.tid))}})
		}
		if asleep || back.Load() || ctx.Err() != nil {
			return l
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 50_000}, nil)
	}
}

// now is CLOCK_MONOTONIC in nanoseconds.
func now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
