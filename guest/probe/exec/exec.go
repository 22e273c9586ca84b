// Package exec holds the probe that replaces a program by execve: in a child, or
// in its own process from a thread that is not the leader.
package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "exec", Run: run}) }

// self is this very program.
const self = "/proc/self/exe"

type params struct {
	By   string `json:"by"` // "child", "thread"
	File string `json:"file"`
	// Before is what the program that called execve hands to the one that it
	// has become.
	Before *before `json:"before"`
}

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := params{By: "child", File: self}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	switch {
	case p.File == "" || strings.ContainsRune(p.File, 0):
		return nil, probe.Paramf("file %q is no path", p.File)
	case p.Before != nil:
		return became(p.Before)
	case p.By == "child":
		return inChild(ctx, p.File)
	case p.By == "thread":
		return byThread(p)
	}
	return nil, probe.Paramf(`by %q: give "child" or "thread"`, p.By)
}

// maxAnswer bounds what the child may print, in bytes.
const maxAnswer = 64 << 10

// inChild forks a child that executes "FILE ids" with its standard output in a
// pipe, and that goes on when it cannot.
func inChild(ctx context.Context, file string) (*wire.ProbeResult, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	answer := os.NewFile(uintptr(pipe[0]), "pipe")
	defer answer.Close()
	c, err := newChild(file, pipe[1])
	if err != nil {
		return nil, errors.Join(err, unix.Close(pipe[1]))
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{
		Probe:  "exec",
		Method: "raw clone, execve in the child, wait4",
		Tasks:  []wire.Task{probe.Self()},
	}
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, c.prog)
	unix.Close(pipe[1])
	if err != nil {
		return nil, errors.Join(err, c.prog.Close())
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(child.TID, unix.SIGKILL) })
	text, readErr := io.ReadAll(io.LimitReader(answer, maxAnswer))
	answer.Close() // a child that prints more takes SIGPIPE, and Wait ends
	status, err := child.Wait()
	stop()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errors.Join(fmt.Errorf("process %d: %w", child.TID, context.Cause(ctx)), c.prog.Close())
	}
	_, failed := c.prog.Result(c.failed)
	after := c.prog.Get(c.after) == 1
	raw := int(status)
	res.Tasks = append(res.Tasks, wire.Task{
		Role: "child", Comm: res.Tasks[0].Comm, // before the call
		PID: int(c.prog.Get(c.pid)), TID: int(c.prog.Get(c.tid)), TGID: int(c.prog.Get(c.pid)), PPID: int(c.prog.Get(c.ppid)),
		Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
		Status: &raw,
	})
	// "went_on" is whether the child came to what stands behind its execve.
	res.Data = map[string]any{"returned": child.TID, "went_on": after, "errno": ""}
	if err := errors.Join(readErr, c.prog.Close()); err != nil {
		return nil, err
	}
	if after {
		var errno unix.Errno
		errors.As(failed, &errno)
		res.Data["errno"] = unix.ErrnoName(errno)
		return res, nil
	}
	var ids wire.ProbeResult
	if err := json.Unmarshal(text, &ids); err != nil || len(ids.Tasks) != 1 {
		return nil, fmt.Errorf("%.80q printed %.80q, not the ids of one task", file, text)
	}
	res.Data["image"] = ids.Tasks[0]
	return res, nil
}

// child is the program of the child, and the words it reports in.
type child struct {
	prog           *rawclone.Program
	pid, tid, ppid rawclone.Word
	failed         rawclone.Word // execve's result, when it returns
	after          rawclone.Word
}

// newChild is a program that executes "file ids" with out as standard output.
func newChild(file string, out int) (*child, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	c := &child{prog: prog, after: prog.Var(0)}
	c.pid, c.tid, c.ppid = prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID), prog.Syscall(unix.SYS_GETPPID)
	prog.Syscall(unix.SYS_DUP3, prog.Const(uintptr(out)), prog.Const(1), prog.Const(0))
	// An image inherits the mask of blocked signals, which is full here.
	const setMask, maskBytes = 2, 8
	prog.Syscall(unix.SYS_RT_SIGPROCMASK, prog.Const(setMask), prog.Addr(prog.Buffer(maskBytes)), prog.Const(0), prog.Const(maskBytes))
	argv := prog.Pointers(prog.CString("labprobe"), prog.CString("ids"))
	c.failed = prog.Syscall(unix.SYS_EXECVE, prog.Addr(prog.CString(file)), prog.Addr(argv), prog.Addr(prog.Pointers()))
	prog.Add(c.after, prog.Const(1))
	prog.Exit(127)
	return c, nil
}
