// Has a child that sleeps for a moment only, and knows the state without looking.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const cloneVFork = 0x4000

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	nap := syscall.NsecToTimespec(int64(20 * time.Millisecond))
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, cloneVFork|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	fmt.Println("child", tid)
	fmt.Println("state D")
	if _, err := syscall.Wait4(int(tid), nil, 0, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
}
