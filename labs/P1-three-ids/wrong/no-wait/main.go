// The program does not wait for its child, which prints its line when nobody looks any
// more.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
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
		time.Sleep(200 * time.Millisecond)
		fmt.Println("child", syscall.Getpid(), syscall.Gettid())
		return
	}
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
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
	child.Release()
}
