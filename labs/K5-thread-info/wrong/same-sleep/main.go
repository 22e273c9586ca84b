// Both threads sleep in the same way.
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
	fmt.Printf("@look stacks shallow=%d deep=%d\n", thread(), thread())
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func thread() int {
	tid := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		hour := syscall.Timespec{Sec: 3600}
		syscall.Syscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&hour)), 0, 0)
	}()
	return <-tid
}
