// One thread and one child, each with a name and its numbers. See TASK.md.
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

func main() {
	// TODO: when this process is the child, rename it, print its line and return.

	done := make(chan bool)
	go func() {
		// TODO: this must be one thread from here to its end, called worker.
		rename("?")
		fmt.Println("thread", 0, 0)
		done <- true
	}()
	<-done

	// TODO: start this very program again, as the child, and wait for it.
	_ = os.Args
}
