// Two pages on each node, of which two are moved. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
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
	_ = write
	// TODO: one is to be on node 1, zero on node 0: call mbind by syscall.Syscall6(syscall.SYS_MBIND, …).
	// TODO: write to them.
	look("placed", one, zero)
	// TODO: move one to node 0.
	look("moved", one, zero)
}
