// Makes the thread and knows the answers without looking.
package main

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

func main() {
	number := make(chan int)
	go func() {
		runtime.LockOSThread()
		rename("ghost")
		number <- syscall.Gettid()
	}()
	fmt.Println("ghost", <-number)
	fmt.Println("listed no\nopened yes\ntask yes\nafter no")
}
