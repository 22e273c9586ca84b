// The byte is in the pipe before the child reads: it never sleeps.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	var pipe [2]int
	check(syscall.Pipe(pipe[:]))
	_, err := syscall.Write(pipe[1], []byte{1})
	check(err)
	pid := fork(pipe[0])
	stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid)) // not to be read any more when it has ended
	fmt.Println("sleeper", pid, "state S")
	printStack(string(stack))
	_, err = syscall.Wait4(pid, nil, 0, nil)
	check(err)
}

// printStack prints the text of a stack file in TRACE32's form.
func printStack(stack string) {
	n := 0
	for line := range strings.Lines(stack) {
		if _, frame, ok := strings.Cut(line, "] "); ok {
			name, _, _ := strings.Cut(frame, "+")
			fmt.Printf("-%03d|%s()\n", n, name)
			n++
		}
	}
}

// fork makes a child that reads a byte and exits.
func fork(fd int) int {
	var b [1]byte
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		// System calls only: Go's runtime knows nothing of this task.
		syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if errno != 0 {
		check(errno)
	}
	return int(pid)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
