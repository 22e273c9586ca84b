// One address, two values: a variable in a forked child and in its parent.
// See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

var g int64 = 2

func main() {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		// TODO: write, and stay until the parent has looked.
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	// TODO: wait until the child has written, and read its memory.
	fmt.Println("child", g)
	fmt.Println("parent", g)
	// TODO: end the child.
	syscall.Wait4(int(tid), nil, 0, nil)
}
