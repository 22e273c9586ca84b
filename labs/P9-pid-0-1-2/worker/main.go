// Worker has io_uring make a task that polls for it (IORING_SETUP_SQPOLL), looks
// at that task in /proc, and prints one JSON object.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	sysIOUringSetup = 425 // on every architecture
	setupSQPoll     = 1 << 1
	pfKthread       = 0x200000 // include/linux/sched.h
)

// params is struct io_uring_params, include/uapi/linux/io_uring.h.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	rest                                                                   [23]uint32
}

type task struct {
	PID     int    `json:"pid"` // of this program
	TID     int    `json:"tid"` // of the task that was made
	TGID    int    `json:"tgid"`
	PPID    int    `json:"ppid"`
	Comm    string `json:"comm"`
	Flags   uint64 `json:"flags"`
	Kthread bool   `json:"kthread"`
}

func main() {
	p := params{flags: setupSQPoll, sqThreadIdle: 1000}
	fd, _, errno := syscall.Syscall(sysIOUringSetup, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		fail("io_uring_setup", errno)
	}
	defer syscall.Close(int(fd))
	// The task is a thread of ours, or a process: its name depends on the kernel.
	for _, pattern := range []string{"/proc/self/task/*", "/proc/[0-9]*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			fail("list tasks", err)
		}
		for _, dir := range dirs {
			t, ok := read(dir)
			if ok && (strings.HasPrefix(t.Comm, "iou-sqp-") || strings.HasPrefix(t.Comm, "io_uring-sq")) {
				if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
					fail("print", err)
				}
				return
			}
		}
	}
	fail("look for the task", fmt.Errorf("there is none with a name of io_uring"))
}

// read reads a task's stat and status; false when it has ended.
func read(dir string) (task, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return task{}, false
	}
	open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || end < open {
		return task{}, false
	}
	fields := strings.Fields(string(stat[end+1:])) // fields[0] is field 3 of proc(5)
	if len(fields) < 7 {
		return task{}, false
	}
	t := task{PID: os.Getpid(), Comm: string(stat[open+1 : end])}
	t.TID, _ = strconv.Atoi(strings.TrimSpace(string(stat[:open])))
	t.PPID, _ = strconv.Atoi(fields[1])
	t.Flags, _ = strconv.ParseUint(fields[6], 10, 64)
	t.Kthread = t.Flags&pfKthread != 0
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Tgid:"); ok {
			t.TGID, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return t, err == nil
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "worker: %s: %v\n", what, err)
	os.Exit(1)
}
