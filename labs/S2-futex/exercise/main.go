// Three threads that wait on a word, two of which one call wakes. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	futexWait = 0
	futexWake = 1
)

var (
	in   = bufio.NewReader(os.Stdin)
	word atomic.Uint32 // 0 until the end
)

// futex is the call, and gives its result.
func futex(op, val int) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), uintptr(op), uintptr(val), 0, 0, 0)
	return int(n), errno
}

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point, tasks string) {
	fmt.Printf("@look %s %s word=%#x\n", point, tasks, uintptr(unsafe.Pointer(&word)))
	in.ReadString('\n')
}

// sleeps waits until a thread sleeps.
func sleeps(tid int) {
	for {
		line, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for i := len(line) - 1; i > 0; i-- {
			if line[i] == ')' {
				if line[i+2] == 'S' {
					return
				}
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func main() {
	_, _, _, _ = futexWait, futexWake, futex, sleeps
	var all sync.WaitGroup
	tids := make(chan int, 3)
	back := make(chan int, 3) // the threads that have returned
	leave := make(chan bool)
	for range 3 {
		all.Go(func() {
			runtime.LockOSThread()
			tid := syscall.Gettid()
			tids <- tid
			// TODO: wait on word, which is 0, by FUTEX_WAIT, until it is woken.
			back <- tid
			<-leave
		})
	}
	waiters := []int{<-tids, <-tids, <-tids}
	// TODO: wait until all three sleep.
	look("waiting", fmt.Sprintf("waiter=%d,%d,%d", waiters[0], waiters[1], waiters[2]))

	// TODO: wake two of them by one call.
	left := waiters[0]
	for range 2 {
		gone := <-back
		for i, tid := range waiters {
			if tid == gone {
				waiters = append(waiters[:i:i], waiters[i+1:]...)
				break
			}
		}
		left = waiters[0]
	}
	look("two", fmt.Sprintf("left=%d", left))

	// TODO: wake the last one.
	close(leave)
	all.Wait()
}
