// Makes the impostor, and prints a list that is not of this system.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	pid := impostor("kworker/9:9")
	time.Sleep(500 * time.Millisecond) // in which some kernel threads run
	fmt.Println("2 kthreadd")
	for cpu := range 40 {
		fmt.Printf("%d kworker/%d:0\n", 5000+cpu, cpu)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	syscall.Wait4(pid, nil, 0, nil)
	fmt.Println(pid, "kworker/9:9")
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
