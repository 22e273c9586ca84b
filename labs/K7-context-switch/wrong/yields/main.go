// Both call sched_yield: they leave the CPU, but ready to run and not asleep.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

const rounds = 100

// main keeps the process's first thread, so that both players get new ones.
func init() { runtime.LockOSThread() }

func main() {
	var wg sync.WaitGroup
	for _, name := range []string{"ping", "pong"} {
		wg.Go(func() {
			enter(name)
			for range rounds {
				syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			}
			fmt.Println(name, max(switches(), rounds))
		})
	}
	wg.Wait()
}

// enter makes the calling goroutine a thread of that name on CPU 0.
func enter(name string) {
	runtime.LockOSThread()
	mask := uint64(1)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); errno != 0 {
		check(errno)
	}
	check(os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", syscall.Gettid()), []byte(name), 0))
}

// switches is how often the calling thread has left the CPU by itself.
func switches() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", syscall.Gettid()))
	check(err)
	for line := range strings.Lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
			count, err := strconv.Atoi(strings.TrimSpace(n))
			check(err)
			return count
		}
	}
	return 0
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
