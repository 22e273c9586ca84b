// Package variables holds the probe whose child writes to two variables of its
// parent's: what fork copies and what clone can share.
package variables

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "variables", Run: run}) }

// g is a variable in the program's data.
var g uintptr

const wordBytes = int(unsafe.Sizeof(g))

// values are g, and l of a private anonymous mapping, which is what
// a stack is.
type values struct {
	G uintptr `json:"g"`
	L uintptr `json:"l"`
}

// run makes a child that adds one to g, which is 2, and to l, which is 3, and
// reads both in child and parent, and through /proc/PID/mem.
func run(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Flags      uint64 `json:"flags"`
		ExitSignal int    `json:"exit_signal"`
	}{ExitSignal: int(unix.SIGCHLD)}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	if p.Flags&unix.CLONE_VFORK != 0 {
		return nil, probe.Paramf("CLONE_VFORK: its parent could not look at the child")
	}
	private, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map a page: %w", err)
	}
	l := (*uintptr)(unsafe.Pointer(&private[0]))
	atomic.StoreUintptr(&g, 2)
	atomic.StoreUintptr(l, 3)
	c, err := newChild(uintptr(unsafe.Pointer(&g)), uintptr(unsafe.Pointer(l)))
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(private))
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{Flags: p.Flags, ExitSignal: p.ExitSignal}, c.prog)
	if err != nil {
		return nil, errors.Join(err, c.prog.Close(), unix.Munmap(private))
	}
	task := wire.Task{Role: "child", Comm: self.Comm, Asked: &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal}}
	if child.Thread() {
		task.Role = "thread"
	}
	data := map[string]any{"returned": child.TID}
	if err = c.prog.Await(ctx, c.ready, 1); err == nil {
		err = c.look(data, self.PID, child.TID)
		data["parent"] = values{atomic.LoadUintptr(&g), atomic.LoadUintptr(l)}
	}
	if child.Thread() {
		data["wait"] = refused(child.TID)
	}
	status, werr := c.end(child)
	if werr != nil {
		return nil, errors.Join(err, werr) // the memory stays: the child may still use it
	}
	if !child.Thread() {
		raw := int(status)
		task.Status = &raw
	}
	task.PID, task.TID, task.PPID = int(c.prog.Get(c.pid)), int(c.prog.Get(c.tid)), int(c.prog.Get(c.ppid))
	task.TGID = task.PID
	if err = errors.Join(err, c.prog.Close(), unix.Munmap(private)); err != nil {
		return nil, err
	}
	return &wire.ProbeResult{
		Probe:  "variables",
		Method: fmt.Sprintf("raw %s, writes in the child, reads of /proc/PID/mem", child.Syscall),
		Tasks:  []wire.Task{self, task},
		Data:   data,
	}, nil
}

// child is the program of the child and the words it reports in.
type child struct {
	prog           *rawclone.Program
	ready, leave   rawclone.Word
	g, l           rawclone.Word // as the child sees them
	pid, tid, ppid rawclone.Word
	at             [2]uintptr
}

// newChild is one that adds one to the words at two addresses, reads them back,
// says so and sleeps.
func newChild(g, l uintptr) (*child, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	c := &child{prog: prog, ready: prog.Var(0), leave: prog.Var(0), at: [2]uintptr{g, l}}
	c.pid, c.tid, c.ppid = prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID), prog.Syscall(unix.SYS_GETPPID)
	seen := [2]rawclone.Word{prog.Var(0), prog.Var(0)}
	for i, addr := range c.at {
		sum := prog.Var(0)
		prog.Load(sum, prog.Const(addr))
		prog.Add(sum, prog.Const(1))
		prog.Store(prog.Const(addr), sum)
		prog.Load(seen[i], prog.Const(addr))
	}
	c.g, c.l = seen[0], seen[1]
	prog.Add(c.ready, prog.Const(1))
	prog.FutexWait(c.leave, 0)
	prog.Exit(0)
	return c, nil
}

func (c *child) end(made *rawclone.Child) (unix.WaitStatus, error) {
	if err := c.prog.Post(c.leave, 1); err != nil {
		return 0, err
	}
	return made.Wait()
}

// look fills in what there is to see while the child sleeps.
func (c *child) look(data map[string]any, pid, tid int) error {
	data["child"] = values{c.prog.Get(c.g), c.prog.Get(c.l)}
	for name, id := range map[string]int{"parent_mem": pid, "child_mem": tid} {
		v, err := c.memory(id)
		if err != nil {
			return err
		}
		data[name] = v
	}
	for name, id := range map[string]int{"parent_maps": pid, "child_maps": tid} {
		perms, err := mapping(id, c.at[0])
		if err != nil {
			return err
		}
		data[name] = perms
	}
	ids, err := procfs.IDs(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	data["in_task"] = slices.Contains(ids, tid)
	data["same"], err = same(pid, tid)
	return err
}

// memory reads both variables in the memory of a task, from outside.
func (c *child) memory(pid int) (values, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return values{}, err
	}
	defer f.Close()
	var got [2]uintptr
	for i, addr := range c.at {
		b := make([]byte, 8)
		if _, err := f.ReadAt(b[:wordBytes], int64(addr)); err != nil {
			return values{}, fmt.Errorf("read %#x of process %d: %w", addr, pid, err)
		}
		got[i] = uintptr(binary.LittleEndian.Uint64(b))
	}
	return values{got[0], got[1]}, nil
}

// mapping returns the permissions of the mapping at addr, "rw-p".
func mapping(pid int, addr uintptr) (string, error) {
	areas, err := mm.Maps(pid)
	if err != nil {
		return "", err
	}
	a, ok := mm.Find(areas, addr)
	if !ok {
		return "", fmt.Errorf("maps of %d: nothing at %#x", pid, addr)
	}
	return a.Perms, nil
}

// structures are what kcmp(2) can compare, by its type (include/uapi/linux/kcmp.h).
var structures = map[string]uintptr{"vm": 1, "files": 2, "fs": 3, "sighand": 4}

// same says which structures two tasks have in common; nil without CONFIG_KCMP.
func same(a, b int) (map[string]bool, error) {
	out := map[string]bool{}
	for name, kind := range structures {
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kind, 0, 0, 0)
		if errno == unix.ENOSYS {
			return nil, nil
		}
		if errno != 0 {
			return nil, fmt.Errorf("kcmp of %d and %d: %w", a, b, errno)
		}
		out[name] = r == 0
	}
	return out, nil
}

// refused returns the errno's name of a wait for a thread, "" when it is granted.
func refused(tid int) string {
	if _, err := unix.Wait4(tid, nil, unix.WALL|unix.WNOHANG, nil); err != nil {
		var errno unix.Errno
		errors.As(err, &errno)
		return unix.ErrnoName(errno)
	}
	return ""
}
