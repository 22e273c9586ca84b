// Five page faults on three pages of four. See TASK.md.
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

var (
	in  = bufio.NewReader(os.Stdin)
	Got byte // exported, so that a read into it is kept
)

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, mem []byte) {
	size := len(mem) / pages
	fmt.Printf("@look %s program=%d page=%p,%p,%p,%p\n", point, os.Getpid(), &mem[0], &mem[size], &mem[2*size], &mem[3*size])
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
	look("mapped", mem)
	// TODO: read and then write the first page, write the second, leave the third, write the fourth.
	// TODO: fork a child by the raw call clone, which writes to the fourth page and ends.
	_ = size
	look("done", mem)
}
