// A shared mapping is not copied on write.
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

// stopped waits until the child has stopped itself.
func stopped(child int) {
	_, err := syscall.Wait4(child, nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
}

func main() {
	size := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_SHARED)
	must("mmap", err)
	for i := range pages {
		mem[i*size] = byte(i + 1)
	}
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		mem[size] = 99
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	child := int(tid)
	stopped(child)
	look("forked", child, mem)

	must("continue", syscall.Kill(child, syscall.SIGCONT))
	stopped(child)
	look("written", child, mem)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err = syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
}
