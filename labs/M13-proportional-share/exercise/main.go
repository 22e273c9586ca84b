// Sixteen pages that a program and its child have half of each. See TASK.md.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

const pages = 16

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child int, mem []byte) {
	var at []string
	for i := range pages {
		at = append(at, fmt.Sprintf("%p", &mem[i*os.Getpagesize()]))
	}
	fmt.Printf("@look %s parent=%d child=%d page=%s\n", point, os.Getpid(), child, strings.Join(at, ","))
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	mem, err := syscall.Mmap(-1, 0, pages*os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE) // TODO: is this to be shared?
	must("mmap", err)
	// TODO: fork a child by the raw call clone, which makes system calls and plain assignments
	// only. Both of you touch all pages, and the child stops itself.
	child := os.Getpid()
	// TODO: print what /proc/self/smaps has of the area, as "Rss 64" and "Pss 32".
	look("shared", child, mem)
	// TODO: end the child, and wait for it.
}
