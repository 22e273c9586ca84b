// A thread, where it is seen, and when it is gone.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
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

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
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

func opened(tid string) bool {
	_, err := os.ReadFile("/proc/" + tid + "/status")
	return err == nil
}

func main() {
	number, leave := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		rename("ghost")
		number <- syscall.Gettid()
		<-leave
	}()
	tid := strconv.Itoa(<-number)
	fmt.Println("ghost", tid)
	fmt.Println("listed", yes(listed("/proc", tid)))
	fmt.Println("opened", yes(opened(tid)))
	fmt.Println("task", yes(listed("/proc/self/task", tid)))
	close(leave)

	// The thread ends a little after its goroutine.
	there := true
	for try := 0; there && try < 1000; try++ {
		time.Sleep(time.Millisecond)
		there = opened(tid)
	}
	fmt.Println("after", yes(there))
}
