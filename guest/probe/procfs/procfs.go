// Package procfs reads tasks from /proc.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Hz is USER_HZ, the unit of the times in /proc: 100 on every architecture of
// ours, whatever CONFIG_HZ is.
const Hz = 100

// PFKthread is PF_KTHREAD of include/linux/sched.h, in Stat.Flags.
const PFKthread = 0x200000

// maxFile bounds what is read of one file. The longest, cmdline, is unbounded
// in the kernel.
const maxFile = 64 << 10

// Stat is a line of /proc/PID/stat or /proc/PID/task/TID/stat, see proc(5) and
// do_task_stat in fs/proc/array.c. A PID's line sums up its threads' times.
type Stat struct {
	PID        int    // in a thread's line, its thread id
	Comm       string // as the task set it: any bytes
	State      byte   // "RSDTtXZPI"
	PPID       int
	PGRP       int
	Session    int
	TTY        int // device number, 0 for none
	TPGID      int // foreground process group of the terminal, -1 for none
	Flags      uint64
	MinFlt     uint64 // page faults that read nothing from a disk
	MajFlt     uint64 // page faults that did
	UTime      uint64 // clock ticks
	STime      uint64 // clock ticks
	Priority   int
	Nice       int
	Threads    int
	StartTime  uint64 // clock ticks since boot
	VSize      uint64 // bytes
	RSS        int64  // pages
	ExitSignal int    // what its parent gets when it ends; -1 of a thread
	Processor  int    // CPU that it ran on last
	RTPriority int    // 1 to 99, 0 for others
	Policy     int    // SCHED_*, include/uapi/linux/sched.h
}

// KernelThread reports whether the task has PF_KTHREAD.
func (s Stat) KernelThread() bool { return s.Flags&PFKthread != 0 }

// ParseStat reads one stat line. The comm may hold any byte but NUL, blanks and
// parentheses included: it ends at the line's last closing one.
func ParseStat(line []byte) (Stat, error) {
	var s Stat
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return s, fmt.Errorf("stat line %.40q: no (comm)", line)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	if err != nil || pid < 0 {
		return s, fmt.Errorf("stat line %.40q: no pid", line)
	}
	s.PID, s.Comm = pid, string(line[open+1:end])
	fields := bytes.Fields(line[end+1:]) // fields[0] is field 3 of proc(5)
	if len(fields) < 39 || len(fields[0]) != 1 {
		return s, fmt.Errorf("stat line of %d: %d fields after the comm, want 39 or more, the state first", pid, len(fields))
	}
	s.State = fields[0][0]
	for _, f := range []struct {
		number int
		into   any
	}{
		{4, &s.PPID}, {5, &s.PGRP}, {6, &s.Session}, {7, &s.TTY}, {8, &s.TPGID}, {9, &s.Flags}, {10, &s.MinFlt}, {12, &s.MajFlt}, {14, &s.UTime}, {15, &s.STime},
		{18, &s.Priority}, {19, &s.Nice}, {20, &s.Threads}, {22, &s.StartTime}, {23, &s.VSize}, {24, &s.RSS},
		{38, &s.ExitSignal}, {39, &s.Processor}, {40, &s.RTPriority}, {41, &s.Policy},
	} {
		text := string(fields[f.number-3])
		switch into := f.into.(type) {
		case *int:
			*into, err = strconv.Atoi(text)
		case *int64:
			*into, err = strconv.ParseInt(text, 10, 64)
		case *uint64:
			*into, err = strconv.ParseUint(text, 10, 64)
		}
		if err != nil {
			return s, fmt.Errorf("stat line of %d: field %d: %w", pid, f.number, err)
		}
	}
	return s, nil
}

// ReadFile reads at most 64 KiB of a file.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// Gone reports whether err is what reading a task's file gives once the task has
// ended: no such file before the open, ESRCH after it.
func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// ReadStat reads a stat file.
func ReadStat(path string) (Stat, error) {
	line, err := ReadFile(path)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(line)
}

// IDs lists a directory's entries that are numbers, in rising order: the
// processes of /proc, the threads of /proc/PID/task.
func IDs(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil && id > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Processes reads the stat of every process below root, "/proc". One that ends
// meanwhile is left out.
func Processes(root string) ([]Stat, error) {
	ids, err := IDs(root)
	if err != nil {
		return nil, err
	}
	var stats []Stat
	for _, id := range ids {
		s, err := ReadStat(filepath.Join(root, strconv.Itoa(id), "stat"))
		if Gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		stats = append(stats, s)
	}
	return stats, nil
}

// maxStack bounds the functions of a stack. The kernel prints at most 64
// (MAX_STACK_TRACE_DEPTH, fs/proc/base.c).
const maxStack = 64

// ParseStack reads /proc/PID/stack, "[<0>] do_wait+0x164/0x240" a line, the
// innermost first, and returns the functions. Lines of another form are passed over.
func ParseStack(text []byte) []string {
	var names []string
	for line := range bytes.Lines(text) {
		_, frame, ok := bytes.Cut(line, []byte("] "))
		name, _, hasOffset := bytes.Cut(bytes.TrimSpace(frame), []byte("+0x"))
		if ok && hasOffset && len(name) > 0 && len(names) < maxStack {
			names = append(names, string(name))
		}
	}
	return names
}

// ReadStack reads the functions that a sleeping task is in.
func ReadStack(path string) ([]string, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseStack(text), nil
}
