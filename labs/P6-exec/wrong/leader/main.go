// Execs in the first thread, where both numbers are the same anyhow.
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
	fmt.Println("before", syscall.Getpid(), syscall.Gettid())
	fmt.Fprintln(os.Stderr, "exec:", syscall.Exec("/proc/self/exe", []string{"main", "after"}, os.Environ()))
	os.Exit(1)
}
