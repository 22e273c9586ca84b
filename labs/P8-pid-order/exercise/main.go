// A younger child with a smaller number than its elder. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	// TODO: /proc/sys/kernel/pid_max is where numbers end. Make it small, and set
	// it back at the end.

	elder := child("elder")
	defer end(elder)

	// TODO: until the numbers begin anew, make children and end them. The first one
	// with a smaller number is younger.
	fmt.Println("elder", elder)
}

// child makes a process of this name that sleeps until it is killed. A child has
// its maker's name to begin with, so the maker takes that name itself.
func child(name string) int {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	if errno != 0 {
		check("clone", errno)
	}
	return int(tid)
}

// end kills a child and waits for it.
func end(pid int) {
	syscall.Kill(pid, syscall.SIGKILL)
	_, err := syscall.Wait4(pid, nil, 0, nil)
	check("wait4", err)
}

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}
