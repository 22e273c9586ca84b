// The child never touches the page.
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

// stopped waits until the child has stopped itself.
func stopped(child int) {
	_, err := syscall.Wait4(child, nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
}

// fork makes a child that stops, does nothing, and stops again.
func fork(page []byte) int {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	stopped(int(tid))
	return int(tid)
}

func main() {
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_SHARED)
	must("mmap", err)
	page[0] = 42
	child := fork(page)
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		select {}
	}()
	thread := <-tid
	look("made", child, thread, page)

	must("continue", syscall.Kill(child, syscall.SIGCONT))
	stopped(child)
	look("touched", child, thread, page)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err = syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
}
