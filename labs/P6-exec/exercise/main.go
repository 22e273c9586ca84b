// A thread that is not the leader replaces the program. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 {
		// TODO: this is the program that the thread has become.
		return
	}
	done := make(chan bool)
	go func() {
		// TODO: stay on one thread, print its line, and replace the program.
		fmt.Println("before", syscall.Getpid(), 0)
		done <- true
	}()
	<-done
}
