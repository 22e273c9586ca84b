package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "schedfiles", Run: schedfiles}) }

// schedFile is a place where the scheduler's state is, or was, to be read.
type schedFile struct {
	Path  string   `json:"path"`
	There bool     `json:"there"`
	Names []string `json:"names,omitempty"` // of a directory
	Rows  int      `json:"rows"`            // lines that begin a task's row in its tables of tasks
	// What the row of the child, and of the thread, has for switches, -1 without a row.
	Child  int64 `json:"child"`
	Thread int64 `json:"thread"`
}

// account is what /proc/TID/sched says of a task.
type account struct {
	TID         int    `json:"tid"`
	Switches    int64  `json:"nr_switches"`
	Voluntary   int64  `json:"nr_voluntary_switches"`
	Involuntary int64  `json:"nr_involuntary_switches"`
	RunNS       int64  `json:"sum_exec_runtime_ns"`
	Policy      int64  `json:"policy"`
	Prio        int64  `json:"prio"`
	Text        string `json:"text"` // the file
}

// naps is how often the child goes to sleep and is woken; the thread does so half as often.
const naps = 12

// schedfiles has a child and a thread sleep and be woken, and reads what the scheduler's files say of them.
var schedfiles = staged("schedfiles", "FUTEX_WAIT in a child and a thread, /proc/TID/sched, sched_debug in /proc and debugfs", schedfilesOn)

func schedfilesOn(ctx context.Context, st *stage) error {
	debugfs, err := openDebugfs()
	if err != nil {
		return err
	}
	if debugfs >= 0 {
		defer unix.Close(debugfs)
	}
	sleepers := []*script{}
	for i, role := range []string{"thread", "child"} {
		s, err := newScript(role)
		if err != nil {
			return err
		}
		var acts []int
		for range naps / (2 - i) {
			acts = append(acts, s.act())
		}
		if err := st.spawn(s, [...]rawclone.Args{threaded, forked}[i]); err != nil {
			return err
		}
		sleepers = append(sleepers, s)
		for _, act := range acts {
			if err := s.asleep(ctx); err != nil {
				return err
			}
			if err := s.play(ctx, act); err != nil {
				return err
			}
		}
	}
	for _, s := range sleepers {
		if err := s.asleep(ctx); err != nil {
			return err
		}
		a, err := accountOf(s.child.TID)
		if err != nil {
			return err
		}
		st.data[s.role] = a
	}
	var files []schedFile
	for _, path := range []string{"/proc/sched_debug", "debugfs/sched/debug", "debugfs/sched"} {
		f := schedFile{Path: path, Child: -1, Thread: -1}
		real := path
		if rest, ok := strings.CutPrefix(path, "debugfs"); ok {
			real = fmt.Sprintf("/proc/self/fd/%d%s", debugfs, rest)
		}
		if err := f.read(real, sleepers[1].child.TID, sleepers[0].child.TID); err != nil {
			return err
		}
		files = append(files, f)
	}
	st.data["files"] = files
	return probe.Look("asleep", map[string][]int64{"child": {int64(sleepers[1].child.TID)}, "thread": {int64(sleepers[0].child.TID)}})
}

// asleep waits until the task sleeps.
func (s *script) asleep(ctx context.Context) error {
	for {
		stat, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/stat", s.child.TID))
		if err != nil || stat.State == 'S' {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("task %d does not sleep: %w", s.child.TID, context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

// openDebugfs opens a mount of debugfs that is mounted nowhere, -1 where that is not to be had. Kernels
// without fsopen (24dcb3d90a1f) have no file of the scheduler there that is looked for.
func openDebugfs() (int, error) {
	name, err := unix.Fsopen("debugfs", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("open debugfs: %w", err)
	}
	defer unix.Close(name)
	if err := unix.FsconfigCreate(name); err != nil {
		return -1, fmt.Errorf("open debugfs: %w", err)
	}
	mount, err := unix.Fsmount(name, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount debugfs: %w", err)
	}
	return mount, nil
}

func (f *schedFile) read(path string, child, thread int) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f.There = true
	if info.IsDir() {
		list, err := os.ReadDir(path)
		for _, e := range list {
			f.Names = append(f.Names, filepath.Base(e.Name()))
		}
		return err
	}
	text, err := procfs.ReadFile(path)
	if err != nil {
		return err
	}
	rows := parseSchedDebug(string(text))
	f.Rows = len(rows)
	if n, ok := rows[child]; ok {
		f.Child = n
	}
	if n, ok := rows[thread]; ok {
		f.Thread = n
	}
	return nil
}

// parseSchedDebug reads the tables "runnable tasks", which have a row for each task of a CPU, and gives each
// task's switches. The columns behind PID are found by the table's head, which kernels have changed.
func parseSchedDebug(text string) map[int]int64 {
	rows := map[int]int64{}
	var head []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if i := slices.Index(words, "PID"); i > 0 && slices.Contains(words, "switches") {
			head = words[i:]
			continue
		}
		if len(words) == 0 {
			head = nil
		}
		column := slices.Index(head, "switches")
		if column < 0 {
			continue
		}
		// The name in front of the PID may have blanks, and may be a number: the PID is the first number
		// behind the name's first word, and has a number where the head has switches. The mark of the
		// task that runs, or its state, may stand before the name.
		// A slice that the task has asked for is marked by an S of its own, which the head does not have.
		if len(words) > 2 {
			words = append(words[:2:2], slices.DeleteFunc(words[2:], func(word string) bool { return word == "S" })...)
		}
		for i := 1; i+column < len(words); i++ {
			pid, perr := strconv.Atoi(words[i])
			n, nerr := strconv.ParseInt(words[i+column], 10, 64)
			if perr == nil && nerr == nil {
				rows[pid] = n
				break
			}
		}
	}
	return rows
}

// accountOf reads /proc/TID/sched.
func accountOf(tid int) (account, error) {
	path := fmt.Sprintf("/proc/%d/sched", tid)
	text, err := procfs.ReadFile(path)
	if err != nil {
		return account{}, err
	}
	a, err := parseSched(string(text))
	if err != nil {
		return account{}, fmt.Errorf("%s: %w", path, err)
	}
	a.TID = tid
	return a, nil
}

// parseSched reads lines "name : value". Times are milliseconds with the nanoseconds as six digits.
func parseSched(text string) (account, error) {
	a := account{Text: text}
	want := map[string]*int64{"nr_switches": &a.Switches, "nr_voluntary_switches": &a.Voluntary, "nr_involuntary_switches": &a.Involuntary,
		"se.sum_exec_runtime": &a.RunNS, "policy": &a.Policy, "prio": &a.Prio}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		into, ok := want[strings.TrimSpace(name)]
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if into == &a.RunNS {
			ms, rest, _ := strings.Cut(value, ".")
			if len(rest) != 6 {
				return a, fmt.Errorf("%.80q is no time", line)
			}
			value = ms + rest
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return a, fmt.Errorf("%.80q is no number", line)
		}
		*into = n
		delete(want, strings.TrimSpace(name))
	}
	if len(want) > 0 {
		return a, fmt.Errorf("%d of its lines are missing", len(want))
	}
	return a, nil
}
