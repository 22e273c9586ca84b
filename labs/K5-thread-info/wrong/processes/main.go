// Two processes in place of two threads.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

var (
	hour = syscall.Timespec{Sec: 3600}
	fd   struct {
		fd              int32
		events, revents int16
	}
)

func main() {
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		os.Exit(1)
	}
	fd.fd, fd.events = int32(pipe[0]), 1
	shallow := fork(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&hour)), 0)
	deep := fork(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fd)), 1)
	fmt.Printf("@look stacks shallow=%d deep=%d\n", shallow, deep)
	bufio.NewReader(os.Stdin).ReadString('\n')
	for _, pid := range []int{shallow, deep} {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
}

// fork makes a child that sleeps by a system call.
func fork(call, a, b uintptr) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		// System calls only: Go's runtime knows nothing of this task.
		for {
			syscall.RawSyscall6(call, a, b, 0, 0, 0, 0)
		}
	}
	return int(pid)
}
