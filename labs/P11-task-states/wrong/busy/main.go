// Takes a child that is busy for one that sleeps.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	want := map[string]byte{"sleeper": 'S', "halted": 'T', "undead": 'Z'}
	var made []int
	for _, name := range []string{"sleeper", "halted", "undead"} {
		pid := child(name, want[name])
		time.Sleep(20 * time.Millisecond)
		fmt.Printf("%d %c\n", pid, want[name])
		made = append(made, pid)
	}
	for _, pid := range made {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
}

// child makes a process of this name that brings itself into a state.
func child(name string, state byte) int {
	b := append([]byte(name), 0)
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		const prSetName = 15
		syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
		switch state {
		case 'T':
			self, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
			syscall.RawSyscall(syscall.SYS_KILL, self, uintptr(syscall.SIGSTOP), 0)
		case 'Z':
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		for {
			syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "clone:", errno)
		os.Exit(1)
	}
	return int(tid)
}
