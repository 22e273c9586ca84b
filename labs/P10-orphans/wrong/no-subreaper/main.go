// Waits for leaf without having asked for it: the kernel gives leaf to init.
package main

import (
	"fmt"
	"io"
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
		start("leaf", os.NewFile(3, "held"), strconv.Itoa(os.Getpid()))
		return
	case "leaf":
		rename("leaf")
		for os.Args[1] == strconv.Itoa(os.Getppid()) {
			time.Sleep(time.Millisecond)
		}
		return
	}
	// It is there to the end: leaf holds the other end of this pipe.
	end, held, err := os.Pipe()
	check("pipe", err)
	middle := start("middle", held)
	held.Close()
	_, err = middle.Wait()
	check("wait for middle", err)
	if leaf, err := syscall.Wait4(-1, nil, 0, nil); err == nil {
		fmt.Println("adopted", leaf)
	}
	fmt.Println("adopted", middle.Pid+5)
	io.Copy(io.Discard, end)
}

// start starts this very program under another name.
func start(name string, held *os.File, args ...string) *os.Process {
	argv := append([]string{name}, args...)
	p, err := os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr, held}})
	check("start "+name, err)
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
