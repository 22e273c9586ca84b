// The fourth is in a third table, under the same table of tables.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, a, b, c, d *byte) {
	fmt.Printf("@look %s self=%d page=%p,%p,%p,%p\n", point, os.Getpid(), a, b, c, d)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// reserve gives addresses for twice what a table of tables maps, from a multiple of that on.
func reserve(far int) []byte {
	const noReserve = 0x4000
	mem, err := syscall.Mmap(-1, 0, 3*far, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|noReserve)
	must("mmap", err)
	const noHugePage = 15
	syscall.Madvise(mem, noHugePage) // a kernel without huge pages does not know it
	skip := (far - int(uintptr(unsafe.Pointer(&mem[0])))%far) % far
	return mem[skip : skip+2*far]
}

func main() {
	size := os.Getpagesize()
	table := size * size / 8
	far := table * size / 8
	mem := reserve(far)
	pages := []*byte{&mem[0], &mem[size], &mem[table], &mem[2*table]}
	for i, p := range pages {
		*p = byte(i + 1)
	}
	look("touched", pages[0], pages[1], pages[2], pages[3])
}
