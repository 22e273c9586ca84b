// Package arguments holds the probe that finds out which argument of clone the
// kernel takes for what. The order is not the same on all architectures
// (CONFIG_CLONE_BACKWARDS, kernel/fork.c); clone3 has names instead.
//
// The last three arguments of every call are the addresses of three words. Then
// the probe looks which of them the kernel has used.
package arguments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "arguments", Run: run}) }

// trials are flags that make the kernel use one pointer each, and how to tell
// which it was.
var trials = []struct {
	name  string
	flags uint64
	found func(*call) (int, error)
}{
	{"parent_settid", unix.CLONE_PARENT_SETTID, (*call).written},
	{"child_settid", unix.CLONE_CHILD_SETTID, (*call).written},
	{"settls", unix.CLONE_SETTLS, (*call).threadPointer},
	// The word is cleared only where somebody is left to see it (mm_release in
	// kernel/fork.c): the memory must be shared.
	{"child_cleartid", unix.CLONE_CHILD_CLEARTID, (*call).cleared},
	{"child_cleartid and vm", unix.CLONE_CHILD_CLEARTID | unix.CLONE_VM, (*call).cleared},
}

// places are what the three words are, by the call.
var places = map[string][3]string{
	"clone":  {"third", "fourth", "fifth"},
	"clone3": {"parent_tid", "child_tid", "tls"},
}

var kinds = map[string]rawclone.Kind{"clone": rawclone.Clone, "clone3": rawclone.Clone3}

// row is what came of a trial.
type row struct {
	Name  string     `json:"name"`
	Flags uint64     `json:"flags"`
	TID   int        `json:"tid"`
	Place string     `json:"place"`     // the word that the kernel used, "" for none
	Words [3]uintptr `json:"addresses"` // of the words, in the order of places
}

func run(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		By string `json:"by"`
	}{By: "clone"}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if _, ok := kinds[p.By]; !ok {
		return nil, probe.Paramf(`by %q: give "clone" or "clone3"`, p.By)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{
		Probe:  "arguments",
		Method: fmt.Sprintf("raw %s with one flag at a time; the memory and the thread pointer (ptrace) looked at", p.By),
		Tasks:  []wire.Task{probe.Self()},
	}
	rows := map[string]row{}
	for _, t := range trials {
		r, task, err := try(ctx, p.By, t.flags, t.found)
		if errors.Is(err, unix.ENOSYS) {
			// clone3 is younger than clone: no rows at all.
			res.Data = map[string]any{"missing": true, "rows": map[string]row{}}
			return res, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s with %s: %w", p.By, t.name, err)
		}
		r.Name = t.name
		rows[t.name] = r
		res.Tasks = append(res.Tasks, task)
	}
	res.Data = map[string]any{"missing": false, "rows": rows}
	return res, nil
}

// untouched is in the words at first: no thread's id, and not zero.
const untouched = 1 << 31

// call is one child while it sleeps, and when it has ended.
type call struct {
	prog  *rawclone.Program
	child *rawclone.Child
	words [3]rawclone.Word
	leave rawclone.Word
	ended bool
}

func try(ctx context.Context, by string, flags uint64, found func(*call) (int, error)) (r row, task wire.Task, err error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return r, task, err
	}
	c := &call{prog: prog, leave: prog.Var(0)}
	for i := range c.words {
		c.words[i] = prog.Var(untouched)
		r.Words[i] = prog.Get(prog.Addr(c.words[i]))
	}
	ready := prog.Var(0)
	pid := prog.Syscall(unix.SYS_GETPID)
	prog.Add(ready, prog.Const(1))
	prog.FutexWait(c.leave, 0)
	prog.Exit(0)
	c.child, err = rawclone.Spawn(kinds[by], rawclone.Args{Flags: flags, ExitSignal: int(unix.SIGCHLD), Words: &c.words}, prog)
	if err != nil {
		return r, task, errors.Join(err, prog.Close())
	}
	r.TID, r.Flags = c.child.TID, flags
	asked := wire.Asked{Syscall: c.child.Syscall, Flags: c.child.Flags, ExitSignal: c.child.ExitSignal}
	place := -1
	if err = prog.Await(ctx, ready, 1); err == nil {
		place, err = found(c)
	}
	err = errors.Join(err, prog.Post(c.leave, 1))
	status, werr := c.child.Wait()
	if err = errors.Join(err, werr); err != nil {
		return r, task, err // the memory stays: the child may still use it
	}
	c.ended = true
	if place < 0 {
		if place, err = found(c); err != nil {
			return r, task, errors.Join(err, prog.Close())
		}
	}
	if place >= 0 {
		r.Place = places[by][place]
	}
	rawStatus := int(status)
	task = wire.Task{
		Role: "child", PID: int(prog.Get(pid)), TID: int(prog.Get(pid)), TGID: int(prog.Get(pid)), PPID: unix.Getpid(),
		Asked: &asked, Status: &rawStatus,
	}
	return r, task, prog.Close()
}

// written finds the word that holds the child's number, -1 for none.
func (c *call) written() (int, error) {
	for i, w := range c.words {
		if int32(c.prog.Get(w)) == int32(c.child.TID) {
			return i, nil
		}
	}
	return -1, nil
}

// cleared finds the word that is zero. The kernel writes 32 bits of it.
func (c *call) cleared() (int, error) {
	for i, w := range c.words {
		if c.ended && uint32(c.prog.Get(w)) == 0 {
			return i, nil
		}
	}
	return -1, nil
}

// threadPointer finds the word whose address is the sleeping child's thread pointer.
func (c *call) threadPointer() (int, error) {
	if c.ended {
		return -1, nil
	}
	tp, err := readThreadPointer(c.child.TID)
	if err != nil {
		return -1, err
	}
	for i, w := range c.words {
		if c.prog.Get(c.prog.Addr(w)) == tp {
			return i, nil
		}
	}
	return -1, nil
}

// readThreadPointer stops a child of the calling thread and reads the register
// that thread-local storage is found by.
func readThreadPointer(tid int) (tp uintptr, err error) {
	if err := unix.PtraceSeize(tid); err != nil {
		return 0, fmt.Errorf("ptrace task %d: %w", tid, err)
	}
	defer func() { err = errors.Join(err, unix.PtraceDetach(tid)) }()
	if err := unix.PtraceInterrupt(tid); err != nil {
		return 0, fmt.Errorf("stop task %d: %w", tid, err)
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			return 0, fmt.Errorf("wait for the stop of task %d: %w", tid, err)
		}
		if !status.Stopped() {
			return 0, fmt.Errorf("task %d ended instead of stopping (status %#x)", tid, int(status))
		}
		break
	}
	if tp, err = threadPointer(tid); err != nil {
		return 0, fmt.Errorf("read the thread pointer of task %d: %w", tid, err)
	}
	return tp, nil
}
