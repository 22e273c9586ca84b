// Passes the blocks without the flag that makes the kernel look at them.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

// spawn forks a child that stops itself, and returns when it has. The child makes system calls
// only: Go's runtime knows nothing of it.
func spawn(flags, tls uintptr) int {
	// tls is the fourth argument of some architectures and the fifth of others, whose other one is
	// child_tid. No flag here makes the kernel look at that.
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, tls, tls, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	_, err := syscall.Wait4(int(tid), nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
	return int(tid)
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	mem, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	mem[0] = 1 // the page is there
	blocks := [2]uintptr{uintptr(unsafe.Pointer(&mem[0])), uintptr(unsafe.Pointer(&mem[256]))}

	first, second := spawn(0, blocks[0]), spawn(0, blocks[1])
	plain := spawn(0, 0)

	fmt.Printf("@look made program=%d first=%d second=%d plain=%d block_first=%#x block_second=%#x\n",
		os.Getpid(), first, second, plain, blocks[0], blocks[1])
	bufio.NewReader(os.Stdin).ReadString('\n') // it was looked at

	for _, child := range []int{first, second, plain} {
		must("kill", syscall.Kill(child, syscall.SIGKILL))
		_, err := syscall.Wait4(child, nil, 0, nil)
		must("wait4", err)
	}
}
