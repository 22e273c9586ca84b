// Package endsignal holds the probe whose child ends with a signal of the probe's
// choice to its parent, or with none, and that tries which waits find it.
package endsignal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "endsignal", Run: run}) }

// harmless are the signals that a Go program survives unasked.
var harmless = []int{0, int(unix.SIGUSR1), int(unix.SIGUSR2), int(unix.SIGCHLD), int(unix.SIGWINCH)}

// waits are the options that say which children a wait is for (eligible_child in
// kernel/exit.c): none for children that end with SIGCHLD, __WCLONE for all other,
// __WALL for both.
var waits = map[string]uintptr{"plain": 0, "wclone": 0x80000000, "wall": unix.WALL}

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		ExitSignal int  `json:"exit_signal"`
		Exec       bool `json:"exec"`
	}{}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if !slices.Contains(harmless, p.ExitSignal) {
		return nil, probe.Paramf("exit_signal %d: give one of %v", p.ExitSignal, harmless)
	}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	pid := prog.Syscall(unix.SYS_GETPID)
	var failed rawclone.Word
	if p.Exec {
		failed = become(prog)
		prog.Exit(127)
	} else {
		prog.Exit(0)
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: p.ExitSignal}, prog)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	tid := child.TID
	stat, err := zombie(ctx, tid)
	if err != nil { // it would be waited for in vain
		unix.Kill(tid, unix.SIGKILL)
	}
	found := map[string]string{}
	for name, option := range waits {
		found[name] = find(tid, option)
	}
	refused := ""
	if found["plain"] != "" {
		// It would have reaped the child where it found it.
		_, werr := unix.Wait4(tid, nil, 0, nil)
		refused = errnoName(werr)
	}
	status, werr := child.Wait()
	if err = errors.Join(err, werr); err != nil {
		return nil, err // prog's memory stays: the child may still use it
	}
	if p.Exec && status.ExitStatus() == 127 {
		_, err := prog.Result(failed)
		return nil, errors.Join(fmt.Errorf("execve /proc/self/exe in the child: %w", err), prog.Close())
	}
	rawStatus := int(status)
	return &wire.ProbeResult{
		Probe:  "endsignal",
		Method: fmt.Sprintf("raw %s, exit, waitid with WNOWAIT by every option, wait4 with __WALL", child.Syscall),
		Tasks: []wire.Task{self, {
			Role: "child", PID: int(prog.Get(pid)), TID: int(prog.Get(pid)), TGID: int(prog.Get(pid)), PPID: self.PID,
			Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
			Status: &rawStatus,
		}},
		Data: map[string]any{
			"returned": tid,
			"state":    string(stat.State), // of the child before any wait
			"signal":   stat.ExitSignal,    // its exit signal then, of /proc/PID/stat
			"waits":    found,              // an errno's name each, "" where the child is found
			"wait4":    refused,            // the errno of a plain wait4; "" where it was not tried
		},
	}, prog.Close()
}

// become is the call of execve for "labprobe ids", a program that ends soon, with
// nowhere to print to. An image inherits the mask of blocked signals, which is
// full in the child.
func become(prog *rawclone.Program) (failed rawclone.Word) {
	const setMask, maskBytes = 2, 8
	prog.Syscall(unix.SYS_RT_SIGPROCMASK, prog.Const(setMask), prog.Addr(prog.Buffer(maskBytes)), prog.Const(0), prog.Const(maskBytes))
	prog.Syscall(unix.SYS_CLOSE, prog.Const(1))
	argv := prog.Pointers(prog.CString("labprobe"), prog.CString("ids"))
	return prog.Syscall(unix.SYS_EXECVE, prog.Addr(prog.CString("/proc/self/exe")), prog.Addr(argv), prog.Addr(prog.Pointers()))
}

// zombie returns once the child has ended. No signal reports it, perhaps.
func zombie(ctx context.Context, tid int) (procfs.Stat, error) {
	path := fmt.Sprintf("/proc/%d/stat", tid)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		s, err := procfs.ReadStat(path)
		if err != nil || s.State == 'Z' {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("wait for the end of process %d: %w", tid, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// find looks for an ended child by a wait that leaves it as it is, and returns the
// errno's name.
func find(tid int, option uintptr) string {
	const pPID = 1
	var info [128]byte // siginfo_t
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, pPID, uintptr(tid), uintptr(unsafe.Pointer(&info[0])),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|option, 0, 0)
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	return ""
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}
