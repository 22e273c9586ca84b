// A shared page in the page tables of a parent, a child and a thread. See TASK.md.
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

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child, thread int, page []byte) {
	fmt.Printf("@look %s parent=%d child=%d thread=%d page=%p\n", point, os.Getpid(), child, thread, &page[0])
	in.ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	// TODO: which mapping?
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	page[0] = 42
	// TODO: fork a child by the raw call clone, which makes system calls and plain assignments
	// only, and stops itself; start a thread.
	child, thread := os.Getpid(), os.Getpid()
	look("made", child, thread, page)
	// TODO: the child goes on, touches the page, and stops again.
	look("touched", child, thread, page)
	// TODO: end the child.
}
