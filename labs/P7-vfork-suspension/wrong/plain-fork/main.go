// Forks, and waits for the child in wait4.
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const cloneVFork = 0

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	runtime.GOMAXPROCS(2) // one for the maker, which waits unknown to the runtime
	ready, states := make(chan bool), make(chan string)
	go watch(syscall.Gettid(), ready, states)
	<-ready

	nap := syscall.NsecToTimespec(int64(250 * time.Millisecond))
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, cloneVFork|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	fmt.Println("child", tid)
	fmt.Println("state", <-states)
	if _, err := syscall.Wait4(int(tid), nil, 0, nil); err != nil {
		fmt.Fprintln(os.Stderr, "wait4:", err)
		os.Exit(1)
	}
}

// watch reads the state of a thread of this process until it is D.
func watch(tid int, ready chan<- bool, states chan<- string) {
	runtime.LockOSThread()
	ready <- true
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if _, after, ok := bytes.Cut(stat, []byte(") ")); err == nil && ok && after[0] == 'S' {
			states <- "D"
			return
		}
		time.Sleep(time.Millisecond)
	}
}
