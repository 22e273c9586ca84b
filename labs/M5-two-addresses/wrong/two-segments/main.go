// Two segments, each with a page of its own.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child int, here, there uintptr) {
	fmt.Printf("@look %s parent=%d child=%d here=%#x there=%#x\n", point, os.Getpid(), child, here, there)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

const ipcCreat = 0o1000

// segment makes a System V segment of a page.
func segment() uintptr {
	id, _, errno := syscall.Syscall(syscall.SYS_SHMGET, 0, uintptr(os.Getpagesize()), ipcCreat|0o600)
	if errno != 0 {
		must("shmget", errno)
	}
	return id
}

// attach gives the address at which the kernel has attached a segment.
func attach(id uintptr) uintptr {
	addr, _, errno := syscall.Syscall(syscall.SYS_SHMAT, id, 0, 0)
	if errno != 0 {
		must("shmat", errno)
	}
	return addr
}

// remove marks a segment as to be removed when nobody is attached any more.
func remove(id uintptr) {
	const ipcRmid = 0
	if _, _, errno := syscall.Syscall(syscall.SYS_SHMCTL, id, ipcRmid, 0); errno != 0 {
		must("shmctl", errno)
	}
}

// memory is the segment's page at an address. The address is the kernel's, and outside Go's heap.
func memory(addr uintptr) *byte { return *(**byte)(unsafe.Pointer(&addr)) }

// fork makes a child that writes to the page, and stops.
func fork(there *byte) int {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		*there = 42
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	_, err := syscall.Wait4(int(tid), nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
	return int(tid)
}

func main() {
	id := segment()
	here := attach(id)
	other := segment()
	there := attach(other)
	*memory(here) = 7
	child := fork(memory(there))
	look("attached", child, here, there)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err := syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
	remove(id)
	remove(other)
}
