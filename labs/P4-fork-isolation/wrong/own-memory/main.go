// Reads its own memory in place of the child's.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

var g int64 = 2

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		g++
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	child := int(tid)
	_, err := syscall.Wait4(child, nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)

	mem, err := os.Open("/proc/self/mem")
	must("open the child's memory", err)
	var b [8]byte
	_, err = mem.ReadAt(b[:], int64(uintptr(unsafe.Pointer(&g))))
	must("read the child's memory", err)
	fmt.Println("child", binary.LittleEndian.Uint64(b[:]))
	fmt.Println("parent", g)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err = syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
}
