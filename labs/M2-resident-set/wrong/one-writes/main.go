// One child writes; the other still shares with the parent.
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

// stopped waits until the child has stopped itself.
func stopped(child int) {
	_, err := syscall.Wait4(child, nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
}

// fork makes a child that writes to the last two pages, if it is to, and stops.
func fork(mem []byte, write bool) int {
	size := len(mem) / pages
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		if write {
			mem[4*size], mem[5*size] = 77, 77
		}
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	stopped(int(tid))
	return int(tid)
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	alone(mem)
	for i := range pages {
		mem[i*size] = byte(i + 1)
	}
	first, second := fork(mem, true), fork(mem, false)
	look("apart", first, second, mem)
	fmt.Println("pss", 13)
	for _, child := range []int{first, second} {
		must("kill", syscall.Kill(child, syscall.SIGKILL))
		_, err = syscall.Wait4(child, nil, 0, nil)
		must("wait4", err)
	}
}
