// Writes on one node first, and says afterwards where the pages should have been.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

var in = bufio.NewReader(os.Stdin)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, one, zero []byte) {
	size := os.Getpagesize()
	fmt.Printf("@look %s self=%d one=%p,%p zero=%p,%p\n", point, os.Getpid(), &one[0], &one[size], &zero[0], &zero[size])
	in.ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

const (
	bind = 2 // MPOL_BIND
	move = 2 // MPOL_MF_MOVE
)

// policy says on which node pages are to be.
func policy(pages []byte, node int, flags uintptr) {
	mask := uintptr(1) << node
	if _, _, errno := syscall.Syscall6(syscall.SYS_MBIND, uintptr(unsafe.Pointer(&pages[0])), uintptr(len(pages)), bind,
		uintptr(unsafe.Pointer(&mask)), 64, flags); errno != 0 {
		must("mbind", errno)
	}
}

// two maps two pages.
func two() []byte {
	mem, err := syscall.Mmap(-1, 0, 2*os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	const noHugePage = 15
	syscall.Madvise(mem, noHugePage) // a kernel without huge pages does not know it
	return mem
}

// write writes to both.
func write(pages []byte) { pages[0], pages[os.Getpagesize()] = 1, 2 }

func main() {
	one, zero := two(), two()
	policy(one, 0, 0)
	policy(zero, 0, 0)
	write(one)
	write(zero)
	policy(one, 1, 0)
	policy(zero, 0, 0)
	look("placed", one, zero)

	policy(one, 0, move)
	look("moved", one, zero)
}
