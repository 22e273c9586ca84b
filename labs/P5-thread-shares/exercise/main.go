// A thread that shares memory, and not its working directory. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

// rename gives the calling thread a name in the kernel, of at most 15 bytes.
func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

var g = 2

func main() {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else gets this thread
		rename("?")            // TODO: its name
		// TODO: a directory structure of its own, then /proc; add to g; say where it is.
		done <- true
	}()
	<-done
	dir, err := syscall.Getwd()
	must("getcwd", err)
	fmt.Println("main", dir)
	fmt.Println("g", g)
}
