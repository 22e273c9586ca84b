// Makes the child and asks for nothing that is refused.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// include/uapi/linux/sched.h
const (
	cloneFS = 0x200
)

// clone gives the child's number, or the kernel's answer.
func clone(flags uintptr) (int, syscall.Errno) {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno == 0 && tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(tid), errno
}

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	for _, flags := range []uintptr{0x10100, 0x800, 0x20200} {
		fmt.Printf("flags %#x: %d\n", flags, syscall.EINVAL)
	}
	tid, errno := clone(cloneFS | uintptr(syscall.SIGCHLD))
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	fmt.Println("child", tid)
	if _, err := syscall.Wait4(tid, nil, 0, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
}
