// Package rawclone makes tasks by clone, clone3, fork and vfork whose child
// never enters the Go runtime.
//
// A forked Go process has one thread of many, and a child that shares the
// address space (CLONE_VM) has no g, no m and a stack that the runtime does not
// know: Go code in either corrupts the program sooner or later. So the child
// runs a Program instead, a list of system calls and word operations, in a few
// lines of assembly that use registers alone. It touches no stack, no thread-local
// storage and no Go heap, takes no signal, and ends by exit.
//
// All signals are blocked around the call, as syscall.forkExec does, and the child
// keeps them blocked: a Go signal handler would look for its g. A fault in the
// child is therefore fatal to it (force_sig with a blocked signal takes the
// default action), and in a CLONE_THREAD child to the whole program. Kernels
// without commit 0258b5fd7c71 ("coredump: Limit coredumps to a single thread
// group") end every process that shares the address space of one that dumps core,
// unless PR_SET_DUMPABLE is 0: there a faulting CLONE_VM child takes us along.
//
// CLONE_VFORK suspends the calling thread in the kernel until the child ends or
// execs, without the runtime knowing. Other goroutines go on as long as
// GOMAXPROCS is at least 2, but a stop-the-world (a garbage collection's, for one)
// waits for the thread. A vfork child must thus not wait for something that Go
// code does; where that cannot be avoided, turn the collector off before
// (debug.SetGCPercent(-1)).
package rawclone

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is the way to ask for a child.
type Kind int

const (
	Clone  Kind = iota // clone(2), the kernel's own argument order
	Clone3             // clone3(2), since 5.3
	Fork               // fork(2), or clone where the architecture has no such call
	VFork              // vfork(2), or clone where the architecture has no such call
)

// Args are the arguments of Clone and Clone3. Fork and VFork take none.
//
// Memory that flags ask for is the Program's: one word is parent_tid and
// child_tid at once, as in glibc; CLONE_SETTLS gets 256 bytes, see
// Program.TLS; CLONE_PIDFD fills Child.PIDFD. A child with CLONE_VM gets a stack of
// its own with a guard page below, though the interpreter does not use it.
type Args struct {
	Flags      uint64 // CLONE_*, without CSIGNAL
	ExitSignal int    // 0 sends none; Wait reaps either way
	Size       int    // clone3: size of struct clone_args, 64, 80 or 88; 0 means 64
	// Words, when there are any, are what the call's pointers point to in place
	// of all this memory: of clone its third, fourth and fifth arguments,
	// whichever of them an architecture takes for what; of clone3 parent_tid,
	// child_tid and tls.
	Words *[3]Word
}

// PThreadFlags are what glibc's pthread_create asks for.
const PThreadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
	unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID

// cloneArgs is struct clone_args of include/uapi/linux/sched.h.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 // 64 bytes, 5.3
	setTID, setTIDSize                                                   uint64 // 80 bytes, 5.5
	cgroup                                                               uint64 // 88 bytes, 5.7
}

const (
	stackBytes = 16 << 10
	futexWait  = 0 // not FUTEX_PRIVATE_FLAG: a forked child shares the memory, not the address space
	futexWake  = 1
)

// Child is a task that Spawn made. Wait must be called exactly once.
type Child struct {
	TID        int    // as the call returned it
	Syscall    string // the call really made: "clone", "clone3", "fork" or "vfork"
	Flags      uint64 // what it asked for, in clone's terms, without CSIGNAL
	ExitSignal int
	PIDFD      int // with CLONE_PIDFD, else -1; closed by Wait

	prog  *Program
	stack []byte
	self  int // our own thread group
}

// spawn makes the system call nr and returns its result, -errno on error. In the
// child it runs the instructions at pc and never returns.
//
//go:noescape
func spawn(pc, nr, a0, a1, a2, a3, a4 uintptr) uintptr

// Spawn starts prog in a new task. A prog whose last operation is no exit gets
// Exit(0). The errno of a refused call is in the error's chain.
func Spawn(kind Kind, args Args, prog *Program) (*Child, error) {
	if !prog.ends {
		prog.Exit(0)
	}
	if prog.err != nil {
		return nil, prog.err
	}
	if prog.child != nil {
		return nil, errors.New("spawn: the program's last child has not been waited for")
	}
	c := &Child{Flags: args.Flags, ExitSignal: args.ExitSignal, PIDFD: -1, prog: prog, self: unix.Getpid()}
	nr, err := c.choose(kind, args)
	if err != nil {
		return nil, err
	}
	if c.Flags&unix.CLONE_VM != 0 && (c.Syscall == "clone" || c.Syscall == "clone3") {
		if c.stack, err = newStack(); err != nil {
			return nil, err
		}
	}
	// Not zero and no thread's id: what Wait sees until the kernel writes the word.
	prog.Set(prog.tid, 1<<31)
	prog.Set(prog.pidfd, 0)

	r := c.call(nr, args)
	if tid := int(r); tid > 0 {
		c.TID = tid
	} else {
		c.freeStack()
		return nil, fmt.Errorf("%s(flags %#x, exit signal %d): %w", c.Syscall, c.Flags, c.ExitSignal, unix.Errno(-r))
	}
	if c.Flags&unix.CLONE_PIDFD != 0 {
		c.PIDFD = int(prog.Get(prog.pidfd))
	}
	prog.child = c
	return c, nil
}

// choose sets Syscall, Flags and ExitSignal and returns the call's number.
func (c *Child) choose(kind Kind, args Args) (uintptr, error) {
	if c.Flags&unix.CLONE_PARENT != 0 {
		return 0, errors.New("spawn: CLONE_PARENT makes a sibling, which is not ours to reap")
	}
	if args.Words != nil && c.Flags&(unix.CLONE_THREAD|unix.CLONE_PIDFD) != 0 {
		return 0, errors.New("spawn: a thread and a pidfd are told by the program's own words")
	}
	switch kind {
	case Fork, VFork:
		if args != (Args{}) {
			return 0, errors.New("spawn: fork and vfork take no arguments; use clone")
		}
		c.ExitSignal = int(unix.SIGCHLD)
		c.Syscall = "fork"
		nr := uintptr(sysFork)
		if kind == VFork {
			c.Flags = unix.CLONE_VM | unix.CLONE_VFORK
			c.Syscall = "vfork"
			nr = sysVFork
		}
		if nr != 0 {
			return nr, nil
		}
		c.Syscall = "clone"
		return unix.SYS_CLONE, nil
	case Clone:
		if c.Flags&0xff != 0 || c.Flags>>32 != 0 || c.ExitSignal < 0 || c.ExitSignal > 0xff {
			return 0, fmt.Errorf("spawn: clone cannot carry flags %#x with exit signal %d: flags are bits 8 to 31, the signal is at most 255",
				c.Flags, c.ExitSignal)
		}
		c.Syscall = "clone"
		return unix.SYS_CLONE, nil
	case Clone3:
		if most := int(unsafe.Sizeof(cloneArgs{})); args.Size < 0 || args.Size > most {
			return 0, fmt.Errorf("spawn: clone_args of %d bytes: give 64, 80 or %d", args.Size, most)
		}
		c.Syscall = "clone3"
		return unix.SYS_CLONE3, nil
	}
	return 0, fmt.Errorf("spawn: no kind %d", kind)
}

// call blocks all signals, makes the call and restores the mask.
func (c *Child) call(nr uintptr, given Args) uintptr {
	p := c.prog
	tid, tls := p.addr(p.tid), p.addr(p.tls)
	var a [5]uintptr
	switch c.Syscall {
	case "clone":
		ptid := tid
		if c.Flags&unix.CLONE_PIDFD != 0 {
			ptid = p.addr(p.pidfd) // clone has no argument of its own for it
		}
		a = [5]uintptr{uintptr(c.Flags) | uintptr(c.ExitSignal), 0, ptid, tid, tls}
		if cloneBackwards {
			a[3], a[4] = tls, tid
		}
		if w := given.Words; w != nil {
			a[2], a[3], a[4] = p.addr(w[0]), p.addr(w[1]), p.addr(w[2])
		}
		if c.stack != nil {
			a[1] = c.StackTop()
		}
	case "clone3":
		args := cloneArgs{flags: c.Flags, exitSignal: uint64(c.ExitSignal)}
		if c.Flags&unix.CLONE_PIDFD != 0 {
			args.pidfd = uint64(p.addr(p.pidfd))
		}
		if c.Flags&unix.CLONE_PARENT_SETTID != 0 {
			args.parentTID = uint64(tid)
		}
		if c.Flags&(unix.CLONE_CHILD_SETTID|unix.CLONE_CHILD_CLEARTID) != 0 {
			args.childTID = uint64(tid)
		}
		if c.Flags&unix.CLONE_SETTLS != 0 {
			args.tls = uint64(tls)
		}
		if w := given.Words; w != nil {
			args.parentTID, args.childTID, args.tls = uint64(p.addr(w[0])), uint64(p.addr(w[1])), uint64(p.addr(w[2]))
		}
		if c.stack != nil {
			args.stack, args.stackSize = uint64(uintptr(unsafe.Pointer(&c.stack[0]))), uint64(len(c.stack))
		}
		most := int(unsafe.Sizeof(args))
		copy(p.Bytes(p.args, most), unsafe.Slice((*byte)(unsafe.Pointer(&args)), most))
		size := given.Size
		if size == 0 {
			size = 64
		}
		a = [5]uintptr{p.addr(p.args), uintptr(size)}
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, old := ^uint64(0), uint64(0)
	const setMask, maskBytes = 2, 8
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), maskBytes, 0, 0); errno != 0 {
		return -uintptr(errno)
	}
	r := spawn(uintptr(unsafe.Pointer(&p.words[0])), nr, a[0], a[1], a[2], a[3], a[4])
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&old)), 0, maskBytes, 0, 0)
	return r
}

// Thread reports whether the child is a thread of our own group. Nobody reaps
// such a child and it has no wait status.
func (c *Child) Thread() bool { return c.Flags&unix.CLONE_THREAD != 0 }

// Wait blocks until the child is gone and frees what Spawn allocated for it: a
// process is reaped whatever its exit signal (__WALL), a thread is joined by its
// CLONE_CHILD_CLEARTID word and watched until the kernel has released it. The
// status is 0 for a thread.
func (c *Child) Wait() (unix.WaitStatus, error) {
	if c.prog == nil {
		return 0, errors.New("wait: already waited for")
	}
	var status unix.WaitStatus
	var err error
	if c.Thread() {
		err = c.join()
	} else {
		for {
			if _, err = unix.Wait4(c.TID, &status, unix.WALL, nil); err != unix.EINTR {
				break
			}
		}
	}
	if err != nil {
		return 0, fmt.Errorf("wait for task %d: %w", c.TID, err)
	}
	if c.PIDFD >= 0 {
		unix.Close(c.PIDFD)
	}
	c.freeStack()
	c.prog.child, c.prog = nil, nil
	return status, nil
}

// join waits for a thread. The kernel clears the word a little before it takes
// the thread off the group's list, hence the second wait.
func (c *Child) join() error {
	p := c.prog
	for c.Flags&unix.CLONE_CHILD_CLEARTID != 0 {
		v := uint32(p.Get(p.tid))
		if v == 0 {
			break
		}
		_, _, errno := unix.Syscall6(unix.SYS_FUTEX, p.addr(p.tid), futexWait, uintptr(v), 0, 0, 0)
		if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
			return fmt.Errorf("futex wait: %w", errno)
		}
	}
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		if err := unix.Tgkill(c.self, c.TID, 0); err == unix.ESRCH {
			return nil
		} else if err != nil {
			return fmt.Errorf("tgkill: %w", err)
		}
		time.Sleep(pause)
	}
}

// newStack maps a stack and makes its lowest page a guard.
func newStack() ([]byte, error) {
	guard := unix.Getpagesize() // 4, 16 or 64 KiB on arm64
	mem, err := unix.Mmap(-1, 0, guard+stackBytes, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map a child's stack: %w", err)
	}
	if err := unix.Mprotect(mem[guard:], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		unix.Munmap(mem)
		return nil, fmt.Errorf("map a child's stack: %w", err)
	}
	return mem, nil
}

// StackTop is the first address behind the child's stack, 0 if it has none of its own.
func (c *Child) StackTop() uintptr {
	if c.stack == nil {
		return 0
	}
	return uintptr(unsafe.Pointer(&c.stack[0])) + uintptr(len(c.stack))
}

func (c *Child) freeStack() {
	if c.stack != nil {
		unix.Munmap(c.stack)
		c.stack = nil
	}
}
