// A leaf that loses its parent and finds its grandparent. See TASK.md.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	switch os.Args[0] {
	case "middle":
		rename("middle")
		// TODO: start leaf, and leave it alone.
		return
	case "leaf":
		rename("leaf")
		// TODO: stay until the parent is another one.
		return
	}
	// TODO: orphans below this process shall come to it.
	middle := start("middle")
	_, err := middle.Wait()
	check("wait for middle", err)
	// TODO: wait for leaf and print its number.
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
