// Package ending holds the probe that lets a child end in one of two ways: by its
// own exit_group, or by a signal that ends it.
//
// It looks at the child between its end and its burial: waitid with WNOWAIT tells
// of it and leaves it where it is, a zombie.
package ending

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "ending", Run: run}) }

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		By     string `json:"by"`
		Status int    `json:"status"`
		Signal int    `json:"signal"`
	}{By: "exit", Signal: int(unix.SIGKILL)}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	switch {
	case p.By != "exit" && p.By != "signal":
		return nil, probe.Paramf(`by %q: give "exit" or "signal"`, p.By)
	case p.Status < 0 || p.Status > 255:
		return nil, probe.Paramf("status %d: give 0 to 255", p.Status)
	case p.Signal != int(unix.SIGKILL):
		// The child has all signals blocked, and this one cannot be.
		return nil, probe.Paramf("signal %d: give %d, SIGKILL", p.Signal, unix.SIGKILL)
	}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	gate := prog.Var(0)
	prog.FutexWait(gate, 0)
	prog.ExitGroup(p.Status)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, prog)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(child.TID, unix.SIGKILL) })
	defer stop()
	dir := filepath.Join("/proc", strconv.Itoa(child.TID))
	err = asleep(ctx, dir)
	if p.By == "exit" && err == nil {
		err = prog.Post(gate, 1)
	} else {
		err = errors.Join(err, unix.Kill(child.TID, unix.SIGKILL))
	}
	told, waitErr := wait(child.TID)
	dead, statErr := procfs.ReadStat(filepath.Join(dir, "stat"))
	status, reapErr := child.Wait()
	if err := errors.Join(err, waitErr, statErr, reapErr); err != nil {
		return nil, err
	}
	_, gone := procfs.ReadStat(filepath.Join(dir, "stat"))
	// The task_struct goes when no CPU can be looking at it any more, one grace
	// period of RCU later; this waits for one. Kernels without it are not asked twice.
	const global = 1
	unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	waitStatus := int(status)
	return &wire.ProbeResult{
		Probe:  "ending",
		Method: map[string]string{"exit": "raw clone, exit_group", "signal": "raw clone, kill"}[p.By] + ", waitid(WNOWAIT), stat, wait4",
		Tasks: []wire.Task{self, {
			Role: "child", PID: child.TID, TID: child.TID, TGID: child.TID, PPID: self.PID,
			Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
			Status: &waitStatus,
		}},
		Data: map[string]any{
			"code":   told.code, // CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3: include/uapi/asm-generic/siginfo.h
			"status": told.status,
			"state":  string(dead.State), // between its end and wait4
			"rss":    dead.RSS,           // then, in pages
			"gone":   procfs.Gone(gone),  // /proc/PID after wait4
		},
	}, prog.Close()
}

// asleep returns when the task of dir sleeps.
func asleep(ctx context.Context, dir string) error {
	for {
		stat, err := procfs.ReadStat(filepath.Join(dir, "stat"))
		if err != nil || stat.State == 'S' {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the child to sleep: %w", context.Cause(ctx))
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// told is what a siginfo of a child says.
type told struct{ code, status int }

// wait blocks until the child has ended, and leaves it a zombie.
func wait(pid int) (told, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return parse(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))), nil
		}
		if err != unix.EINTR {
			return told{}, fmt.Errorf("waitid %d: %w", pid, err)
		}
	}
}

// parse reads a siginfo_t: signo, errno and code, then, on the next boundary of a
// pointer, pid, uid and status.
func parse(info []byte) told {
	word := func(at int) int { return int(int32(binary.NativeEndian.Uint32(info[at:]))) }
	union := 12
	if unix.SizeofPtr == 8 {
		union = 16
	}
	return told{code: word(8), status: word(union + 8)}
}
