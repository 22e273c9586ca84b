// Looks into both lists and concludes the rest.
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

func init() { runtime.LockOSThread() }

func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

func listed(dir, name string) string {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == name {
			return "yes"
		}
	}
	return "no"
}

func main() {
	number, leave := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		rename("ghost")
		number <- syscall.Gettid()
		<-leave
	}()
	tid := strconv.Itoa(<-number)
	fmt.Println("ghost", tid)
	fmt.Println("listed", listed("/proc", tid))
	fmt.Println("opened yes")
	fmt.Println("task", listed("/proc/self/task", tid))
	close(leave)
	time.Sleep(50 * time.Millisecond)
	fmt.Println("after no")
}
