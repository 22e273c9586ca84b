// A child whose end nobody is told of. See TASK.md.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, 0, 0, 0, 0, 0, 0)
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
	_, err := syscall.Wait4(int(tid), nil, 0, nil)
	if errors.As(err, &errno) {
		fmt.Printf("plain wait: %d\n", errno)
	}
	if _, err := syscall.Wait4(int(tid), nil, syscall.WALL, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
}
