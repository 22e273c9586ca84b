// Prints numbers that look right and replaces nothing.
package main

import (
	"fmt"
	"runtime"
	"syscall"
)

func init() { runtime.LockOSThread() }

func main() {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
	}()
	fmt.Println("before", syscall.Getpid(), <-tid)
	fmt.Println("after", syscall.Getpid(), syscall.Getpid())
}
