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
				// TODO: wait for the other's byte, and send one.
			}
			fmt.Println(name, switches())
		})
	}
	wg.Wait()
}

// enter makes the calling goroutine a thread of that name on CPU 0.
func enter(name string) {
	// TODO: lock it to its thread, keep that to one CPU, and name it for the kernel.
	_ = name
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
