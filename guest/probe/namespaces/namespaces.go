// Package namespaces holds the probe that makes a child in each kind of new
// namespace, one by one, and looks what is different in it.
package namespaces

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "namespaces", Run: run}) }

// kinds are the files of /proc/PID/ns that say what a task is in.
var kinds = []string{"mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"}

// trials are the flags that make one new namespace each, none, and the six of
// the article that the lab follows at once.
var trials = []struct {
	name  string
	flags uint64
}{
	{"none", 0},
	{"mnt", unix.CLONE_NEWNS},
	{"uts", unix.CLONE_NEWUTS},
	{"ipc", unix.CLONE_NEWIPC},
	{"pid", unix.CLONE_NEWPID},
	{"net", unix.CLONE_NEWNET},
	{"user", unix.CLONE_NEWUSER},
	{"cgroup", unix.CLONE_NEWCGROUP},
	{"time", unix.CLONE_NEWTIME}, // a bit of CSIGNAL: clone cannot carry it, clone3 can
	{"six", unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUSER},
}

// row is a child in one trial.
type row struct {
	Flags uint64 `json:"flags"`
	Errno string `json:"errno"` // of the call; the rest is empty then
	TID   int    `json:"tid"`   // as the call returned it, outside
	// Differ are the kinds of namespaces that are not its parent's.
	Differ []string `json:"differ"`
	// As the child sees itself: of UID before a map is written and afterwards.
	PID    int    `json:"pid"`
	PPID   int    `json:"ppid"`
	UID    int    `json:"uid"`
	Mapped int    `json:"mapped"`
	NSPID  []int  `json:"nspid"` // its numbers from the outside in, of /proc/PID/status
	Map    string `json:"map"`   // the errno of writing its map of user ids, "" when it was written
	// What it has changed, and what is seen of it inside and outside.
	Hostname string   `json:"hostname"` // the child's, after a sethostname where UTS is new
	Outside  string   `json:"outside"`  // its parent's then
	Mount    [2]bool  `json:"mount"`    // its mount, where mnt is new
	Segment  bool     `json:"segment"`  // its System V memory, by its key outside
	Links    []string `json:"links"`    // its network interfaces
	Socket   bool     `json:"socket"`   // whether a socket of its parent's is in its network
}

func run(ctx context.Context, raw json.RawMessage) (_ *wire.ProbeResult, err error) {
	if err := probe.Params(raw, &struct{}{}); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	socket, close, err := listen()
	if err != nil {
		return nil, err
	}
	defer close()
	res := &wire.ProbeResult{
		Probe:  "namespaces",
		Method: "raw clone, clone3 for time; /proc/PID/ns of the child compared with its maker's",
		Tasks:  []wire.Task{probe.Self()},
	}
	rows := map[string]row{}
	for _, t := range trials {
		r, task, err := try(ctx, t.flags, socket)
		if err != nil {
			return nil, fmt.Errorf("flags %#x: %w", t.flags, err)
		}
		rows[t.name] = r
		if task != nil {
			res.Tasks = append(res.Tasks, *task)
		}
	}
	res.Data = map[string]any{"rows": rows}
	if res.Data["overflow"], err = overflowUID(); err != nil {
		return nil, err
	}
	return res, nil
}

// try makes a child, looks at it, and ends it. There is no task where the kernel
// refuses.
func try(ctx context.Context, flags uint64, socket string) (row, *wire.Task, error) {
	r := row{Flags: flags, Differ: []string{}, NSPID: []int{}, Links: []string{}}
	c, err := newChild(flags)
	if err != nil {
		return r, nil, err
	}
	kind := rawclone.Clone
	if flags&unix.CLONE_NEWTIME != 0 {
		kind = rawclone.Clone3
	}
	child, err := rawclone.Spawn(kind, rawclone.Args{Flags: flags, ExitSignal: int(unix.SIGCHLD)}, c.prog)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno, err = unix.ErrnoName(errno), nil
		}
		return r, nil, errors.Join(err, c.prog.Close())
	}
	r.TID = child.TID
	asked := &wire.Asked{Syscall: child.Syscall, Flags: child.Flags, ExitSignal: child.ExitSignal}
	err = c.look(ctx, &r, child.TID, socket)
	if err != nil {
		unix.Kill(child.TID, unix.SIGKILL) // it may be anywhere on its way
	}
	status, werr := child.Wait()
	if err = errors.Join(err, werr); err != nil {
		return r, nil, err // the memory stays: the child may still use it
	}
	r.PID, r.PPID = int(c.prog.Get(c.pid)), int(c.prog.Get(c.ppid))
	r.UID, r.Mapped = int(c.prog.Get(c.uid)), int(c.prog.Get(c.mapped))
	r.Hostname = text(c.prog.Bytes(c.name, utsBytes)[utsField:])
	failed := c.failed()
	rawStatus := int(status)
	task := &wire.Task{Role: "child", PID: r.TID, TID: r.TID, TGID: r.TID, PPID: unix.Getpid(), Asked: asked, Status: &rawStatus}
	return r, task, errors.Join(failed, c.prog.Close())
}

// The name, key and mount that a child leaves in its namespaces.
const (
	hostname = "inside"
	key      = 0x6c616273
	mount    = "labctl-namespaces" // the mount's source
)

// struct utsname has six fields of 65 bytes; the second is the node's name.
const utsField, utsBytes = 65, 2 * 65

// child is the program of the child and the words that it reports in. It stops
// twice: when it has done what it does, and when its user ids are mapped.
type child struct {
	prog        *rawclone.Program
	stage, gate rawclone.Word
	pid, ppid   rawclone.Word
	uid, mapped rawclone.Word
	name        rawclone.Word
	must        map[string]rawclone.Word // results of calls that must not fail
}

func newChild(flags uint64) (*child, error) {
	p, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	c := &child{prog: p, stage: p.Var(0), gate: p.Var(0), must: map[string]rawclone.Word{}}
	c.pid, c.ppid = p.Syscall(unix.SYS_GETPID), p.Syscall(unix.SYS_GETPPID)
	c.uid = p.Syscall(unix.SYS_GETUID)
	if flags&unix.CLONE_NEWUTS != 0 {
		c.must["sethostname"] = p.Syscall(unix.SYS_SETHOSTNAME, p.Addr(p.CString(hostname)), p.Const(uintptr(len(hostname))))
	}
	c.name = p.Buffer(6 * utsField)
	p.Syscall(unix.SYS_UNAME, p.Addr(c.name))
	c.must["shmget"] = p.Syscall(unix.SYS_SHMGET, p.Const(key), p.Const(1), p.Const(unix.IPC_CREAT|0o600))
	if flags&unix.CLONE_NEWNS != 0 {
		// What is mounted here must not go out, whatever / was made.
		root := p.Addr(p.CString("/"))
		p.Syscall(unix.SYS_MOUNT, rawclone.Word{}, root, rawclone.Word{}, p.Const(unix.MS_REC|unix.MS_PRIVATE))
		c.must["mount"] = p.Syscall(unix.SYS_MOUNT, p.Addr(p.CString(mount)), p.Addr(p.CString("/tmp")), p.Addr(p.CString("tmpfs")))
	}
	p.Add(c.stage, p.Const(1))
	p.FutexWait(c.gate, 0)
	c.mapped = p.Syscall(unix.SYS_GETUID)
	p.Exit(0)
	return c, nil
}

// failed says which call of the child failed that must not.
func (c *child) failed() error {
	for name, w := range c.must {
		if _, err := c.prog.Result(w); err != nil {
			return fmt.Errorf("%s in the child: %w", name, err)
		}
	}
	return nil
}

// look fills in what is seen from outside while the child sleeps, maps its user
// ids where it has none, and lets it end.
func (c *child) look(ctx context.Context, r *row, tid int, socket string) error {
	if err := c.prog.Await(ctx, c.stage, 1); err != nil {
		return err
	}
	dir := fmt.Sprintf("/proc/%d", tid)
	for _, k := range kinds {
		inside, err := os.Readlink(dir + "/ns/" + k)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without this kind
		}
		outside, oerr := os.Readlink("/proc/self/ns/" + k)
		if err = errors.Join(err, oerr); err != nil {
			return err
		}
		if inside != outside {
			r.Differ = append(r.Differ, k)
		}
	}
	var err error
	if r.NSPID, err = nsPIDs(dir + "/status"); err != nil {
		return err
	}
	if r.Outside, err = os.Hostname(); err != nil {
		return err
	}
	for i, d := range []string{dir, "/proc/self"} {
		if r.Mount[i], err = mounted(d+"/mountinfo", mount); err != nil {
			return err
		}
	}
	if r.Links, err = links(dir + "/net/dev"); err != nil {
		return err
	}
	if r.Socket, err = hasSocket(dir+"/net/unix", socket); err != nil {
		return err
	}
	r.Segment = removeSegment()
	if slices.Contains(r.Differ, "user") {
		// Root inside is who made it.
		line := fmt.Sprintf("0 %d 1\n", unix.Getuid())
		r.Map = errnoName(os.WriteFile(dir+"/uid_map", []byte(line), 0))
	}
	return c.prog.Post(c.gate, 1)
}

// removeSegment reports whether the child's System V memory is to be had by its key
// here, and removes it.
func removeSegment() bool {
	id, err := unix.SysvShmGet(key, 0, 0)
	if err != nil {
		return false
	}
	unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return true
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}
