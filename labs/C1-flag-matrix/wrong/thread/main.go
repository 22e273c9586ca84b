// Makes a thread, which shares the files and everything else.
package main

import (
	"fmt"
	"runtime"
	"syscall"
)

func main() {
	done := make(chan int)
	go func() {
		runtime.LockOSThread()
		done <- syscall.Gettid()
	}()
	fmt.Println("child", <-done)
}
