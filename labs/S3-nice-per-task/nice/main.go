// Two threads on one CPU, of which one is made nicer by its number alone. With
// "raise" it only tries to make a thread less nice than it is. The result is JSON.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

// task is one thread as /proc/self/task/TID shows it.
type task struct {
	TID   int   `json:"tid"`
	Prio  int   `json:"prio"`   // field 18 of stat
	Nice  int   `json:"nice"`   // field 19
	RunNS int64 `json:"run_ns"` // the first number of schedstat, -1 without the file
}

type result struct {
	Leader task   `json:"leader"`
	Plain  task   `json:"plain"`
	Meek   task   `json:"meek"`
	Raised string `json:"raised"` // why nice -5 was refused, "" when it was not
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "raise" {
		r := result{Raised: errno(setNice(syscall.Gettid(), -5)), Leader: read(syscall.Gettid())}
		check(json.NewEncoder(os.Stdout).Encode(r))
		return
	}
	runtime.GOMAXPROCS(4) // the two that burn leave nothing to the others
	start := make(chan bool)
	var stop atomic.Bool
	leave := make(chan bool)
	plain, meek := burner("plain", start, leave, &stop), burner("meek", start, leave, &stop)
	check(setNice(meek, 10))
	close(start)
	// From the first point to the last both want the CPU all the time.
	until(plain, 3)
	until(meek, 2)
	in := bufio.NewReader(os.Stdin)
	for i, point := range []string{"set", "half", "later", "last"} {
		if i > 0 {
			until(plain, ticks(plain)+10)
			until(meek, ticks(meek)+2)
		}
		fmt.Printf("@look %s leader=%d plain=%d meek=%d\n", point, os.Getpid(), plain, meek)
		in.ReadString('\n') // it was looked at
	}
	stop.Store(true)
	r := result{Raised: errno(setNice(plain, -5)), Leader: read(os.Getpid()), Plain: read(plain), Meek: read(meek)}
	close(leave)
	check(json.NewEncoder(os.Stdout).Encode(r))
}

// burner starts a thread of that name on CPU 0, which works from start to stop and then
// lives until leave.
func burner(name string, start, leave chan bool, stop *atomic.Bool) int {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		mask := uint64(1)
		if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); e != 0 {
			check(e)
		}
		check(os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", syscall.Gettid()), []byte(name), 0))
		block()
		tid <- syscall.Gettid()
		<-start
		for !stop.Load() {
		}
		<-leave
	}()
	return <-tid
}

// block blocks all signals of the calling thread: by one, Go's runtime takes the CPU from a
// goroutine that has had it for 10 ms, and its thread would sleep.
func block() {
	all := ^uint64(0)
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0); e != 0 { // 0 is SIG_BLOCK
		check(e)
	}
}

// until waits until a thread has had so many ticks of the CPU, not of the clock.
func until(tid, n int) {
	for begin := time.Now(); ticks(tid) < n && time.Since(begin) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
}

// setNice is setpriority for one task. It takes a TID, whatever its name PRIO_PROCESS says.
func setNice(tid, nice int) error { return syscall.Setpriority(syscall.PRIO_PROCESS, tid, nice) }

// read reads a thread's own files.
func read(tid int) (t task) {
	f := fields(tid)
	t.TID, t.RunNS = tid, -1
	var err error
	t.Prio, err = strconv.Atoi(f[15])
	check(err)
	t.Nice, err = strconv.Atoi(f[16])
	check(err)
	if text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid)); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		t.RunNS, err = strconv.ParseInt(first, 10, 64)
		check(err)
	}
	return t
}

// ticks is the CPU time of a thread in ticks of 10 ms.
func ticks(tid int) int {
	f := fields(tid)
	utime, err := strconv.Atoi(f[11])
	check(err)
	stime, err := strconv.Atoi(f[12])
	check(err)
	return utime + stime
}

// fields are those of stat behind the name, the state first.
func fields(tid int) []string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	check(err)
	return strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
}

func errno(err error) string {
	if err == syscall.EACCES {
		return "EACCES"
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
