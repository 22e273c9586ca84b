// Two threads that sleep, one with more on its kernel stack. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

func main() {
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shallow := thread(func() {
		hour := syscall.Timespec{Sec: 3600}
		syscall.Syscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&hour)), 0, 0)
	})
	deep := thread(func() {
		fd := struct {
			fd              int32
			events, revents int16
		}{int32(pipe[0]), 1, 0} // POLLIN
		syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fd)), 1, 0, 0, 0, 0)
	})
	fmt.Printf("@look stacks shallow=%d deep=%d\n", shallow, deep)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// thread runs f on a thread of its own, and returns its TID.
func thread(f func()) int {
	tid := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		f()
	}()
	return <-tid
}
