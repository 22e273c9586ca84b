// A thread, where it is seen, and when it is gone. See TASK.md.
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

// listed says whether a directory has an entry of this name.
func listed(dir, name string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, e := range entries {
		if e.Name() == name {
			return true
		}
	}
	return false
}

func main() {
	number := make(chan int)
	go func() {
		// TODO: a thread of its own, called ghost, that stays until it is told to end.
		rename("?")
		number <- syscall.Gettid()
	}()
	tid := fmt.Sprint(<-number)
	fmt.Println("ghost", tid)
	// TODO: listed, opened, task.
	_ = listed
	// TODO: let ghost end, and look again: after.
}
