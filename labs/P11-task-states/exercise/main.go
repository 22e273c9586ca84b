// Three children: one asleep, one stopped, one dead. See TASK.md.
package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

func main() {
	var made []int
	for _, name := range []string{"sleeper"} { // TODO: and the two others
		pid := child(name)
		// TODO: wait until it is in the state that you want.
		fmt.Printf("%d %c\n", pid, state(pid))
		made = append(made, pid)
	}
	for _, pid := range made {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
}

// child makes a process of this name that brings itself into a state.
func child(name string) int {
	b := append([]byte(name), 0)
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		const prSetName = 15
		syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
		// TODO: not all of them shall sleep. How does a child know its state?
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	return int(tid)
}

// state is the third field of a process's stat; 0 when there is none.
func state(pid int) byte {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if end := bytes.LastIndex(stat, []byte(") ")); end >= 0 && end+2 < len(stat) {
		return stat[end+2]
	}
	return 0
}
