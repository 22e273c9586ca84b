// Package pingpong holds the probe that has two tasks hand the CPU to each other.
//
// Both are kept to one CPU, and each blocks on a pipe that the other writes to:
// every turn is one voluntary context switch. Whether they share an address space
// is up to the caller's flags.
package pingpong

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "pingpong", Run: run}) }

// maxRounds is what fits into a program: it has no loops that count.
const maxRounds = 100

func run(ctx context.Context, raw json.RawMessage) (res *wire.ProbeResult, err error) {
	p := struct {
		Flags  uint64 `json:"flags"`
		Rounds int    `json:"rounds"`
	}{Rounds: 30}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Flags != 0 && p.Flags != unix.CLONE_VM && p.Flags != rawclone.PThreadFlags:
		return nil, probe.Paramf("flags %#x: give 0, CLONE_VM (%#x) or those of a thread (%#x)", p.Flags, unix.CLONE_VM, rawclone.PThreadFlags)
	case p.Rounds < 1 || p.Rounds > maxRounds:
		return nil, probe.Paramf("rounds %d: give 1 to %d", p.Rounds, maxRounds)
	}
	var pipes [2][2]int
	for i := range pipes {
		if err := unix.Pipe2(pipes[i][:], unix.O_CLOEXEC); err != nil {
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		defer unix.Close(pipes[i][0])
		defer unix.Close(pipes[i][1])
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu, err := lastCPU()
	if err != nil {
		return nil, err
	}
	res = &wire.ProbeResult{
		Probe:  "pingpong",
		Method: "two raw clones on one CPU, each reading what the other writes",
		Tasks:  []wire.Task{probe.Self()},
	}
	var players []*player
	defer func() {
		for _, q := range players {
			err = errors.Join(err, q.prog.Close())
		}
	}()
	for i, name := range []string{"ping", "pong"} {
		q, err := newPlayer(name, cpu, pipes[i][0], pipes[1-i][1], p.Rounds)
		if err != nil {
			return nil, err
		}
		players = append(players, q)
	}
	stop := context.AfterFunc(ctx, func() {
		for _, q := range pipes { // with nothing to read any more both come to their end
			unix.Write(q[1], make([]byte, maxRounds))
		}
	})
	defer stop()
	for _, q := range players {
		if q.child, err = rawclone.Spawn(rawclone.Clone, args(p.Flags), q.prog); err != nil {
			unix.Write(pipes[0][1], make([]byte, maxRounds)) // lets the first one go
			break
		}
	}
	start := time.Now()
	if err == nil {
		_, err = unix.Write(pipes[0][1], []byte{1})
	}
	counts := map[string]any{}
	for _, q := range players {
		if q.child == nil {
			continue
		}
		task := wire.Task{
			Role: "child", Comm: q.name, PID: q.child.TID, TID: q.child.TID, TGID: q.child.TID, PPID: os.Getpid(),
			Asked: &wire.Asked{Syscall: q.child.Syscall, Flags: q.child.Flags, ExitSignal: q.child.ExitSignal},
		}
		if q.child.Thread() {
			task.PID, task.TGID, task.PPID = os.Getpid(), os.Getpid(), os.Getppid()
		}
		status, waitErr := q.child.Wait()
		if err = errors.Join(err, waitErr); waitErr == nil && !q.child.Thread() {
			raw := int(status)
			task.Status = &raw
		}
		res.Tasks = append(res.Tasks, task)
		counts[q.name] = q.switches()
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	res.Data = map[string]any{
		"cpu": cpu, "rounds": p.Rounds,
		"voluntary": counts, // context switches of each by its own doing, getrusage's ru_nvcsw
		"ns":        time.Since(start).Nanoseconds(),
	}
	return res, err
}

func args(flags uint64) rawclone.Args {
	if flags&unix.CLONE_THREAD != 0 {
		return rawclone.Args{Flags: flags}
	}
	return rawclone.Args{Flags: flags, ExitSignal: int(unix.SIGCHLD)}
}

// player is one of the two.
type player struct {
	name  string
	prog  *rawclone.Program
	usage rawclone.Word // struct rusage
	child *rawclone.Child
}

// newPlayer reads a byte and writes one, so many times.
func newPlayer(name string, cpu, from, to, rounds int) (*player, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	q := &player{name: name, prog: prog, usage: prog.Buffer(int(unsafe.Sizeof(unix.Rusage{})))}
	prog.Syscall(unix.SYS_PRCTL, prog.Const(unix.PR_SET_NAME), prog.Addr(prog.CString(name)))
	var set unix.CPUSet
	set.Set(cpu)
	size := int(unsafe.Sizeof(set))
	mask := prog.Buffer(size)
	if mask != (rawclone.Word{}) {
		copy(prog.Bytes(mask, size), unsafe.Slice((*byte)(unsafe.Pointer(&set)), size))
	}
	prog.Syscall(unix.SYS_SCHED_SETAFFINITY, prog.Const(0), prog.Const(uintptr(size)), prog.Addr(mask))
	// A batch task does not preempt whoever wakes it (check_preempt_wakeup in
	// kernel/sched/fair.c): the writer goes on to its read, and leaves by itself.
	const batch = 3 // SCHED_BATCH
	prog.Syscall(unix.SYS_SCHED_SETSCHEDULER, prog.Const(0), prog.Const(batch), prog.Addr(prog.Buffer(8)))
	one := prog.Const(1)
	token := prog.Addr(prog.Buffer(1))
	for range rounds {
		prog.Syscall(unix.SYS_READ, prog.Const(uintptr(from)), token, one)
		prog.Syscall(unix.SYS_WRITE, prog.Const(uintptr(to)), token, one)
	}
	const thread = 1 // RUSAGE_THREAD
	prog.Syscall(unix.SYS_GETRUSAGE, prog.Const(thread), prog.Addr(q.usage))
	prog.Exit(0)
	return q, nil
}

// switches are those that the task made by blocking.
func (q *player) switches() int64 {
	var r unix.Rusage
	size := int(unsafe.Sizeof(r))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), size), q.prog.Bytes(q.usage, size))
	return int64(r.Nvcsw)
}

// lastCPU is the highest one that we may run on: the lowest has most to do.
func lastCPU() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for cpu := len(set)*int(unsafe.Sizeof(set[0]))*8 - 1; cpu >= 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, errors.New("sched_getaffinity: no CPU")
}
