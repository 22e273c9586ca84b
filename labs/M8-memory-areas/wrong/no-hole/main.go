// Forbids access where there should be nothing.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, mem []byte) {
	fmt.Printf("@look %s self=%d page=%p size=%d\n", point, os.Getpid(), &mem[0], os.Getpagesize())
	in.ReadString('\n')
}

var in = bufio.NewReader(os.Stdin)

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 6*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	must("mprotect", syscall.Mprotect(mem[2*size:3*size], syscall.PROT_READ))
	must("mprotect", syscall.Mprotect(mem[3*size:], syscall.PROT_NONE))
	look("split", mem)

	must("mprotect", syscall.Mprotect(mem[2*size:3*size], syscall.PROT_READ|syscall.PROT_WRITE))
	look("merged", mem)
}
