// A file that the child opens and the parent reads. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

const (
	cloneFiles = 0x400
	here       = ^uintptr(99) // AT_FDCWD, -100
)

// path is where the child cannot be surprised: it makes system calls only.
var path = append([]byte("/proc/version"), 0)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	name := uintptr(unsafe.Pointer(&path[0]))
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, cloneFiles|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	if tid == 0 {
		fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, here, name, syscall.O_RDONLY, 0, 0, 0)
		if errno != 0 {
			fd = 255
		}
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, fd, 0, 0)
		}
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(int(tid), &status, 0, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
	line := make([]byte, 512)
	n, err := syscall.Read(status.ExitStatus(), line)
	if err != nil {
		fmt.Fprintln(os.Stderr, "read:", err)
		os.Exit(1)
	}
	fmt.Printf("descriptor %d: %s", status.ExitStatus(), line[:n])
}
