// Two threads on one CPU, one of which gives way to the other. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

var (
	in   = bufio.NewReader(os.Stdin)
	stop atomic.Bool
)

func main() {
	runtime.GOMAXPROCS(4) // the two that work leave nothing to the others
	var ready, wg sync.WaitGroup
	ready.Add(2)
	start := make(chan bool)
	var tids [2]int
	for i, name := range []string{"eager", "meek"} {
		wg.Go(func() {
			enter(name)
			// TODO: make meek, and only meek, nicer by 10.
			tids[i] = syscall.Gettid()
			fmt.Println(name, nice(tids[i]))
			ready.Done()
			<-start
			work()
		})
	}
	ready.Wait()
	close(start)
	for _, point := range []string{"begun", "half", "later", "last"} {
		until(tids)
		look(point, tids)
	}
	stop.Store(true)
	wg.Wait()
}

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, tids [2]int) {
	fmt.Printf("@look %s eager=%d meek=%d\n", point, tids[0], tids[1])
	in.ReadString('\n')
}

// until waits until each of the two has worked for 20 ms more of the CPU's time.
func until(tids [2]int) {
	var goal [2]int
	for i, tid := range tids {
		goal[i] = ticks(tid) + 2
	}
	for i, tid := range tids {
		for begin := time.Now(); ticks(tid) < goal[i] && time.Since(begin) < 10*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// ticks is the CPU time of a thread in ticks of 10 ms: fields 14 and 15 of its stat.
func ticks(tid int) int {
	user, err := strconv.Atoi(field(tid, 14))
	check(err)
	system, err := strconv.Atoi(field(tid, 15))
	check(err)
	return user + system
}

// field is a field of a thread's stat, counted from 1 as in proc(5).
func field(tid, n int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	check(err)
	return strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))[n-3]
}

// enter makes the calling goroutine a thread of that name on CPU 0.
func enter(name string) {
	runtime.LockOSThread()
	// TODO: keep it to CPU 0.
	check(os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", syscall.Gettid()), []byte(name), 0))
}

// work wants the CPU until stop. Go's runtime interrupts those that work by a signal, for which
// they would sleep; so there are no signals here.
func work() {
	all := ^uint64(0)
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0); e != 0 {
		check(e)
	}
	for !stop.Load() {
	}
}

// nice is what the kernel has for a thread.
func nice(tid int) string {
	// TODO
	_ = tid
	return "?"
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
