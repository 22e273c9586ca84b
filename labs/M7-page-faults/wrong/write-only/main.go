// Does not read the first page before it writes to it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

const pages = 4

var (
	in  = bufio.NewReader(os.Stdin)
	Got byte // exported, so that a read into it is kept
)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, mem []byte) {
	size := len(mem) / pages
	fmt.Printf("@look %s program=%d page=%p,%p,%p,%p\n", point, os.Getpid(), &mem[0], &mem[size], &mem[2*size], &mem[3*size])
	in.ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	look("mapped", mem)
	mem[0] = 1
	mem[size] = 1
	mem[3*size] = 1

	child, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if child == 0 {
		// The child: system calls and plain assignments only, Go's runtime knows nothing of it.
		mem[3*size] = 2
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	_, err = syscall.Wait4(int(child), nil, 0, nil)
	must("wait4", err)
	look("done", mem)
}
