// Forks first, and touches its memory afterwards.
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

const size = 8 << 20

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child, thread int, mem []byte) {
	fmt.Printf("@look %s maker=%d child=%d thread=%d page=%p,%p\n", point, os.Getpid(), child, thread, &mem[0], &mem[size-os.Getpagesize()])
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// memory maps memory that is in no huge page.
func memory(flags int) []byte {
	const noHugePage = 15
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|flags)
	must("mmap", err)
	syscall.Madvise(mem, noHugePage) // a kernel without huge pages does not know it
	return mem
}

// touch writes to each page.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 42
	}
}

// fork makes a child that stops.
func fork() int {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must("clone", errno)
	}
	if tid == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		for {
			syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(syscall.SIGSTOP), 0)
		}
	}
	_, err := syscall.Wait4(int(tid), nil, syscall.WUNTRACED, nil)
	must("wait until the child stops", err)
	return int(tid)
}

// thread makes a thread that lives until the program's end.
func thread() int {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		select {}
	}()
	return <-tid
}

// tables is what the kernel has for a process's page tables, in KB.
func tables(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must("status", err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "VmPTE:" {
			return f[1]
		}
	}
	return "?"
}

func main() {
	mem := memory(syscall.MAP_PRIVATE)
	child := fork()
	touch(mem)
	fmt.Println("child", tables(child))
	look("born", child, thread(), mem)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err := syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
}
