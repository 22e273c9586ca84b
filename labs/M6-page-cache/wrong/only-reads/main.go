// The private mapping is only read, and has the file's page.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, first, second, own []byte) {
	fmt.Printf("@look %s self=%d shared=%p,%p own=%p\n", point, os.Getpid(), &first[0], &second[0], &own[0])
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// file makes a file of a page.
func file() *os.File {
	f, err := os.CreateTemp("/tmp", "exercise-")
	must("file", err)
	must("truncate", f.Truncate(int64(os.Getpagesize())))
	return f
}

// mapping maps a file's page.
func mapping(f *os.File, flags int) []byte {
	b, err := syscall.Mmap(int(f.Fd()), 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, flags)
	must("mmap", err)
	return b
}

func main() {
	f := file()
	defer os.Remove(f.Name())
	first := mapping(f, syscall.MAP_SHARED)
	second := mapping(f, syscall.MAP_SHARED)
	own := mapping(f, syscall.MAP_PRIVATE)
	first[0] = 42
	runtime.KeepAlive(second[0]) // a read, which the compiler must not leave out
	runtime.KeepAlive(own[0])    // a read, which the compiler must not leave out
	look("mapped", first, second, own)
}
