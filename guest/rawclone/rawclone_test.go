package rawclone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const sigchld = int(unix.SIGCHLD)

var kinds = []struct {
	name string
	kind Kind
	args Args
}{
	{"clone", Clone, Args{ExitSignal: sigchld}},
	{"clone without exit signal", Clone, Args{}},
	{"clone like glibc's fork", Clone, Args{Flags: unix.CLONE_CHILD_SETTID | unix.CLONE_CHILD_CLEARTID, ExitSignal: sigchld}},
	{"clone VM", Clone, Args{Flags: unix.CLONE_VM, ExitSignal: sigchld}},
	{"clone VM VFORK", Clone, Args{Flags: unix.CLONE_VM | unix.CLONE_VFORK, ExitSignal: sigchld}},
	{"clone VM FILES FS SIGHAND", Clone, Args{Flags: unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_FS | unix.CLONE_SIGHAND, ExitSignal: sigchld}},
	{"clone PIDFD", Clone, Args{Flags: unix.CLONE_PIDFD, ExitSignal: sigchld}},
	{"fork", Fork, Args{}},
	{"vfork", VFork, Args{}},
	{"thread", Clone, Args{Flags: PThreadFlags}},
	{"thread without CLEARTID", Clone, Args{Flags: PThreadFlags &^ (unix.CLONE_CHILD_CLEARTID | unix.CLONE_SETTLS)}},
	{"clone3", Clone3, Args{ExitSignal: sigchld}},
	{"clone3 of 80 bytes", Clone3, Args{ExitSignal: sigchld, Size: 80}},
	{"clone3 of 88 bytes with PIDFD", Clone3, Args{Flags: unix.CLONE_PIDFD, ExitSignal: sigchld, Size: 88}},
	{"clone3 VM VFORK", Clone3, Args{Flags: unix.CLONE_VM | unix.CLONE_VFORK, ExitSignal: sigchld}},
	{"clone3 thread", Clone3, Args{Flags: PThreadFlags}},
}

func newProgram(t *testing.T) *Program {
	t.Helper()
	p, err := NewProgram()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func run(t *testing.T, kind Kind, args Args, p *Program) unix.WaitStatus {
	t.Helper()
	c, err := Spawn(kind, args, p)
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// hammer keeps the heap, the collector and the scheduler busy until the test ends.
func hammer(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			keep = append(keep, make([]byte, 4<<10))
			if len(keep) == 64 {
				keep = nil
				runtime.GC()
				time.Sleep(time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// TestKinds makes each kind of child 1000 times (100 with -short, for emulated
// guests) while the collector runs, and checks the child's own view of its ids
// against the parent's.
func TestKinds(t *testing.T) {
	runs := 1000
	if testing.Short() {
		runs = 100
	}
	hammer(t)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			p := newProgram(t)
			pid := p.Syscall(unix.SYS_GETPID)
			tid := p.Syscall(unix.SYS_GETTID)
			ppid := p.Syscall(unix.SYS_GETPPID)
			p.Exit(7)
			for i := range runs {
				c, err := Spawn(k.kind, k.args, p)
				if errors.Is(err, unix.ENOSYS) && k.kind == Clone3 {
					t.Skip("this kernel has no clone3 (before 5.3)")
				}
				if err != nil {
					t.Fatalf("run %d: %v", i, err)
				}
				name, flags, pidfd := c.Syscall, c.Flags, c.PIDFD
				status, err := c.Wait()
				if err != nil {
					t.Fatalf("run %d: %v", i, err)
				}
				got := [4]int{int(p.Get(pid)), int(p.Get(tid)), int(p.Get(ppid)), int(status)}
				want := [4]int{c.TID, c.TID, os.Getpid(), 7 << 8}
				if c.Thread() {
					want = [4]int{os.Getpid(), c.TID, os.Getppid(), 0}
				}
				if got != want {
					t.Fatalf("run %d, %s flags %#x: pid, tid, ppid, status = %v; want %v", i, name, flags, got, want)
				}
				if hasFD := pidfd >= 0; hasFD != (flags&unix.CLONE_PIDFD != 0) {
					t.Fatalf("run %d: pidfd %d with flags %#x", i, pidfd, flags)
				}
				if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", want[0], c.TID)); !os.IsNotExist(err) {
					t.Fatalf("run %d: task %d is still there after Wait: %v", i, c.TID, err)
				}
			}
		})
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestReportsTheCallReallyMade(t *testing.T) {
	for _, tc := range []struct {
		kind   Kind
		native uintptr
		name   string
		flags  uint64
	}{
		{Fork, sysFork, "fork", 0},
		{VFork, sysVFork, "vfork", unix.CLONE_VM | unix.CLONE_VFORK},
	} {
		p := newProgram(t)
		c, err := Spawn(tc.kind, Args{}, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		want := "clone"
		if tc.native != 0 {
			want = tc.name
		}
		if c.Syscall != want || c.Flags != tc.flags || c.ExitSignal != sigchld {
			t.Errorf("%s: got %s, flags %#x, signal %d; want %s, %#x, %d", tc.name, c.Syscall, c.Flags, c.ExitSignal, want, tc.flags, sigchld)
		}
	}
}

func TestOperations(t *testing.T) {
	p := newProgram(t)
	cell, sum, copied := p.Var(40), p.Var(1), p.Var(0)
	p.Load(copied, p.Addr(cell)) // copied = 40
	p.Add(sum, copied)           // sum = 41
	p.Add(sum, p.Const(1))       // sum = 42
	p.Store(p.Addr(cell), sum)   // cell = 42
	bad := p.Syscall(unix.SYS_CLOSE, p.Const(1<<20))
	all := p.Syscall(unix.SYS_PRCTL, p.Const(unix.PR_SET_NAME), p.Addr(p.CString("rawchild")), p.Const(1), p.Const(2), p.Const(3), p.Const(4))
	name := p.Buffer(16)
	p.Syscall(unix.SYS_PRCTL, p.Const(unix.PR_GET_NAME), p.Addr(name))
	flag, fell := p.Var(5), p.Var(0)
	back := p.Here()
	p.Add(fell, p.Const(1)) // runs twice: the jump is taken once
	p.Add(flag, p.Const(1))
	p.JumpIfEqual(back, flag, p.Const(6))
	p.ExitGroup(3)
	if got, want := run(t, Clone, Args{ExitSignal: sigchld}, p), unix.WaitStatus(3<<8); got != want {
		t.Fatalf("status = %#x; want %#x", got, want)
	}
	for what, w := range map[string]struct {
		w    Word
		want uintptr
	}{"cell": {cell, 42}, "sum": {sum, 42}, "copied": {copied, 40}, "fell": {fell, 2}, "flag": {flag, 7}, "prctl": {all, 0}, "zero": {Word{}, 0}} {
		if got := p.Get(w.w); got != w.want {
			t.Errorf("%s = %d; want %d", what, got, w.want)
		}
	}
	if _, err := p.Result(bad); err != unix.EBADF {
		t.Errorf("close of a descriptor that is not open: %v; want EBADF", err)
	}
	if got := strings.TrimRight(string(p.Bytes(name, 16)), "\x00"); got != "rawchild" {
		t.Errorf("PR_GET_NAME = %q; want rawchild", got)
	}
}

// TestPointers has a child start a program.
func TestPointers(t *testing.T) {
	p := newProgram(t)
	argv := p.Pointers(p.CString("sh"), p.CString("-c"), p.CString(`exit "$(($CODE + 1))"`))
	failed := p.Syscall(unix.SYS_EXECVE, p.Addr(p.CString("/bin/sh")), p.Addr(argv), p.Addr(p.Pointers(p.CString("CODE=41"))))
	p.Exit(1)
	status := run(t, Clone, Args{ExitSignal: sigchld}, p)
	if _, err := p.Result(failed); err == unix.ENOENT {
		t.Skip("this system has no shell")
	}
	if got := status.ExitStatus(); got != 42 {
		t.Errorf("the program ended with status %d; want 42", got)
	}
}

func TestAwait(t *testing.T) {
	p := newProgram(t)
	ready, never := p.Var(0), p.Var(0)
	p.Add(ready, p.Const(2))
	c, err := Spawn(Clone, Args{ExitSignal: sigchld}, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(t.Context(), ready, 2); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Await(ctx, never, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Await of what never comes = %v; want %v", err, context.DeadlineExceeded)
	}
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestSixArguments(t *testing.T) {
	p := newProgram(t)
	// process_vm_readv uses every argument: it reads 8 bytes, and refuses flags.
	from, to := p.CString("8 bytes!"), p.Buffer(8)
	local, remote := p.Buffer(int(2*wordBytes)), p.Buffer(int(2*wordBytes))
	for iov, at := range map[Word]Word{local: to, remote: from} {
		p.Set(iov, p.addr(at))
		p.Set(Word{iov.index + 1}, 8)
	}
	pid := p.Syscall(unix.SYS_GETPID)
	read := func(flags uintptr) Word {
		return p.Syscall(unix.SYS_PROCESS_VM_READV, pid, p.Addr(local), p.Const(1), p.Addr(remote), p.Const(1), p.Const(flags))
	}
	good, refused := read(0), read(1)
	run(t, Clone, Args{ExitSignal: sigchld}, p)
	if n, err := p.Result(good); n != 8 || err != nil || string(p.Bytes(to, 8)) != "8 bytes!" {
		t.Errorf("process_vm_readv = %d, %v with %q; want 8 with \"8 bytes!\"", n, err, p.Bytes(to, 8))
	}
	if _, err := p.Result(refused); err != unix.EINVAL {
		t.Errorf("process_vm_readv with flags 1: %v; want EINVAL", err)
	}
}

// TestFutex holds a child at a gate that the parent opens, which is how a probe
// looks at a task while it lives.
func TestFutex(t *testing.T) {
	hammer(t)
	for _, k := range kinds {
		if k.args.Flags&unix.CLONE_VFORK != 0 || k.kind == VFork {
			continue // the parent sleeps until the child has ended
		}
		t.Run(k.name, func(t *testing.T) {
			p := newProgram(t)
			ready, gate, after := p.Var(0), p.Var(0), p.Var(0)
			p.Add(ready, p.Const(1))
			p.FutexWait(gate, 0)
			p.Add(after, p.Const(1))
			c, err := Spawn(k.kind, k.args, p)
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); p.Get(ready) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the child never got ready")
				}
			}
			if err := p.Close(); err == nil {
				t.Error("Close took the memory of a running child")
			}
			if _, err := Spawn(k.kind, k.args, p); err == nil {
				t.Error("Spawn ran two children on one program")
			}
			if p.Get(after) != 0 {
				t.Error("the child passed a closed gate")
			}
			if err := p.Post(gate, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			if p.Get(after) != 1 {
				t.Error("the child did not pass the gate")
			}
			if _, err := c.Wait(); err == nil {
				t.Error("a second Wait gave no error")
			}
		})
	}
}

// TestFault shows that a fault kills the child by its signal's default action
// and leaves the Go program, whose handlers the child has copies of, alone. The
// address space is set not to be dumped meanwhile, see the package's comment.
func TestFault(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	for _, k := range []Kind{Clone, Fork, VFork} {
		p := newProgram(t)
		p.Load(p.scrap, p.Const(8))
		args := Args{}
		if k == Clone {
			args.Flags = unix.CLONE_VM
		}
		if got := run(t, k, args, p); !got.Signaled() || got.Signal() != unix.SIGSEGV {
			t.Errorf("kind %d: status %#x; want death by SIGSEGV", k, got)
		}
		p = newProgram(t)
		p.emit(instr{code: 99, arg: [6]uintptr{p.addr(Word{})}})
		if got := run(t, k, args, p); !got.Signaled() || got.Signal() != unix.SIGTRAP && got.Signal() != unix.SIGILL {
			t.Errorf("kind %d: status %#x; want death by a trap", k, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind Kind
		args Args
		want error // nil: any
	}{
		{"THREAD without SIGHAND", Clone, Args{Flags: unix.CLONE_THREAD | unix.CLONE_VM}, unix.EINVAL},
		{"SIGHAND without VM", Clone, Args{Flags: unix.CLONE_SIGHAND, ExitSignal: sigchld}, unix.EINVAL},
		{"NEWUSER with THREAD", Clone, Args{Flags: PThreadFlags | unix.CLONE_NEWUSER}, unix.EINVAL},
		{"clone3 too small", Clone3, Args{Size: 56}, unix.EINVAL},
		{"clone3 exit signal", Clone3, Args{ExitSignal: 300}, unix.EINVAL},
		{"clone3 too large", Clone3, Args{Size: 96}, nil},
		{"PARENT", Clone, Args{Flags: unix.CLONE_PARENT}, nil},
		{"words for a thread", Clone, Args{Flags: PThreadFlags, Words: &[3]Word{}}, nil},
		{"words for a pidfd", Clone, Args{Flags: unix.CLONE_PIDFD, Words: &[3]Word{}}, nil},
		{"flags in CSIGNAL", Clone, Args{Flags: 17}, nil},
		{"wide flags", Clone, Args{Flags: 1 << 32}, nil},
		{"fork with arguments", Fork, Args{ExitSignal: 17}, nil},
		{"no such kind", Kind(9), Args{}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Spawn(tc.kind, tc.args, newProgram(t))
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("err = %v; want %v", err, tc.want)
			}
		})
	}
}

// TestWords has the kernel write to words of the test's own.
func TestWords(t *testing.T) {
	for _, k := range []Kind{Clone, Clone3} {
		p := newProgram(t)
		words := [3]Word{p.Var(0), p.Var(0), p.Var(0)}
		tid := p.Syscall(unix.SYS_GETTID)
		run(t, k, Args{Flags: unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_SETTID, ExitSignal: sigchld, Words: &words}, p)
		child := 1
		if k == Clone && cloneBackwards {
			child = 2
		}
		for i, w := range words {
			want := uintptr(0)
			if i == 0 || i == child {
				want = p.Get(tid)
			}
			if got := p.Get(w); got != want {
				t.Errorf("kind %d: word %d = %d; want %d", k, i, got, want)
			}
		}
	}
}

func TestProgramTooLarge(t *testing.T) {
	for name, build := range map[string]func(p *Program){
		"operations": func(p *Program) {
			for range maxInstrs + 1 {
				p.Add(p.scrap, Word{})
			}
		},
		"buffer":    func(p *Program) { p.Buffer(arenaBytes - 100) },
		"negative":  func(p *Program) { p.Buffer(-1) },
		"arguments": func(p *Program) { p.Syscall(unix.SYS_GETPID, make([]Word, 7)...) },
		"words": func(p *Program) {
			for range arenaBytes / wordBytes {
				p.Var(1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t)
			build(p)
			if _, err := Spawn(Clone, Args{ExitSignal: sigchld}, p); err == nil {
				t.Error("Spawn took a program that does not fit")
			}
		})
	}
}

func TestSignalMaskComesBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	blocked := func() string {
		text, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "SigBlk:"); ok {
				return strings.TrimSpace(rest)
			}
		}
		t.Fatal("no SigBlk in /proc/thread-self/status")
		return ""
	}
	before := blocked()
	for _, k := range kinds {
		p := newProgram(t)
		var mask [8]byte
		seen := p.Buffer(8)
		p.Syscall(unix.SYS_RT_SIGPROCMASK, Word{}, Word{}, p.Addr(seen), p.Const(8))
		run(t, k.kind, k.args, p)
		copy(mask[:], p.Bytes(seen, 8))
		// SIGKILL (9) and SIGSTOP (19) cannot be blocked.
		if want := [8]byte{0xff, 0xfe, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff}; mask != want {
			t.Errorf("%s: the child's blocked signals = %x; want %x", k.name, mask, want)
		}
		if got := blocked(); got != before {
			t.Errorf("%s: the parent's blocked signals = %s; want %s", k.name, got, before)
		}
	}
}

// TestThreadLoad: what a child's register points to is what CLONE_SETTLS was given.
func TestThreadLoad(t *testing.T) {
	for _, k := range []struct {
		name string
		args Args
	}{
		{"thread", Args{Flags: PThreadFlags}},
		{"child", Args{Flags: unix.CLONE_SETTLS, ExitSignal: sigchld}},
	} {
		t.Run(k.name, func(t *testing.T) {
			p := newProgram(t)
			base := p.Var(0)
			p.ThreadLoad(base)
			p.Exit(0)
			if status := run(t, Clone, k.args, p); status != 0 {
				t.Fatalf("status %#x", status)
			}
			if got, want := p.Get(base), p.addr(p.TLS()); got != want {
				t.Errorf("thread pointer %#x; want %#x", got, want)
			}
		})
	}
}
