// The goroutine that is the worker takes whatever thread it is given, and leaves it to
// the runtime with that name.
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
	if len(os.Args) == 2 && os.Args[1] == "child" {
		rename("child")
		fmt.Println("child", syscall.Getpid(), syscall.Gettid())
		return
	}
	done := make(chan bool)
	go func() {
		rename("worker")
		fmt.Println("thread", syscall.Getpid(), syscall.Gettid())
		done <- true
	}()
	<-done

	child, err := os.StartProcess("/proc/self/exe", []string{"child", "child"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	child.Wait()
}
