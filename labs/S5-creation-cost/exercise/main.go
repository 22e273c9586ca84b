// What a fork copies of its maker's memory, and a thread does not. See TASK.md.
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

const size = 8 << 20

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child, thread int, mem []byte) {
	fmt.Printf("@look %s maker=%d child=%d thread=%d page=%p,%p\n", point, os.Getpid(), child, thread, &mem[0], &mem[size-os.Getpagesize()])
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// memory maps memory that is in no huge page.
func memory(flags int) []byte {
	const noHugePage = 15
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|flags)
	must("mmap", err)
	syscall.Madvise(mem, noHugePage) // a kernel without huge pages does not know it
	return mem
}

func main() {
	mem := memory(syscall.MAP_PRIVATE)
	// TODO: a child that has entries for all pages of mem, made by the raw call clone. It
	// makes system calls only, and stops itself.
	child := os.Getpid()
	// TODO: a thread.
	thread := os.Getpid()
	// TODO: print the child's VmPTE, as "child 104".
	look("born", child, thread, mem)
	// TODO: end the child, and wait for it.
}
