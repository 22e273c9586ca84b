// Reads /proc/TID/stat, which is the whole group's.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

// rename gives the calling thread a name in the kernel, of at most 15 bytes.
func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

// ticks is utime + stime of a stat file.
func ticks(file string) int {
	line, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
	utime, _ := strconv.Atoi(fields[11])
	stime, _ := strconv.Atoi(fields[12])
	return utime + stime
}

// used is the calling thread's CPU time.
func used() time.Duration {
	const rusageThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func own(tid int) int { return ticks(fmt.Sprintf("/proc/%d/stat", tid)) }

var Sink int // exported, so that the loop is kept

func main() {
	busy, lazy, leave := make(chan int), make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		rename("busy")
		for used() < 400*time.Millisecond {
			for range 1_000_000 {
				Sink++
			}
		}
		busy <- syscall.Gettid()
		<-leave
	}()
	go func() {
		runtime.LockOSThread()
		rename("lazy")
		lazy <- syscall.Gettid()
		<-leave
	}()
	l := <-lazy
	fmt.Println("busy", own(<-busy))
	fmt.Println("lazy", own(l))
	fmt.Println("group", ticks("/proc/self/stat"))
}
