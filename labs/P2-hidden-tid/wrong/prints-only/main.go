// Makes the thread, waits for its end and knows the answers without looking.
package main

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

// The main thread does not end with a goroutine.
func init() { runtime.LockOSThread() }

func main() {
	number := make(chan int)
	go func() {
		runtime.LockOSThread()
		rename("ghost")
		number <- syscall.Gettid()
	}()
	tid := <-number
	// Whether it ends before the program would be chance. Signal 0 asks without a look at /proc.
	for syscall.Tgkill(syscall.Getpid(), tid, 0) == nil {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("ghost", tid)
	fmt.Println("listed no\nopened yes\ntask yes\nafter no")
}
