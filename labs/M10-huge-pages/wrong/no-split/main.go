// Leaves the huge page as it is.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	hugePage   = 14 // MADV_HUGEPAGE
	noHugePage = 15 // MADV_NOHUGEPAGE
)

var in = bufio.NewReader(os.Stdin)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, a, b *byte) {
	fmt.Printf("@look %s self=%d page=%p,%p\n", point, os.Getpid(), a, b)
	in.ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// size is that of a huge page: what one table of the last level maps.
var size = os.Getpagesize() * os.Getpagesize() / 8

// aligned gives addresses of that size, from a multiple of it on.
func aligned() []byte {
	mem, err := syscall.Mmap(-1, 0, 2*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	skip := (size - int(uintptr(unsafe.Pointer(&mem[0])))%size) % size
	return mem[skip : skip+size]
}

func main() {
	page := os.Getpagesize()
	mem := aligned()
	must("madvise", syscall.Madvise(mem, hugePage))
	for i := 0; i < size; i += page {
		mem[i] = 1
	}
	look("huge", &mem[0], &mem[size-page])

	look("split", &mem[0], &mem[size-page])
}
