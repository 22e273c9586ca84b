// Two children that end, under the settings of the book's section 4.4.2, and the
// kernel's own log of them.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const tracefs = "/sys/kernel/tracing/"

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	exits, killed := child("exits"), child("killed")
	for _, pid := range []int{exits, killed} {
		asleep(pid)
	}
	set("tracing_on", "0")
	set("set_ftrace_filter", "do_exit") // before the tracer: no filter means every function
	set("current_tracer", "function")
	for _, event := range []string{"sched/sched_process_exit", "sched/sched_process_free", "signal/signal_generate", "signal/signal_deliver"} {
		set("events/"+event+"/enable", "1")
	}
	set("options/func_stack_trace", "1")
	set("options/sym-offset", "1")
	set("trace", "")
	set("tracing_on", "1")
	end(exits, syscall.SIGUSR1)
	end(killed, syscall.SIGKILL)
	set("tracing_on", "0") // before this program's own threads end
	log, err := os.Open(tracefs + "trace")
	check(err)
	_, err = io.Copy(os.Stdout, log)
	check(err)
}

// child makes a child of that name. It waits for SIGUSR1, and then exits.
func child(name string) int {
	comm := append([]byte(name), 0)
	usr1 := uint64(1) << (syscall.SIGUSR1 - 1)
	const block, setSize, setName = 0, 8, 15
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, uintptr(unsafe.Pointer(&usr1)), 0, setSize, 0, 0)
	fail("rt_sigprocmask", errno)
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		// System calls only: Go's runtime knows nothing of this task.
		syscall.RawSyscall(syscall.SYS_PRCTL, setName, uintptr(unsafe.Pointer(&comm[0])), 0)
		for {
			syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&usr1)), 0, 0, setSize, 0, 0)
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	fail("clone", errno)
	return int(pid)
}

// asleep waits until the child sleeps.
func asleep(pid int) {
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		check(err)
		var n int
		var name, state string
		if fmt.Sscan(string(stat), &n, &name, &state); state == "S" && name != "(log)" {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func end(pid int, signal syscall.Signal) {
	check(syscall.Kill(pid, signal))
	_, err := syscall.Wait4(pid, nil, 0, nil)
	check(err)
}

func set(file, text string) { check(os.WriteFile(tracefs+file, []byte(text), 0)) }

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
