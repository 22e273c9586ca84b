// Starts the program again as a child.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 {
		fmt.Println(os.Args[1], syscall.Getpid(), syscall.Gettid())
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fmt.Println("before", syscall.Getpid(), syscall.Gettid())
		child, err := os.StartProcess("/proc/self/exe", []string{"main", "after"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err == nil {
			_, err = child.Wait()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
