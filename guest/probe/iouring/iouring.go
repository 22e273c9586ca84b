// Package iouring holds the probe that has io_uring make a task.
//
// A ring with IORING_SETUP_SQPOLL has a task of its own that looks for requests.
// Whose it is depends on the kernel: a thread of the process that asked, made by
// create_io_thread, or a kernel thread made by kthreadd.
package iouring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "poller", Run: run}) }

// setup is struct io_uring_params, include/uapi/linux/io_uring.h.
type setup struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	rest                                                                   [23]uint32
}

const (
	sqPoll = 1 << 1 // IORING_SETUP_SQPOLL
	idleMS = 1000   // how long the task looks before it sleeps
)

// names are what the task is called, by age.
var names = []string{"iou-sqp-", "io_uring-sq"}

// poller is what /proc shows of the task.
type poller struct {
	TID     int    `json:"tid"`
	TGID    int    `json:"tgid"`
	PPID    int    `json:"ppid"`
	Comm    string `json:"comm"`
	Flags   uint64 `json:"flags"` // PF_*
	Kthread bool   `json:"kthread"`
}

// run makes a ring, looks for its task and drops the ring. A kernel that refuses
// is not an error: data has its errno.
func run(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{
		Probe:  "poller",
		Method: "io_uring_setup with IORING_SETUP_SQPOLL",
		Tasks:  []wire.Task{probe.Self()},
		Data:   map[string]any{"errno": ""},
	}
	p := setup{flags: sqPoll, sqThreadIdle: idleMS}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		res.Data["errno"] = unix.ErrnoName(errno)
		return res, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("io_uring has made no task called %s", strings.Join(names, " or ")))
	defer cancel()
	found, err := look(ctx, "/proc", res.Tasks[0].PID)
	if err := errors.Join(err, unix.Close(int(fd))); err != nil {
		return nil, err
	}
	res.Data["task"] = found
	return res, nil
}

// patience is for a slow machine: the task is there, but takes its name itself
// when it first runs.
const patience = time.Minute

// look waits for the task among the threads of self and among all processes.
func look(ctx context.Context, root string, self int) (*poller, error) {
	for {
		if p, err := find(root, self); p != nil || err != nil {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// find returns nil when the task is not there, or has no name yet.
func find(root string, self int) (*poller, error) {
	for _, dir := range []string{filepath.Join(root, strconv.Itoa(self), "task"), root} {
		tids, err := procfs.IDs(dir)
		if err != nil {
			return nil, err
		}
		for _, tid := range tids {
			stat, err := procfs.ReadStat(filepath.Join(dir, strconv.Itoa(tid), "stat"))
			if procfs.Gone(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if !strings.HasPrefix(stat.Comm, name) {
					continue
				}
				p := &poller{TID: tid, TGID: tid, PPID: stat.PPID, Comm: stat.Comm, Flags: stat.Flags, Kthread: stat.KernelThread()}
				if dir != root {
					p.TGID = self
				}
				return p, nil
			}
		}
	}
	return nil, nil
}
