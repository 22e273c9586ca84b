// Two threads that hand one CPU to each other. See TASK.md.
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
	var there, back [2]int
	check(syscall.Pipe(there[:]))
	check(syscall.Pipe(back[:]))
	var wg sync.WaitGroup
	play := func(name string, from, to int, first bool) {
		wg.Go(func() {
			enter(name)
			token := make([]byte, 1)
			for i := range rounds {
				if !first || i > 0 {
					read(from, token)
				}
				_, err := syscall.Write(to, token)
				check(err)
			}
			fmt.Println(name, switches())
		})
	}
	play("ping", back[0], there[1], true)
	play("pong", there[0], back[1], false)
	wg.Wait()
}

// read sleeps in the kernel, not in Go's runtime, and goes on after a signal.
func read(fd int, token []byte) {
	for {
		_, err := syscall.Read(fd, token)
		if err == syscall.EINTR {
			continue
		}
		check(err)
		return
	}
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
