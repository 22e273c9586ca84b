// Takes a thread for a child.
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
	for i := range pages {
		mem[i*size] = byte(i + 1)
	}
	tid, write, written := make(chan int), make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		<-write
		mem[size] = 99
		written <- true
		select {}
	}()
	child := <-tid
	look("forked", child, mem)
	write <- true
	<-written
	look("written", child, mem)
}
