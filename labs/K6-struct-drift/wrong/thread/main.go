// A thread: it shares everything, and is no process.
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
	tid := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		hour := syscall.Timespec{Sec: 3600}
		syscall.Syscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&hour)), 0, 0)
	}()
	// A goroutine may be anywhere; the thread with the PID is the process's first.
	fmt.Printf("@look shared self=%d child=%d\n", os.Getpid(), <-tid)
	bufio.NewReader(os.Stdin).ReadString('\n')
}
