// Makes a second thread and calls that its child.
package main

import (
	"fmt"
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
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		rename("worker")
		fmt.Println("thread", syscall.Getpid(), syscall.Gettid())
		done <- true
	}()
	<-done

	go func() {
		runtime.LockOSThread()
		rename("child")
		fmt.Println("child", syscall.Gettid(), syscall.Gettid())
		done <- true
	}()
	<-done
}
