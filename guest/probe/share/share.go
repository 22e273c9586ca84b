// Package share holds the probe whose child changes a variable, opens a file and
// goes to another directory, and whose parent looks which of it has happened to
// itself.
package share

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "share", Run: run}) }

// allowed are the flags that the probe takes; a thread's end could not be waited
// for, and a vfork's parent could not look.
const allowed = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_FS

const (
	before, after = 100, 200        // the variable
	file          = "/proc/version" // what the child opens
	opened        = 200             // its descriptor: no other thread takes so high a one by chance
	closed        = 201             // the descriptor that the parent closes
	elsewhere     = "/proc"         // where the child goes
)

func run(ctx context.Context, raw json.RawMessage) (_ *wire.ProbeResult, err error) {
	p := struct {
		Flags uint64 `json:"flags"`
	}{}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if p.Flags&^allowed != 0 {
		return nil, probe.Paramf("flags %#x: give any of CLONE_VM (%#x), CLONE_FS (%#x) and CLONE_FILES (%#x)",
			p.Flags, unix.CLONE_VM, unix.CLONE_FS, unix.CLONE_FILES)
	}
	private, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map a page: %w", err)
	}
	variable := (*uintptr)(unsafe.Pointer(&private[0]))
	atomic.StoreUintptr(variable, before)
	back, err := enter()
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(private))
	}
	defer func() { err = errors.Join(err, back()) }()

	c, err := newChild(uintptr(unsafe.Pointer(variable)))
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(private))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{Flags: p.Flags, ExitSignal: int(unix.SIGCHLD)}, c.prog)
	if err != nil {
		return nil, errors.Join(err, c.prog.Close(), unix.Munmap(private))
	}
	data := map[string]any{"returned": child.TID}
	if err = c.prog.Await(ctx, c.ready, 1); err == nil {
		err = c.look(data, variable)
	}
	err = errors.Join(err, c.prog.Post(c.leave, 1))
	status, werr := child.Wait()
	if werr != nil {
		return nil, errors.Join(err, werr) // the memory stays: the child may still use it
	}
	raws := int(status)
	task := wire.Task{
		Role: "child", PID: int(c.prog.Get(c.pid)), TID: int(c.prog.Get(c.pid)), TGID: int(c.prog.Get(c.pid)), PPID: self.PID,
		Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
		Status: &raws,
	}
	// The parent closed it while the child lived: does the child have it still?
	data["closed"] = c.errno(c.still)
	data["outlives"] = descriptor()
	_, failed := c.prog.Result(c.open)
	err = errors.Join(err, failed, c.prog.Close(), unix.Munmap(private))
	if err != nil {
		return nil, err
	}
	return &wire.ProbeResult{
		Probe:  "share",
		Method: fmt.Sprintf("raw %s; the child writes, opens and changes directory, the maker looks", child.Syscall),
		Tasks:  []wire.Task{self, task},
		Data:   data,
	}, nil
}

// enter takes both descriptors and goes to the root directory. back undoes it.
func enter() (back func() error, err error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{opened, closed} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			return nil, fmt.Errorf("descriptor %d is in use", fd)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), closed, unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("take descriptor %d: %w", closed, err)
	}
	if err := os.Chdir("/"); err != nil {
		return nil, errors.Join(err, unix.Close(closed))
	}
	return func() error {
		unix.Close(opened) // by now open here or not
		unix.Close(closed)
		return os.Chdir(wd)
	}, nil
}

// child is the program of the child and the words that it reports in.
type child struct {
	prog         *rawclone.Program
	ready, leave rawclone.Word
	pid          rawclone.Word
	open         rawclone.Word // openat's result
	still        rawclone.Word // fcntl's, of the descriptor that the parent has closed
}

func newChild(variable uintptr) (*child, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	c := &child{prog: prog, ready: prog.Var(0), leave: prog.Var(0)}
	c.pid = prog.Syscall(unix.SYS_GETPID)
	prog.Store(prog.Const(variable), prog.Const(after))
	here := unix.AT_FDCWD
	c.open = prog.Syscall(unix.SYS_OPENAT, prog.Const(uintptr(here)), prog.Addr(prog.CString(file)), prog.Const(unix.O_RDONLY))
	prog.Syscall(unix.SYS_DUP3, c.open, prog.Const(opened), prog.Const(unix.O_CLOEXEC))
	prog.Syscall(unix.SYS_CLOSE, c.open)
	prog.Syscall(unix.SYS_CHDIR, prog.Addr(prog.CString(elsewhere)))
	prog.Add(c.ready, prog.Const(1))
	prog.FutexWait(c.leave, 0)
	c.still = prog.Syscall(unix.SYS_FCNTL, prog.Const(closed), prog.Const(unix.F_GETFD))
	prog.Exit(0)
	return c, nil
}

// errno names the error in a result, "" for none.
func (c *child) errno(w rawclone.Word) string {
	_, err := c.prog.Result(w)
	return errnoName(err)
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}

// look fills in what the parent sees while the child sleeps, and closes the
// descriptor that the child will look for.
func (c *child) look(data map[string]any, variable *uintptr) error {
	data["variable"] = map[string]uintptr{"before": before, "after": atomic.LoadUintptr(variable)}
	data["descriptor"] = descriptor()
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	data["directory"] = map[string]string{"before": "/", "after": wd}
	return unix.Close(closed)
}

// seen is what there is to see of the child's descriptor in the parent.
type seen struct {
	Number int    `json:"number"`
	Path   string `json:"path"`  // "" when the number is not open here
	Errno  string `json:"errno"` // of a read, "" when it gave bytes
	Read   string `json:"read"`  // the first word
}

func descriptor() seen {
	s := seen{Number: opened}
	s.Path, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", opened))
	b := make([]byte, 64)
	n, err := unix.Pread(opened, b, 0)
	s.Errno = errnoName(err)
	if n > 0 {
		s.Read = strings.Fields(string(b[:n]) + " x")[0]
	}
	return s
}
