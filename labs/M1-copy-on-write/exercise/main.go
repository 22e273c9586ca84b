// Four pages that a fork shares, and one that a write copies. See TASK.md.
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

const pages = 4

var in = bufio.NewReader(os.Stdin)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child int, mem []byte) {
	size := len(mem) / pages
	fmt.Printf("@look %s parent=%d child=%d page=", point, os.Getpid(), child)
	for i := range pages {
		if i > 0 {
			fmt.Print(",")
		}
		fmt.Printf("%p", &mem[i*size])
	}
	fmt.Println()
	in.ReadString('\n')
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
	// TODO: write to each page.
	// TODO: fork a child by the raw call clone. It makes system calls and plain assignments
	// only: Go's runtime knows nothing of it.
	child := os.Getpid()
	look("forked", child, mem)
	// TODO: the child writes to the second page, and stays.
	look("written", child, mem)
	// TODO: end the child.
}
