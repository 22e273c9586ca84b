// Looks for a child process, which is no thread and is listed.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

func listed(dir, name string) string {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == name {
			return "yes"
		}
	}
	return "no"
}

func opened(tid string) string {
	if _, err := os.ReadFile("/proc/" + tid + "/status"); err != nil {
		return "no"
	}
	return "yes"
}

func main() {
	if len(os.Args) == 2 {
		rename("ghost")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	in, out, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	child, err := os.StartProcess("/proc/self/exe", []string{"ghost", "ghost"}, &os.ProcAttr{Files: []*os.File{in, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tid := strconv.Itoa(child.Pid)
	fmt.Println("ghost", tid)
	fmt.Println("listed", listed("/proc", tid))
	fmt.Println("opened", opened(tid))
	fmt.Println("task", listed("/proc/self/task", tid))
	out.Close()
	child.Wait()
	fmt.Println("after", opened(tid))
}
