// A child that sleeps in sigtimedwait, and what /proc shows of it. With -print
// that is for people, in the form of TRACE32's Frame.view; without, it is JSON.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

type sleeper struct {
	PID     int      `json:"pid"`
	State   string   `json:"state"`
	WChan   string   `json:"wchan"`
	Syscall int      `json:"syscall"` // the number of the call that it is in
	Asked   int      `json:"asked"`   // the number that was called
	Stack   []string `json:"stack"`   // innermost first
	Status  int      `json:"status"`  // of its exit: the signal that sigtimedwait returned
}

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	s := sleeper{PID: start(), Asked: syscall.SYS_RT_SIGTIMEDWAIT}
	s.look()
	if len(os.Args) == 1 {
		// It is looked at from outside, too: this line is for labctl, which answers.
		fmt.Printf("@look asleep sleeper=%d\n", s.PID)
		bufio.NewReader(os.Stdin).ReadString('\n')
	}
	check(syscall.Kill(s.PID, syscall.SIGUSR1))
	var status syscall.WaitStatus
	_, err := syscall.Wait4(s.PID, &status, 0, nil)
	check(err)
	s.Status = status.ExitStatus()
	if len(os.Args) > 1 && os.Args[1] == "-print" {
		s.print()
		return
	}
	check(json.NewEncoder(os.Stdout).Encode(s))
}

// start makes the child. It waits for SIGUSR1 without end, and exits with what
// the call returns.
func start() int {
	usr1 := uint64(1) << (syscall.SIGUSR1 - 1)
	comm := [...]byte{'s', 'l', 'e', 'e', 'p', 'e', 'r', 0}
	const block, setBytes, setName = 0, 8, 15
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, uintptr(unsafe.Pointer(&usr1)), 0, setBytes, 0, 0)
	fail("rt_sigprocmask", errno)
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		// System calls only: Go's runtime knows nothing of this task.
		syscall.RawSyscall(syscall.SYS_PRCTL, setName, uintptr(unsafe.Pointer(&comm[0])), 0)
		for {
			signal, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&usr1)), 0, 0, setBytes, 0, 0)
			if errno == 0 {
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, signal, 0, 0)
			}
		}
	}
	fail("clone", errno)
	return int(pid)
}

// noStack is how often a child that sleeps is looked at before the kernel is taken for
// one that shows no stacks of others.
const noStack = 100

// look returns when the child sleeps in the call that was asked for, and two
// looks at its stack have shown the same.
func (s *sleeper) look() {
	dir := fmt.Sprintf("/proc/%d/", s.PID)
	for empty := 0; empty < noStack; {
		before := s.Stack
		stat := read(dir + "stat")
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		s.State, s.WChan = fields[0], strings.TrimSpace(read(dir+"wchan"))
		s.Syscall = -1
		if call := strings.Fields(read(dir + "syscall")); len(call) > 0 {
			if n, err := strconv.Atoi(call[0]); err == nil { // it can be "running"
				s.Syscall = n
			}
		}
		s.Stack = functions(read(dir + "stack"))
		if s.State == "S" && s.Syscall == s.Asked && slices.Equal(before, s.Stack) {
			if len(s.Stack) > 0 {
				return
			}
			empty++
		}
		time.Sleep(time.Millisecond)
	}
}

// functions are those of a stack file: "[<0>] do_sigtimedwait+0x1b0/0x2f0" a line.
func functions(stack string) []string {
	names := []string{}
	for line := range strings.Lines(stack) {
		if _, frame, ok := strings.Cut(line, "] "); ok {
			name, _, _ := strings.Cut(strings.TrimSpace(frame), "+")
			names = append(names, name)
		}
	}
	return names
}

func (s *sleeper) print() {
	fmt.Printf("sleeper (PID %d), state %s, WCHAN %s, system call %d\n", s.PID, s.State, s.WChan, s.Syscall)
	for i, name := range s.Stack {
		if i == len(s.Stack)-1 { // where the kernel was entered there is assembly
			fmt.Printf("-%03d|%s(asm)\n", i, name)
		} else {
			fmt.Printf("-%03d|%s()\n", i, name)
		}
	}
	fmt.Println(" ---|end of frame")
}

func read(file string) string {
	b, err := os.ReadFile(file)
	check(err)
	return string(b)
}

func fail(what string, errno syscall.Errno) {
	if errno != 0 {
		check(fmt.Errorf("%s: %w", what, errno))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
