// Waits for a value that the word does not have, and so does not wait.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
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

func main() {
	var all sync.WaitGroup
	tids := make(chan int, 3)
	back := make(chan int, 3) // the threads that have returned
	leave := make(chan bool)
	for range 3 {
		all.Go(func() {
			runtime.LockOSThread()
			tid := syscall.Gettid()
			tids <- tid
			if _, errno := futex(futexWait, 1); errno == 0 {
				return // woken
			}
			back <- tid
			<-leave
		})
	}
	waiters := []int{<-tids, <-tids, <-tids}
	look("waiting", fmt.Sprintf("waiter=%d,%d,%d", waiters[0], waiters[1], waiters[2]))

	futex(futexWake, 2)
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

	word.Store(1)
	futex(futexWake, 1)
	close(leave)
	all.Wait()
}
