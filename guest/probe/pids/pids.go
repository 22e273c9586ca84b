// Package pids holds the probe that makes one child after another and reads the
// numbers that the kernel gives them, on request until the numbers begin anew.
//
// alloc_pid (kernel/pid.c) takes the next free number above the last one, below
// pid_max, and after that begins again at RESERVED_PIDS, 300.
package pids

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// pidMax is the kernel's bound: numbers are smaller.
const pidMax = "/proc/sys/kernel/pid_max"

const (
	reserved = 300 // RESERVED_PIDS, kernel/pid.c
	room     = 64  // numbers left below the bound that is set
)

func init() {
	probe.Register(probe.Probe{Name: "pids", Run: func(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
		return run(ctx, pidMax, params)
	}})
}

// run makes children; with wrap, until one gets a smaller number than the one
// before it. bound is the file of pid_max.
func run(ctx context.Context, bound string, raw json.RawMessage) (res *wire.ProbeResult, err error) {
	p := struct {
		Forks int  `json:"forks"`
		Wrap  bool `json:"wrap"`
	}{Forks: 8}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if p.Forks < 1 || p.Forks > 1000 {
		return nil, probe.Paramf("forks %d: give 1 to 1000", p.Forks)
	}
	max, err := readNumber(bound)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := newForker()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.prog.Close()) }()
	for range p.Forks {
		if err := f.fork(); err != nil {
			return nil, err
		}
	}
	res = &wire.ProbeResult{Probe: "pids", Method: "raw clone and wait4, one child after another", Tasks: []wire.Task{probe.Self()}}
	data := map[string]any{"pid_max": max}
	if p.Wrap {
		res.Method += ", until the numbers begin anew below a small pid_max"
		small := reserved + room
		if last := f.made[len(f.made)-1]; last >= reserved {
			small = last + room
		}
		pair, err := f.wrapBelow(ctx, bound, small, max)
		if err != nil {
			return nil, err
		}
		data["set"], data["elder"], data["younger"] = small, pair[0], pair[1]
		if data["after"], err = readNumber(bound); err != nil {
			return nil, err
		}
	}
	data["made"] = f.made
	res.Data = data
	res.Tasks = append(res.Tasks, f.last)
	return res, nil
}

// sibling is a child that lived until both of a pair were looked at.
type sibling struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, of /proc/PID/stat
}

// wrapBelow sets pid_max to small and makes children until the numbers have
// begun anew; then it sets back what was. The elder of the two that it gives was
// made shortly before that, the younger after.
func (f *forker) wrapBelow(ctx context.Context, bound string, small, was int) (pair [2]sibling, err error) {
	if err := writeNumber(bound, small); err != nil {
		return pair, err
	}
	defer func() { err = errors.Join(err, writeNumber(bound, was)) }()
	var elder, younger *sleeper
	defer func() {
		for _, s := range []*sleeper{elder, younger} {
			if s != nil {
				err = errors.Join(err, s.end())
			}
		}
	}()
	limit := len(f.made) + small - f.made[len(f.made)-1] + room
	for {
		last := f.made[len(f.made)-1]
		switch {
		case len(f.made) > limit:
			return pair, fmt.Errorf("made %d children below pid_max %d, and no number was smaller than the one before", len(f.made), small)
		case ctx.Err() != nil:
			return pair, fmt.Errorf("child %d: %w", last, context.Cause(ctx))
		case elder == nil && last > small-room/2:
			if elder, err = newSleeper(); err != nil {
				return pair, err
			}
		}
		if err := f.fork(); err != nil {
			return pair, err
		}
		if f.made[len(f.made)-1] < last {
			break
		}
	}
	if elder == nil {
		return pair, fmt.Errorf("the numbers began anew at %d, far below pid_max %d", f.made[len(f.made)-1], small)
	}
	time.Sleep(3 * time.Second / procfs.Hz) // the start times shall differ
	if younger, err = newSleeper(); err != nil {
		return pair, err
	}
	for i, s := range []*sleeper{elder, younger} {
		stat, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/stat", s.child.TID))
		if err != nil {
			return pair, err
		}
		pair[i] = sibling{stat.PID, stat.StartTime}
	}
	return pair, nil
}

// forker makes children that end at once.
type forker struct {
	prog     *rawclone.Program
	pid, tid rawclone.Word
	made     []int // the children's numbers in their order
	last     wire.Task
}

func newForker() (*forker, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	f := &forker{prog: prog}
	f.pid, f.tid = prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID)
	prog.Exit(0)
	return f, nil
}

func (f *forker) fork() error {
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, f.prog)
	if err != nil {
		return err
	}
	f.made = append(f.made, child.TID)
	status, err := child.Wait()
	if err != nil {
		return err
	}
	raw := int(status)
	f.last = wire.Task{
		Role: "child", PID: int(f.prog.Get(f.pid)), TID: int(f.prog.Get(f.tid)), TGID: int(f.prog.Get(f.pid)), PPID: unix.Getpid(),
		Asked:  &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal},
		Status: &raw,
	}
	return nil
}

// sleeper is a child that sleeps until end.
type sleeper struct {
	prog  *rawclone.Program
	gate  rawclone.Word
	child *rawclone.Child
}

func newSleeper() (*sleeper, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	s := &sleeper{prog: prog, gate: prog.Var(0)}
	prog.FutexWait(s.gate, 0)
	prog.Exit(0)
	if s.child, err = rawclone.Spawn(rawclone.Clone, rawclone.Args{ExitSignal: int(unix.SIGCHLD)}, prog); err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	return s, nil
}

func (s *sleeper) end() error {
	if err := s.prog.Post(s.gate, 1); err != nil {
		return err
	}
	if _, err := s.child.Wait(); err != nil {
		return err
	}
	return s.prog.Close()
}

func readNumber(path string) (int, error) {
	text, err := procfs.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

func writeNumber(path string, n int) error {
	return os.WriteFile(path, []byte(strconv.Itoa(n)), 0o644)
}
