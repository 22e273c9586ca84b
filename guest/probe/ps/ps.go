// Package ps prints tasks in the columns of procps: "ps -ely", "ps -ejH" and
// "ps -eLf". The guest's own ps has neither threads nor a tree.
package ps

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/guest/probe/procfs"
)

// Options are the listings there are.
var Options = []string{"-ely", "-ejH", "-eLf"}

// Known reports whether option is one of Options.
func Known(option string) bool { return slices.Contains(Options, option) }

// System is where tasks are read and what their numbers are measured by.
type System struct {
	Root  string    // "/", with proc and etc below it
	Now   time.Time // for STIME, which is in its zone
	Page  int       // bytes
	names map[int]string
	ttys  []driver
	boot  time.Time
	up    uint64 // clock ticks
	width int    // digits of the largest pid, 5 at least
}

// Live is the running system.
func Live() System { return System{Root: "/", Now: time.Now(), Page: os.Getpagesize()} }

// task is a row: a process, or one of its threads.
type task struct {
	procfs.Stat
	tgid    int
	uid     int // effective
	wchan   string
	cmdline string // arguments with blanks between; "" for kernel threads
}

// Print writes the listing that option names. A task that ends meanwhile is left out.
func Print(w io.Writer, option string, sys System) error {
	if err := sys.load(); err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	tasks, err := sys.tasks(option == "-eLf")
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	columns := layouts[option]
	depth := make([]int, len(tasks))
	if option == "-ejH" {
		tasks, depth = forest(tasks)
	}
	out := bufio.NewWriter(w)
	row(out, sys.width, columns, func(c column) string { return c.title })
	for i, t := range tasks {
		// Deeper levels share an indent: what a guest can nest, it must not blow up.
		indent := strings.Repeat("  ", min(depth[i], 64))
		row(out, sys.width, columns, func(c column) string {
			if c.title == "CMD" {
				return indent + c.value(&sys, t)
			}
			return c.value(&sys, t)
		})
	}
	return out.Flush()
}

func (sys *System) path(elem ...string) string {
	return filepath.Join(append([]string{sys.Root}, elem...)...)
}

// load reads what is the same for all tasks. Only /proc/stat and /proc/uptime
// must be there.
func (sys *System) load() error {
	text, err := procfs.ReadFile(sys.path("proc/uptime"))
	if err != nil {
		return err
	}
	if sys.up, err = parseUptime(string(text)); err != nil {
		return err
	}
	if text, err = procfs.ReadFile(sys.path("proc/stat")); err != nil {
		return err
	}
	if sys.boot, err = parseBootTime(string(text)); err != nil {
		return err
	}
	text, _ = procfs.ReadFile(sys.path("proc/sys/kernel/pid_max"))
	sys.width = pidWidth(string(text))
	text, _ = procfs.ReadFile(sys.path("etc/passwd"))
	sys.names = parsePasswd(string(text))
	text, _ = procfs.ReadFile(sys.path("proc/tty/drivers"))
	sys.ttys = parseDrivers(string(text))
	return nil
}

// tasks are all processes, or all their threads.
func (sys *System) tasks(threads bool) ([]task, error) {
	pids, err := procfs.IDs(sys.path("proc"))
	if err != nil {
		return nil, err
	}
	var all []task
	for _, pid := range pids {
		dir := sys.path("proc", strconv.Itoa(pid))
		if !threads {
			all, err = sys.add(all, pid, dir, dir)
		} else {
			var tids []int
			tids, err = procfs.IDs(filepath.Join(dir, "task"))
			for i := 0; i < len(tids) && err == nil; i++ {
				all, err = sys.add(all, pid, dir, filepath.Join(dir, "task", strconv.Itoa(tids[i])))
			}
		}
		if err != nil && !procfs.Gone(err) {
			return nil, err
		}
	}
	return all, nil
}

// add appends the task of dir. The command line is the process's.
func (sys *System) add(all []task, pid int, process, dir string) ([]task, error) {
	stat, err := procfs.ReadStat(filepath.Join(dir, "stat"))
	if err != nil {
		return all, skipGone(err)
	}
	status, err := procfs.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return all, skipGone(err)
	}
	uid, err := parseUID(string(status))
	if err != nil {
		return all, fmt.Errorf("%s/status: %w", dir, err)
	}
	// These two may be refused to a user who is not root.
	wchan, _ := procfs.ReadFile(filepath.Join(dir, "wchan"))
	cmdline, _ := procfs.ReadFile(filepath.Join(process, "cmdline"))
	return append(all, task{stat, pid, uid, string(wchan), parseCmdline(cmdline)}), nil
}

func skipGone(err error) error {
	if procfs.Gone(err) {
		return nil
	}
	return err
}

// forest orders tasks as a tree, each after its parent, and returns their depth.
// Siblings stand in order of birth. Roots, whose parent is not in the list,
// stand the other way round, which puts kthreadd before init as procps does.
func forest(tasks []task) (ordered []task, depth []int) {
	byBirth := slices.Clone(tasks)
	slices.SortStableFunc(byBirth, func(a, b task) int {
		return cmp.Or(cmp.Compare(a.StartTime, b.StartTime), cmp.Compare(a.PID, b.PID))
	})
	here := map[int]bool{}
	for _, t := range byBirth {
		here[t.PID] = true
	}
	children := map[int][]task{}
	var roots []task
	for _, t := range byBirth {
		if here[t.PPID] && t.PPID != t.PID {
			children[t.PPID] = append(children[t.PPID], t)
		} else {
			roots = append(roots, t)
		}
	}
	slices.Reverse(roots)
	seen := map[int]bool{}
	var visit func(t task, d int)
	visit = func(t task, d int) {
		if seen[t.PID] {
			return
		}
		seen[t.PID] = true
		ordered, depth = append(ordered, t), append(depth, d)
		for _, c := range children[t.PID] {
			visit(c, d+1)
		}
	}
	for _, t := range roots {
		visit(t, 0)
	}
	// The list is not a snapshot: pids reused while it was read can make a ring.
	for _, t := range byBirth {
		visit(t, 0)
	}
	return ordered, depth
}
