package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// process is what /proc shows of this process.
type process struct {
	PID   int    `json:"pid"`
	Tasks []int  `json:"tasks"`
	Start uint64 `json:"start"` // of the leader, in clock ticks since boot
	Comm  string `json:"comm"`  // of the leader
}

// before is a process whose thread is about to call execve.
type before struct {
	process
	Caller      int    `json:"caller"`       // the thread
	CallerStart uint64 `json:"caller_start"` // its birth, in clock ticks since boot
}

// callerName is the calling thread's in the kernel.
const callerName = "caller"

// maxThreads bounds the search for a young thread.
const maxThreads = 16

var errOld = errors.New("all threads are as old as the leader")

// byThread calls execve in a thread that is not the leader and is younger than
// it. It returns only when that fails.
func byThread(p params) (*wire.ProbeResult, error) {
	// /proc counts births in ticks: the thread is to be at least one younger.
	time.Sleep(3 * time.Second / procfs.Hz)
	done := make(chan struct{})
	defer close(done)
	err := errOld
	for n := 0; n < maxThreads && err == errOld; n++ {
		answer := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			answer <- ifYoung(p)
			<-done // an old thread stays, so that the next goroutine gets another
		}()
		err = <-answer
	}
	return nil, fmt.Errorf("execve of %.80q in a thread: %w", p.File, err)
}

func ifYoung(p params) error {
	b, err := look()
	if err != nil {
		return err
	}
	if b.Caller == b.PID || b.CallerStart <= b.Start {
		return errOld
	}
	return replace(p, b)
}

// replace calls execve.
func replace(p params, b *before) error {
	name := append([]byte(callerName), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	p.Before = b
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return syscall.Exec(p.File, []string{"labprobe", "exec", string(text)}, os.Environ())
}

func look() (*before, error) {
	self, err := lookProcess()
	if err != nil {
		return nil, err
	}
	tid := unix.Gettid()
	stat, err := procfs.ReadStat(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	return &before{process: self, Caller: tid, CallerStart: stat.StartTime}, err
}

func lookProcess() (process, error) {
	pid := os.Getpid()
	tasks, err := procfs.IDs("/proc/self/task")
	if err != nil {
		return process{}, err
	}
	stat, err := procfs.ReadStat(fmt.Sprintf("/proc/self/task/%d/stat", pid))
	return process{PID: pid, Tasks: tasks, Start: stat.StartTime, Comm: stat.Comm}, err
}

// became reports as the program that the process has become.
func became(b *before) (*wire.ProbeResult, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := lookProcess()
	if err != nil {
		return nil, err
	}
	if now.PID != b.PID {
		return nil, probe.Paramf("before: it is of another process; leave it out")
	}
	return &wire.ProbeResult{
		Probe:  "exec",
		Method: "execve in a thread that is not the leader",
		Tasks:  []wire.Task{probe.Self()},
		Data:   map[string]any{"before": b, "after": now},
	}, nil
}
