// Sharing makes a child for every combination of CLONE_FILES, CLONE_FS and
// CLONE_SYSVSEM, and asks the kernel by kcmp(2) which of their structures child
// and parent have in common. It prints one JSON object.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// Flags of clone and types of kcmp (include/uapi/linux/sched.h, kcmp.h).
const (
	cloneFS      = 0x200
	cloneFiles   = 0x400
	cloneSysVSem = 0x40000

	kcmpVM, kcmpFiles, kcmpFS, kcmpSighand, kcmpSysVSem = 1, 2, 3, 4, 6
)

// sysKcmp is the same number on no two architectures but those of the generic table.
var sysKcmp = map[string]uintptr{"amd64": 312, "arm64": 272, "arm": 378}[runtime.GOARCH]

type row struct {
	Flags   int  `json:"flags"`
	TID     int  `json:"tid"`
	VM      bool `json:"vm"`
	Files   bool `json:"files"`
	FS      bool `json:"fs"`
	Sighand bool `json:"sighand"`
	SysVSem bool `json:"sysvsem"`
}

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	if err := undoList(); err != nil {
		fail("make a semaphore undo list", err)
	}
	var rows []row
	for mask := range 8 {
		flags := 0
		for i, f := range []int{cloneFiles, cloneFS, cloneSysVSem} {
			if mask&(1<<i) != 0 {
				flags |= f
			}
		}
		rows = append(rows, child(flags))
	}
	thread := make(chan row)
	go func() {
		runtime.LockOSThread()
		thread <- compare(0, syscall.Getpid(), syscall.Gettid())
	}()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"children": rows, "thread": <-thread}); err != nil {
		fail("print", err)
	}
}

// child makes one that sleeps until it is killed, and compares. It never runs
// Go's runtime: after the call it makes system calls and nothing else.
func child(flags int) row {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(flags|int(syscall.SIGCHLD)), 0, 0, 0, 0, 0)
	if errno != 0 {
		fail(fmt.Sprintf("clone with %#x", flags), errno)
	}
	if tid == 0 {
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	r := compare(flags, syscall.Gettid(), int(tid))
	syscall.Kill(int(tid), syscall.SIGKILL)
	if _, err := syscall.Wait4(int(tid), nil, 0, nil); err != nil {
		fail("wait4", err)
	}
	return r
}

func compare(flags, a, b int) row {
	same := func(what int) bool {
		r, _, errno := syscall.RawSyscall6(sysKcmp, uintptr(a), uintptr(b), uintptr(what), 0, 0, 0)
		if errno != 0 {
			fail("kcmp", errno)
		}
		return r == 0
	}
	return row{flags, b, same(kcmpVM), same(kcmpFiles), same(kcmpFS), same(kcmpSighand), same(kcmpSysVSem)}
}

// undoList has the kernel give this task a list of semaphore operations to undo.
// Tasks without one would all be the same: nothing equals nothing.
func undoList() error {
	const ipcPrivate, ipcRmid, semUndo = 0, 0, 0x1000
	id, _, errno := syscall.Syscall(syscall.SYS_SEMGET, ipcPrivate, 1, 0o600)
	if errno != 0 {
		return errno
	}
	op := struct {
		num       uint16
		op, flags int16
	}{0, 1, semUndo}
	_, _, errno = syscall.Syscall(syscall.SYS_SEMOP, id, uintptr(unsafe.Pointer(&op)), 1)
	syscall.Syscall6(syscall.SYS_SEMCTL, id, 0, ipcRmid, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "sharing: %s: %v\n", what, err)
	os.Exit(1)
}
