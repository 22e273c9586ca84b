// Package cputime holds the probe that burns CPU time in one thread of several
// and reads who it is charged to.
package cputime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "cputime", Run: run}) }

// maxTicks bounds how long the probe may burn, in clock ticks.
const maxTicks = 10 * procfs.Hz

// times is the CPU time of one task as /proc tells it.
type times struct {
	TID int `json:"tid"`
	// Whole is utime + stime of /proc/TID/stat, Own of /proc/PID/task/TID/stat,
	// in clock ticks. WholeUser and OwnUser are utime, field 14, alone.
	Whole     uint64 `json:"whole"`
	WholeUser uint64 `json:"whole_user"`
	Own       uint64 `json:"own"`
	OwnUser   uint64 `json:"own_user"`
	// RunNS is the first number of /proc/TID/schedstat, -1 without the file.
	RunNS int64 `json:"run_ns"`
}

// run makes two threads, busy and idle. It has busy burn until its own time is
// so many ticks, lets it sleep, and reads the times of all while all live.
func run(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Ticks uint64 `json:"ticks"`
	}{Ticks: 30}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	if p.Ticks < 1 || p.Ticks > maxTicks {
		return nil, probe.Paramf("ticks %d: give 1 to %d", p.Ticks, maxTicks)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &wire.ProbeResult{
		Probe:  "cputime",
		Method: fmt.Sprintf("two raw threads, one burns %d ticks of 1/%d s", p.Ticks, procfs.Hz),
		Tasks:  []wire.Task{probe.Self()},
	}
	busy, err := start("busy", true)
	if err != nil {
		return nil, err
	}
	idle, err := start("idle", false)
	if err == nil {
		err = measure(ctx, res, p.Ticks, busy, idle)
		err = errors.Join(err, idle.end())
		res.Tasks = append(res.Tasks, busy.task(res.Tasks[0]), idle.task(res.Tasks[0]))
	}
	if err = errors.Join(err, busy.end()); err != nil {
		return nil, err
	}
	return res, nil
}

// measure lets busy burn and fills in the times.
func measure(ctx context.Context, res *wire.ProbeResult, ticks uint64, busy, idle *thread) error {
	pid := res.Tasks[0].PID
	if err := idle.prog.Await(ctx, idle.ready, 1); err != nil {
		return err
	}
	for {
		own, err := ownTicks(pid, busy.child.TID)
		if err != nil {
			return err
		}
		if own >= ticks {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("thread %d burns: %w", busy.child.TID, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
	busy.prog.Set(busy.stop, 1)
	if err := busy.prog.Await(ctx, busy.ready, 1); err != nil {
		return err
	}
	res.Data = map[string]any{"hz": procfs.Hz}
	// Sums before parts would miss what is charged between: the parts come first.
	sum := uint64(0)
	ids, err := procfs.IDs("/proc/self/task")
	if err != nil {
		return err
	}
	for _, id := range ids {
		own, err := ownTicks(pid, id)
		if procfs.Gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		sum += own
	}
	res.Data["sum"], res.Data["threads"] = sum, len(ids)
	// One after the other: what is read later is not less.
	for _, r := range []struct {
		name string
		tid  int
	}{{"leader", pid}, {"busy", busy.child.TID}, {"idle", idle.child.TID}, {"again", pid}} {
		t, err := read("/proc", pid, r.tid)
		if err != nil {
			return err
		}
		res.Data[r.name] = t
	}
	return nil
}

func ownTicks(pid, tid int) (uint64, error) {
	s, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	return s.UTime + s.STime, err
}

// read reads the times of a task below root, "/proc".
func read(root string, pid, tid int) (t times, err error) {
	t.TID = tid
	whole, err := procfs.ReadStat(filepath.Join(root, strconv.Itoa(tid), "stat"))
	if err != nil {
		return t, err
	}
	own, err := procfs.ReadStat(filepath.Join(root, strconv.Itoa(pid), "task", strconv.Itoa(tid), "stat"))
	if err != nil {
		return t, err
	}
	t.Whole, t.WholeUser = whole.UTime+whole.STime, whole.UTime
	t.Own, t.OwnUser = own.UTime+own.STime, own.UTime
	t.RunNS = -1
	text, err := procfs.ReadFile(filepath.Join(root, strconv.Itoa(tid), "schedstat"))
	if procfs.Gone(err) {
		return t, nil // without CONFIG_SCHED_INFO
	}
	if err != nil {
		return t, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	if t.RunNS, err = strconv.ParseInt(first, 10, 64); err != nil {
		return t, fmt.Errorf("schedstat of %d: %w", tid, err)
	}
	return t, nil
}

// thread is one that sleeps when it has become ready, until leave is set. A
// burning one becomes ready when stop is set.
type thread struct {
	name               string
	child              *rawclone.Child
	prog               *rawclone.Program
	ready, stop, leave rawclone.Word
}

func start(name string, burn bool) (*thread, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	t := &thread{name: name, prog: prog, ready: prog.Var(0), stop: prog.Var(0), leave: prog.Var(0)}
	prog.Syscall(unix.SYS_PRCTL, prog.Const(unix.PR_SET_NAME), prog.Addr(prog.CString(name)))
	if burn {
		again := prog.Here()
		prog.JumpIfEqual(again, t.stop, prog.Const(0))
	}
	prog.Add(t.ready, prog.Const(1))
	prog.FutexWait(t.leave, 0)
	prog.Exit(0)
	if t.child, err = rawclone.Spawn(rawclone.Clone, rawclone.Args{Flags: rawclone.PThreadFlags}, prog); err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	return t, nil
}

// end lets the thread end, and waits for it.
func (t *thread) end() error {
	t.prog.Set(t.stop, 1)
	if err := t.prog.Post(t.leave, 1); err != nil {
		return err
	}
	if _, err := t.child.Wait(); err != nil {
		return err // the memory stays: the thread may still use it
	}
	return t.prog.Close()
}

// task reports the thread, which has all but the number from its leader.
func (t *thread) task(self wire.Task) wire.Task {
	self.Role, self.Comm, self.TID = "thread", t.name, t.child.TID
	self.Asked = &wire.Asked{Syscall: t.child.Syscall, Flags: t.child.Flags}
	return self
}
