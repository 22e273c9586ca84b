package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"labctl/guest/wire"
)

// Bounds of what is taken of one task.
const (
	maxStackBytes = 16 << 10
	maxFrames     = 128 // the kernel's own bound is 64
	tries         = 3
)

// sleepers sends every task that sleeps, with its stack in the kernel.
func (s *session) sleepers(out *wire.Sender, p wire.SleepersParams) (any, error) {
	var done wire.Slept
	if p.Max < 1 {
		return done, fmt.Errorf("sleepers: at most %d tasks: want 1 or more", p.Max)
	}
	w := newWholeWriter(out, s.chunk())
	err := eachTask(s.guest.Proc, func(pid, tid int) error {
		done.Tasks++
		if done.Sleepers == p.Max {
			done.More = true
			return io.EOF
		}
		t, ok := sleeper(filepath.Join(s.guest.Proc, strconv.Itoa(pid), "task", strconv.Itoa(tid)), pid, tid)
		if !ok {
			return nil
		}
		done.Sleepers++
		return json.NewEncoder(w).Encode(t)
	})
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return done, errors.Join(err, w.Flush(), out.Close())
}

// eachTask calls f for every thread of every process, until it gives an error.
func eachTask(proc string, f func(pid, tid int) error) error {
	pids, err := numbers(proc)
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	for _, pid := range pids {
		tids, err := numbers(filepath.Join(proc, strconv.Itoa(pid), "task"))
		if err != nil {
			continue // it has ended since
		}
		for _, tid := range tids {
			if err := f(pid, tid); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbers lists the entries of a directory that are numbers, in their order.
func numbers(dir string) (out []int, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out, err
}

// sleeper looks at one task in its directory of procfs. It is taken again while it
// has run meanwhile; a task that runs or has ended is none.
func sleeper(dir string, pid, tid int) (t wire.Sleeper, ok bool) {
	for range tries {
		before, err := readSome(filepath.Join(dir, "schedstat"), 256)
		if err != nil {
			before = ""
		}
		stat, err := readSome(filepath.Join(dir, "stat"), 4<<10)
		if err != nil {
			return t, false
		}
		if t, ok = parseStat(stat); !ok || !strings.Contains("SDITt", t.State) {
			return t, false
		}
		t.PID, t.TID = pid, tid
		if w, err := readSome(filepath.Join(dir, "wchan"), 256); err == nil && w != "0" {
			t.Wchan = w
		}
		t.Syscall, _ = readSome(filepath.Join(dir, "syscall"), 256)
		stack, err := readSome(filepath.Join(dir, "stack"), maxStackBytes)
		if err != nil {
			return t, false
		}
		for line := range strings.Lines(stack) {
			if len(t.Stack) < maxFrames {
				t.Stack = append(t.Stack, strings.TrimSpace(line))
			}
		}
		// Its time on a CPU and how often it got one.
		after, err := readSome(filepath.Join(dir, "schedstat"), 256)
		if err != nil || after == before {
			return t, true
		}
		t.Moved = true
	}
	return t, true
}

// kthreadFlag is PF_KTHREAD of include/linux/sched.h.
const kthreadFlag = 0x00200000

// parseStat takes name, state, parent and flags from a stat file of procfs:
// "1 (labinit) S 0 1 1 0 -1 4194560 …". The name can hold anything, also ") ".
func parseStat(text string) (t wire.Sleeper, ok bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return t, false
	}
	t.Comm = text[open+1 : end]
	f := strings.Fields(text[end+1:])
	if len(f) < 7 {
		return t, false
	}
	t.State = f[0]
	ppid, err := strconv.Atoi(f[1])
	flags, err2 := strconv.ParseUint(f[6], 10, 64)
	t.PPID, t.Kernel = ppid, flags&kthreadFlag != 0
	return t, err == nil && err2 == nil
}
