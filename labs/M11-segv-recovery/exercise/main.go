// Writes to a page that it may not write to, mends that, and writes again. See TASK.md.
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
	// TODO: write to the page; when that faults, print the address, allow it, and write again.
	look("after", mem)
}
