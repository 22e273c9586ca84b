// A thread that is not the leader replaces the program.
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
		fmt.Println(os.Args[1], syscall.Getpid(), syscall.Gettid())
		return
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // main has the first thread: this is another
		fmt.Println("before", syscall.Getpid(), syscall.Gettid())
		failed <- syscall.Exec("/proc/self/exe", []string{"main", "after"}, os.Environ())
	}()
	fmt.Fprintln(os.Stderr, "exec:", <-failed)
	os.Exit(1)
}
