// Has middle wait for leaf: nobody is ever an orphan.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	switch os.Args[0] {
	case "middle":
		rename("middle")
		leaf := start("leaf", strconv.Itoa(os.Getpid()))
		fmt.Println("adopted", leaf.Pid)
		leaf.Wait()
		return
	case "leaf":
		rename("leaf")
		time.Sleep(50 * time.Millisecond)
		return
	}
	const prSetChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		check("prctl", errno)
	}
	middle := start("middle")
	_, err := middle.Wait()
	check("wait for middle", err)
}

// start starts this very program under another name.
func start(argv ...string) *os.Process {
	p, err := os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	check("start "+argv[0], err)
	return p
}

// rename gives the calling thread a name in the kernel, of at most 15 bytes.
func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}
