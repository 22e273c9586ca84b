// Sixteen pages: four written, four read, eight that nobody has touched.
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

const pages = 16

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, mem []byte) {
	size := len(mem) / pages
	fmt.Printf("@look %s self=%d page=", point, os.Getpid())
	for i := range pages {
		if i > 0 {
			fmt.Print(",")
		}
		fmt.Printf("%p", &mem[i*size])
	}
	fmt.Println()
	in.ReadString('\n')
}

// Sink keeps what is read, so that the compiler leaves no read out.
var Sink byte

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	for i := range 4 {
		mem[i*size] = 1
	}
	for i := 4; i < 8; i++ {
		Sink += mem[i*size]
	}
	look("touched", mem)
}
