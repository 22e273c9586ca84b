// Where a child sleeps. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	var pipe [2]int
	check(syscall.Pipe(pipe[:]))
	pid := fork(pipe[0])
	stack := asleep(pid)
	fmt.Println("sleeper", pid, "state S")
	printStack(stack)
	_, err := syscall.Write(pipe[1], []byte{1})
	check(err)
	_, err = syscall.Wait4(pid, nil, 0, nil)
	check(err)
}

// asleep waits until the child is in state S within a read, and gives its stack.
func asleep(pid int) string {
	for {
		stat, stack := read(fmt.Sprintf("/proc/%d/stat", pid)), read(fmt.Sprintf("/proc/%d/stack", pid))
		if strings.HasPrefix(stat[strings.LastIndex(stat, ") ")+2:], "S") && strings.Contains(stack, "vfs_read+") {
			return stack
		}
		time.Sleep(time.Millisecond)
	}
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

func read(file string) string {
	b, err := os.ReadFile(file)
	check(err)
	return string(b)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
