// Package ps prints tasks as procps does: its options, of UNIX and of BSD, its columns
// and its trees. It is the guest's ps.
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
	total uint64 // memory in KB
	Self  int    // pid of who asks, 0 for nobody
	self  task
}

// Live is the running system.
func Live() System {
	return System{Root: "/", Now: time.Now(), Page: os.Getpagesize(), Self: os.Getpid()}
}

// task is a row: a process, or one of its threads.
type task struct {
	procfs.Stat
	tgid    int
	uid     int    // effective
	locked  bool   // pages in memory
	rss     uint64 // in KB, 0 if it is not known
	wchan   string
	cmdline string // arguments with blanks between; "" for kernel threads
}

// Print writes the listing that options ask for, in lines of at most width cells unless
// that is 0. A task that ends meanwhile is left out.
func (l *listing) Print(w io.Writer, width int, sys System) error {
	if err := sys.load(); err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	all, err := sys.tasks(l.threads)
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	var tasks []task
	for _, t := range all {
		if l.wanted(&sys, t) {
			tasks = append(tasks, t)
		}
	}
	slices.SortStableFunc(tasks, func(a, b task) int {
		for _, k := range l.sort {
			if n := k.less(&sys, a, b); n != 0 && k.reverse {
				return -n
			} else if n != 0 {
				return n
			}
		}
		return 0
	})
	lead := make([]string, len(tasks))
	if l.indent || l.art {
		var depth []int
		tasks, depth = forest(tasks)
		lead = leads(depth, l.art)
	}
	if l.wide {
		width = 0
	}
	out := bufio.NewWriter(w)
	columns := slices.Clone(l.columns)
	if last := &columns[len(columns)-1]; last.width < 0 {
		last.width = -1 // nothing is behind it
	}
	if !l.noHeadings && slices.ContainsFunc(columns, func(c column) bool { return c.title != "" }) {
		row(out, width, sys.width, columns, func(c column) string { return c.title })
	}
	for i, t := range tasks {
		row(out, width, sys.width, columns, func(c column) string {
			if c.isName() {
				return lead[i] + c.value(&sys, t)
			}
			return c.value(&sys, t)
		})
	}
	return out.Flush()
}

// maxLevels are the levels of a tree that are told apart: what a guest can nest, it must
// not blow up.
const maxLevels = 64

// leads are what stands before the names in a tree of which the depths are given: blanks,
// or lines as procps draws them.
func leads(depth []int, art bool) []string {
	lead := make([]string, len(depth))
	if !art {
		for i, d := range depth {
			lead[i] = strings.Repeat("  ", min(d, maxLevels))
		}
		return lead
	}
	// From the end, more[d] says that a task of depth d follows before one above it.
	more := make([]bool, maxLevels+1)
	for i := len(depth) - 1; i >= 0; i-- {
		d := min(depth[i], maxLevels)
		var b strings.Builder
		for level := 1; level < d; level++ {
			if more[level] {
				b.WriteString(" |  ")
			} else {
				b.WriteString("    ")
			}
		}
		if d > 0 {
			b.WriteString(` \_ `)
		}
		lead[i] = b.String()
		clear(more[d+1:])
		more[d] = true
	}
	return lead
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
	text, _ = procfs.ReadFile(sys.path("proc/meminfo"))
	sys.total = statusKB(string(text), "MemTotal")
	if sys.Self == 0 {
		return nil
	}
	dir := sys.path("proc", strconv.Itoa(sys.Self))
	self, err := sys.add(nil, sys.Self, dir, dir)
	if err == nil && len(self) == 1 {
		sys.self = self[0]
	}
	return err
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
	return append(all, task{stat, pid, uid, statusKB(string(status), "VmLck") > 0, statusKB(string(status), "VmRSS"), string(wchan), parseCmdline(cmdline)}), nil
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
