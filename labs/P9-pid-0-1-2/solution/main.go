// A list of the kernel threads that an impostor does not get into. See TASK.md.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const pfKthread = 0x200000

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
		fields := strings.Fields(string(stat[end+1:])) // from field 3 on
		flags, err := strconv.ParseUint(fields[9-3], 10, 64)
		if err == nil && flags&pfKthread != 0 {
			fmt.Println(strings.TrimSpace(string(stat[:open])), string(stat[open+1:end]))
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
