// Six pages of three processes: four that all share, two that each has for itself. See TASK.md.
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

const pages = 6

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, first, second int, mem []byte) {
	size := len(mem) / pages
	fmt.Printf("@look %s parent=%d first=%d second=%d page=", point, os.Getpid(), first, second)
	for i := range pages {
		if i > 0 {
			fmt.Print(",")
		}
		fmt.Printf("%p", &mem[i*size])
	}
	fmt.Println()
	in.ReadString('\n')
}

// alone makes mem an area of its own in smaps, whatever is mapped beside it.
func alone(mem []byte) {
	const dontDump = 16
	must("madvise", syscall.Madvise(mem, dontDump))
}

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
	alone(mem)
	// TODO: write to the pages; fork two children by the raw call clone. They make system calls
	// and plain assignments only.
	first, second := os.Getpid(), os.Getpid()
	look("apart", first, second, mem)
	// TODO: read the mapping's Pss in /proc/self/smaps.
	fmt.Println("pss", 0)
	// TODO: end the children.
}
