// A thread that goes to sleep fifty times, and the kernel's count of it. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

var ready atomic.Bool // the sleeper does nothing more than to block for good

func main() {
	var gate [2]int
	check(syscall.Pipe(gate[:]))
	tid := make(chan int)
	done := make(chan bool)
	go sleeper(tid, gate[0], done)
	id := <-tid
	asleep(id)
	fmt.Println("voluntary", voluntary(id))
	fmt.Printf("@look asleep sleeper=%d\n", id)
	bufio.NewReader(os.Stdin).ReadString('\n') // it was looked at
	check(syscall.Close(gate[1]))
	<-done
}

// sleeper is a thread of that name, which sleeps fifty times, and then until gate is closed.
func sleeper(tid chan int, gate int, done chan bool) {
	runtime.LockOSThread()
	check(os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", syscall.Gettid()), []byte("sleeper"), 0))
	tid <- syscall.Gettid()
	// TODO: go to sleep fifty times, for some milliseconds each.
	// Raw, and with signals blocked, so that Go's runtime does nothing beside it.
	var b [1]byte
	all := ^uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	ready.Store(true)
	syscall.RawSyscall(syscall.SYS_READ, uintptr(gate), uintptr(unsafe.Pointer(&b)), 1)
	close(done)
}

// asleep waits until the thread has done its naps and sleeps.
func asleep(tid int) {
	for !ready.Load() || state(tid) != "S" {
		time.Sleep(5 * time.Millisecond)
	}
}

// state is field 3 of a thread's stat.
func state(tid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	check(err)
	return strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))[0]
}

// voluntary is what the kernel has counted for a thread.
func voluntary(tid int) int {
	// TODO
	return tid
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
