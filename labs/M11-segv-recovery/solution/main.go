// Writes to a page that it may not write to, mends that, and writes again.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

var in = bufio.NewReader(os.Stdin)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, mem []byte) {
	fmt.Printf("@look %s program=%d page=%p\n", point, os.Getpid(), &mem[0])
	in.ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	mem, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	look("before", mem)
	if at := write(mem); at != 0 {
		fmt.Printf("fault at %#x\n", at)
		must("mprotect", syscall.Mprotect(mem, syscall.PROT_READ|syscall.PROT_WRITE))
		write(mem)
	}
	look("after", mem)
}

// write writes to the page, and returns the address of the fault, 0 when there was none.
func write(mem []byte) (at uintptr) {
	debug.SetPanicOnFault(true)
	defer func() {
		if fault, ok := recover().(interface{ Addr() uintptr }); ok {
			at = fault.Addr()
		}
	}()
	mem[0] = 42
	return 0
}
