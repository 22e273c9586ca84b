// Takes away what should become one.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"unsafe"
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

// unmap takes pages away from a mapping. Go's syscall.Munmap takes whole mappings only.
func unmap(pages []byte) {
	if _, _, errno := syscall.Syscall(syscall.SYS_MUNMAP, uintptr(unsafe.Pointer(&pages[0])), uintptr(len(pages)), 0); errno != 0 {
		must("munmap", errno)
	}
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 6*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	must("mprotect", syscall.Mprotect(mem[2*size:3*size], syscall.PROT_READ))
	unmap(mem[3*size : 4*size])
	must("mprotect", syscall.Mprotect(mem[4*size:], syscall.PROT_NONE))
	look("split", mem)

	unmap(mem[:3*size])
	look("merged", mem)
}
