// Ends elder before the numbers have begun anew.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

const pidMax = "/proc/sys/kernel/pid_max"

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	before, err := os.ReadFile(pidMax)
	check("read pid_max", err)
	check("set pid_max", os.WriteFile(pidMax, []byte("400"), 0o644))
	defer os.WriteFile(pidMax, before, 0o644)

	for pid := 0; pid < 350; {
		pid = child("passing")
		end(pid)
	}
	elder := child("elder")
	end(elder)
	for pid := elder; pid >= elder; {
		pid = child("passing")
		end(pid)
	}
	younger := child("younger")
	defer end(younger)
	fmt.Println("elder", elder)
	fmt.Println("younger", younger)
}

// child makes a process of this name that sleeps until it is killed. A child has
// its maker's name to begin with, so the maker takes that name itself.
func child(name string) int {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if tid == 0 && errno == 0 {
		// The child: system calls only, Go's runtime knows nothing of it.
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	if errno != 0 {
		check("clone", errno)
	}
	return int(tid)
}

// end kills a child and waits for it.
func end(pid int) {
	syscall.Kill(pid, syscall.SIGKILL)
	_, err := syscall.Wait4(pid, nil, 0, nil)
	check("wait4", err)
}

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}
