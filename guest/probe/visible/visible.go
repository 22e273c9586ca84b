// Package visible holds the probe that looks for a thread in /proc.
package visible

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/probe/ps"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "visible", Run: run}) }

// threadName is the thread's in the kernel.
const threadName = "hidden"

// view is where one task can be found in /proc.
type view struct {
	TID    int    `json:"tid"`
	Listed bool   `json:"listed"` // in the directory /proc
	Opened bool   `json:"opened"` // /proc/TID/status opens and reads
	Errno  string `json:"errno"`  // why not: "ENOENT"
	InTask bool   `json:"in_task"`
	// Of the file that was opened: the kernel's tgid and pid.
	StatusTGID int `json:"status_tgid"`
	StatusPID  int `json:"status_pid"`
}

// run makes one thread and looks for it while it lives and when it has ended.
func run(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	ready, leave := prog.Var(0), prog.Var(0)
	prog.Syscall(unix.SYS_PRCTL, prog.Const(unix.PR_SET_NAME), prog.Addr(prog.CString(threadName)))
	pid, tid, ppid := prog.Syscall(unix.SYS_GETPID), prog.Syscall(unix.SYS_GETTID), prog.Syscall(unix.SYS_GETPPID)
	prog.Add(ready, prog.Const(1))
	prog.FutexWait(leave, 0)
	prog.Exit(0)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()
	child, err := rawclone.Spawn(rawclone.Clone, rawclone.Args{Flags: rawclone.PThreadFlags}, prog)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	data := map[string]any{"returned": child.TID}
	err = prog.Await(ctx, ready, 1)
	if err == nil {
		err = alive(data, self.PID, child.TID)
	}
	if werr := errors.Join(prog.Post(leave, 1), waited(child)); werr != nil {
		return nil, errors.Join(err, werr) // prog's memory stays: the thread may still use it
	}
	if err == nil {
		data["after"], err = look(self.PID, child.TID)
	}
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	return &wire.ProbeResult{
		Probe:  "visible",
		Method: "raw clone, readdir and open of /proc, exit, joined by futex",
		Tasks: []wire.Task{self, {
			Role: "thread", Comm: threadName,
			PID: int(prog.Get(pid)), TID: int(prog.Get(tid)), TGID: int(prog.Get(pid)), PPID: int(prog.Get(ppid)),
			Asked: &wire.Asked{Syscall: child.Syscall, Flags: child.Flags},
		}},
		Data: data,
	}, prog.Close()
}

func waited(c *rawclone.Child) error {
	_, err := c.Wait()
	return err
}

// alive fills in what there is to see while the thread lives.
func alive(data map[string]any, pid, tid int) (err error) {
	for name, id := range map[string]int{"leader": pid, "thread": tid} {
		if data[name], err = look(pid, id); err != nil {
			return err
		}
	}
	// The directory of the thread's own number has the whole group, too.
	if data["through"], err = procfs.IDs(fmt.Sprintf("/proc/%d/task", tid)); err != nil {
		return err
	}
	comm, err := procfs.ReadFile(fmt.Sprintf("/proc/%d/comm", tid))
	if err != nil {
		return err
	}
	data["comm"] = strings.TrimSpace(string(comm))
	data["execute"] = execute(fmt.Sprintf("/proc/%d/comm", tid))
	for name, option := range map[string]string{"ps_ely": "-ely", "ps_elf": "-eLf"} {
		if data[name], err = rows(option, pid); err != nil {
			return err
		}
	}
	return nil
}

// look finds out where a task of the process pid is to be seen.
func look(pid, id int) (v view, err error) {
	v = view{TID: id}
	listed, err := procfs.IDs("/proc")
	if err != nil {
		return v, err
	}
	v.Listed = slices.Contains(listed, id)
	tasks, err := procfs.IDs(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return v, err
	}
	v.InTask = slices.Contains(tasks, id)
	status, err := procfs.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "status"))
	if err != nil {
		v.Errno = errnoName(err)
		return v, nil
	}
	v.Opened = true
	if v.StatusTGID, err = field(string(status), "Tgid:"); err != nil {
		return v, err
	}
	v.StatusPID, err = field(string(status), "Pid:")
	return v, err
}

// field reads a number of /proc/PID/status.
func field(status, key string) (int, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return 0, fmt.Errorf("/proc status: no line %s", key)
}

// execute tries to run a file as a program and returns the errno's name, "" when
// it ran.
func execute(path string) string {
	p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{})
	if err != nil {
		return errnoName(err)
	}
	p.Wait()
	return ""
}

func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "ENOENT"
	}
	return err.Error()
}

// rows are the lines of a listing whose PID is pid.
func rows(option string, pid int) ([]string, error) {
	var out strings.Builder
	listing, err := ps.Parse([]string{option})
	if err != nil {
		return nil, err
	}
	if err := listing.Print(&out, 0, ps.Live()); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	found := []string{}
	for _, line := range lines[1:] {
		if f := strings.Fields(line); column >= 0 && column < len(f) && f[column] == strconv.Itoa(pid) {
			found = append(found, line)
		}
	}
	return found, nil
}
