// Shares private pages by the fork: Pss is half of Rss, until somebody writes.
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

// touch writes to each page.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 42
	}
}

// usage gives what smaps has of the area of mem: the lines Rss and Pss.
func usage(mem []byte) (rss, pss string) {
	text, err := os.ReadFile("/proc/self/smaps")
	must("smaps", err)
	start := strings.TrimPrefix(fmt.Sprintf("%p-", &mem[0]), "0x")
	here := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			here = strings.HasPrefix(line, start)
		case here && f[0] == "Rss:":
			rss = f[1]
		case here && f[0] == "Pss:":
			pss = f[1]
		}
	}
	return rss, pss
}

// fork makes a child that stops.
func fork(mem []byte) int {
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

func main() {
	mem, err := syscall.Mmap(-1, 0, pages*os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must("mmap", err)
	touch(mem)
	child := fork(mem)
	rss, pss := usage(mem)
	fmt.Println("Rss", rss)
	fmt.Println("Pss", pss)
	look("shared", child, mem)

	must("kill", syscall.Kill(child, syscall.SIGKILL))
	_, err = syscall.Wait4(child, nil, 0, nil)
	must("wait4", err)
}
