// Family makes small families of processes, ends the parent in each, and looks
// whom the kernel gives its child to. It prints one JSON object: a case each.
//
// Each case is a chain of processes, from this program down:
//
//	init       family → parent → orphan
//	subreaper  family (a subreaper) → elder → parent → orphan
//	namespace  family → first of a PID namespace → parent → orphan
//	thread     family, by a second thread that ends → orphan
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	prSetChildSubreaper = 36
	cloneNewPID         = 0x20000000
)

// patience is for a slow machine; nothing here takes a tenth of a second.
const patience = 60 * time.Second

type story struct {
	Orphan      int `json:"orphan"`
	Gone        int `json:"gone"`        // the task that made it and has ended
	Grandparent int `json:"grandparent"` // the one that made that
	Before      int `json:"before"`      // PPid of the orphan
	After       int `json:"after"`
	AfterInside int `json:"after_inside"` // PID of the new parent in its own namespace
	// ListedBefore and ListedAfter are the thread that has it among its children
	// (/proc/PID/task/TID/children), 0 where the kernel does not tell.
	ListedBefore int `json:"listed_before"`
	ListedAfter  int `json:"listed_after"`
}

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	self := os.Getpid()
	out := map[string]any{"self": self, "thread": thread()}

	parent := chain(2, 0)
	out["init"] = orphan(self, parent)
	reap()

	prctl(1)
	elder := chain(3, 0)
	out["subreaper"] = orphan(elder, childOf(elder))
	end(elder)
	reap()
	prctl(0)

	if first, err := tryChain(3, cloneNewPID); err == nil {
		out["namespace"] = orphan(first, childOf(first))
		end(first)
		reap()
	} else if !errors.Is(err, syscall.EINVAL) {
		fail("clone into a PID namespace", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fail("print", err)
	}
}

// orphan ends the parent, looks at its child, and ends that, too.
func orphan(grandparent, parent int) story {
	child := childOf(parent)
	s := story{Orphan: child, Gone: parent, Grandparent: grandparent, Before: status(child, "PPid")}
	end(parent)
	s.After = status(child, "PPid")
	s.AfterInside = status(s.After, "NSpid")
	end(child)
	return s
}

// thread has a second thread make a child, and end.
func thread() story {
	self := os.Getpid()
	s := story{Grandparent: os.Getppid()}
	made, leave := make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		s.Gone = syscall.Gettid()
		s.Orphan = chain(1, 0)
		made <- true
		<-leave
	}()
	<-made
	s.Before, s.ListedBefore = status(s.Orphan, "PPid"), listedUnder(s.Orphan)
	close(leave)
	until("the thread's end", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", s.Gone))
		return errors.Is(err, fs.ErrNotExist)
	})
	s.After, s.ListedAfter = status(s.Orphan, "PPid"), listedUnder(s.Orphan)
	s.AfterInside = status(self, "NSpid")
	end(s.Orphan)
	reap()
	return s
}

func chain(length int, flags uintptr) int {
	first, err := tryChain(length, flags)
	if err != nil {
		fail("clone", err)
	}
	return first
}

// tryChain makes a chain of processes, each the child of the one before, that
// sleep until they are killed. The first is made with flags. None of them runs
// Go's runtime: system calls and nothing else.
func tryChain(length int, flags uintptr) (first int, err error) {
	tid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if tid == 0 {
		for ; length > 1; length-- {
			if below, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); below != 0 {
				break
			}
		}
		for {
			syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	return int(tid), nil
}

// childOf waits until a process has a child, and gives it.
func childOf(parent int) (child int) {
	until("a child", func() bool {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			if _, ppid := stat(pid); ppid == parent {
				child = pid
				return true
			}
		}
		return false
	})
	return child
}

// end kills a process and waits until it has let go of its children. It may
// stay a zombie: that is for its parent.
func end(pid int) {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		fail("kill", err)
	}
	until("a process's end", func() bool {
		state, _ := stat(pid)
		return state == 0 || state == 'Z' || state == 'X'
	})
}

// reap waits for all children that have ended.
func reap() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}

// stat reads a process's state and parent; zeroes when there is none.
func stat(pid int) (state byte, ppid int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	end := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 2 {
		return 0, 0
	}
	ppid, _ = strconv.Atoi(fields[1])
	return fields[0][0], ppid
}

// status reads the last number of a line of /proc/PID/status.
func status(pid int, name string) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		fail("read status", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.Atoi(f[len(f)-1])
				return n
			}
		}
	}
	return 0
}

// listedUnder is the thread of this process that has a child in its list.
func listedUnder(child int) int {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if slices.Contains(strings.Fields(string(text)), strconv.Itoa(child)) {
			tid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return tid
		}
	}
	return 0
}

func prctl(on uintptr) {
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, prSetChildSubreaper, on, 0); errno != 0 {
		fail("become a subreaper", errno)
	}
}

func until(what string, done func() bool) {
	for start := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			fail("wait for "+what, syscall.ETIMEDOUT)
		}
	}
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "family: %s: %v\n", what, err)
	os.Exit(1)
}
