// Two threads, one of which works, and the CPU time of each. See TASK.md.
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

// ticks is utime + stime of a stat file.
func ticks(file string) int {
	// TODO
	return 0
}

func main() {
	busy, lazy, leave := make(chan int), make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		rename("busy")
		// TODO: burn 40 ticks.
		busy <- syscall.Gettid()
		<-leave
	}()
	go func() {
		runtime.LockOSThread()
		rename("lazy")
		lazy <- syscall.Gettid()
		<-leave
	}()
	// TODO: which files?
	fmt.Println("lazy", ticks(fmt.Sprint(<-lazy)))
	fmt.Println("busy", ticks(fmt.Sprint(<-busy)))
	fmt.Println("group", ticks(""))
}
