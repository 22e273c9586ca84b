// A child by clone3. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// cloneArgs is struct clone_args in its first version (include/uapi/linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

const sysClone3 = 435

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	args := cloneArgs{exitSignal: uint64(syscall.SIGCHLD)}
	tid, _, errno := syscall.RawSyscall(sysClone3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone3:", errno)
		os.Exit(1)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	fmt.Println("child", tid)
	if _, err := syscall.Wait4(int(tid), nil, 0, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
}
