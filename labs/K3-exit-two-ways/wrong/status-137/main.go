// The second exits with 137, which is all that a shell shows of a SIGKILL.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	first, second := fork(7, false), fork(137, false)
	for _, pid := range []int{first, second} {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			fmt.Fprintln(os.Stderr, "wait4:", err)
			os.Exit(1)
		}
		if status.ExitStatus() > 128 {
			fmt.Println("killed", pid, status.ExitStatus()-128)
		} else {
			fmt.Println("exited", pid, status.ExitStatus())
		}
	}
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
