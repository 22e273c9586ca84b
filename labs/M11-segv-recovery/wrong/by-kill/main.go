// Sends itself the signal in the place of a fault.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
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
	signal.Notify(make(chan os.Signal, 1), syscall.SIGSEGV)
	must("kill", syscall.Kill(os.Getpid(), syscall.SIGSEGV))
	fmt.Printf("fault at %p\n", &mem[0])
	must("mprotect", syscall.Mprotect(mem, syscall.PROT_READ|syscall.PROT_WRITE))
	mem[0] = 42
	look("after", mem)
}
