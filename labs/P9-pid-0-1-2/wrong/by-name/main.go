// Goes by the names: kworker/… must be a kernel thread.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	pid := impostor("kworker/9:9")
	defer func() {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
		if open < 0 || end < open {
			continue
		}
		name := string(stat[open+1 : end])
		if strings.ContainsAny(name, "/_") || strings.HasPrefix(name, "k") || strings.HasSuffix(name, "d") {
			fmt.Println(strings.TrimSpace(string(stat[:open])), name)
		}
	}
}

// impostor makes a process of this name that sleeps until it is killed.
func impostor(name string) int {
	b := append([]byte(name), 0)
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		const prSetName = 15
		syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	for comm := ""; comm != name+"\n"; { // until it has taken the name
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", tid))
		comm = string(text)
	}
	return int(tid)
}
