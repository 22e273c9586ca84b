// Shares the working directory, too.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

const cloneFiles = 0x400 | 0x200

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, cloneFiles|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
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
