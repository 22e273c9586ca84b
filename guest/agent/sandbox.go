package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// A sandbox is a thread of this process that has left its mount namespace for one
// with a small root of its own, and has given up what programs started from it must
// not have. A process gets its namespaces, its root and its credentials from the
// thread that makes it, so a program starts in the sandbox without a process
// between it and the agent: nothing is in its trace that is not its own doing, and
// nothing is translated that the emulator has not translated before.

// sandboxUser is the user and the group that sandboxed programs are.
const sandboxUser = 1000

// sandboxRoot is where a sandbox's root is mounted, in its own namespace only.
const sandboxRoot = "/labctl/sandbox"

// Bounds of a sandbox. The guest is one program's: what these keep whole is the
// agent, which has to say what happened.
const (
	sandboxTasks = 400
	sandboxFiles = "size=64m,nr_inodes=10000"
	// sandboxShare is the part of the guest's memory that programs may take: 3/4.
	sandboxShareOf, sandboxShare = 4, 3
)

// sandboxes are those of a session, by the privileges of their programs.
type sandboxes struct {
	mu      sync.Mutex
	threads map[string]*sandbox
	cgroup  *cgroup // nil where the kernel has none that a program can be started in
	over    bool
}

func (s *sandboxes) get(privileges []string) (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, errors.New("session is over")
	}
	privileges = slices.Compact(slices.Sorted(slices.Values(privileges)))
	key := strings.Join(privileges, " ")
	if b := s.threads[key]; b != nil {
		return b, nil
	}
	var r rights
	for _, name := range privileges {
		p, ok := wire.FindPrivilege(name)
		if !ok {
			return nil, fmt.Errorf("sandbox: no privilege %q", clip(name, 40))
		}
		r.add(p)
	}
	if r.namespace && (len(r.files) > 0 || len(r.capabilities) > 0) {
		return nil, fmt.Errorf("sandbox: privileges %s: a user namespace goes with no others", key)
	}
	if s.cgroup == nil {
		s.cgroup = newCgroup("/sys/fs/cgroup")
	}
	b := &sandbox{rights: r, cgroup: s.cgroup, work: make(chan func())}
	if err := b.begin(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if s.threads == nil {
		s.threads = map[string]*sandbox{}
	}
	s.threads[key] = b
	return b, nil
}

// end ends the threads.
func (s *sandboxes) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, b := range s.threads {
		close(b.work)
	}
	s.threads = nil
	if s.cgroup != nil {
		s.cgroup.close()
	}
}

// rights are what programs of a sandbox may do beyond the ordinary.
type rights struct {
	files        []string
	capabilities []uintptr
	namespace    bool
}

func (r *rights) add(p wire.Privilege) {
	r.files = append(r.files, p.Files...)
	if p.Capability != 0 {
		r.capabilities = append(r.capabilities, uintptr(p.Capability))
	}
	r.namespace = r.namespace || p.Namespace
}

// administers reports whether programs are more to the kernel than an ordinary user.
func (r *rights) administers() bool {
	return len(r.files) > 0 || slices.Contains(r.capabilities, unix.CAP_SYS_ADMIN)
}

// sandbox is the thread and what programs get from it.
type sandbox struct {
	rights
	cgroup *cgroup
	work   chan func()
}

// begin makes the thread.
func (b *sandbox) begin() error {
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := b.enter()
		entered <- err
		if err != nil {
			return
		}
		for f := range b.work {
			f()
		}
	}()
	return <-entered
}

// do runs f on the sandbox's thread.
func (b *sandbox) do(f func()) {
	done := make(chan struct{})
	b.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// attr changes what a program is started by.
func (b *sandbox) attr(sys *syscall.SysProcAttr) *syscall.SysProcAttr {
	out := *sys
	out.Setpgid, out.Setsid = false, true
	switch {
	case b.namespace:
		out.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		out.UidMappings = []syscall.SysProcIDMap{{HostID: sandboxUser, Size: 1}}
		out.GidMappings = []syscall.SysProcIDMap{{HostID: sandboxUser, Size: 1}}
		out.Credential = &syscall.Credential{NoSetGroups: true}
	case len(b.files) == 0:
		out.Credential = &syscall.Credential{Uid: sandboxUser, Gid: sandboxUser}
	}
	out.AmbientCaps = b.capabilities
	return &out
}

// start starts a program in the sandbox by a function that takes its attributes.
func (b *sandbox) start(sys *syscall.SysProcAttr, start func(*syscall.SysProcAttr) (*child, error)) (ch *child, err error) {
	b.do(func() {
		with := b.attr(sys)
		if b.cgroup != nil {
			with.UseCgroupFD, with.CgroupFD = true, b.cgroup.fd
		}
		ch, err = start(with)
	})
	return ch, err
}

// enter takes the calling thread into the sandbox.
func (b *sandbox) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leave the mount namespace: %w", err)
	}
	// What is mounted here must not show up outside.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	unix.Umask(0)
	err := b.build()
	unix.Umask(0o022)
	if err != nil {
		return err
	}
	if err := changeRoot(sandboxRoot); err != nil {
		return err
	}
	// The program is not to gain anything by execve, be it root's or a file's.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if !b.namespace {
		const noroot, locked = 1, 2 // SECBIT_NOROOT of include/uapi/linux/securebits.h
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noroot|locked, 0, 0, 0); err != nil {
			return fmt.Errorf("set securebits: %w", err)
		}
	}
	if b.administers() {
		return denyAdministration()
	}
	return nil
}

// sandboxDevices are what a program may expect in /dev.
var sandboxDevices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

const noDevices = unix.MS_NOSUID | unix.MS_NODEV

// build makes the tree of the sandbox's root.
func (b *sandbox) build() error {
	in := func(path string) string { return sandboxRoot + path }
	if err := os.MkdirAll(wire.ProgramDir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(sandboxRoot, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", sandboxRoot, "tmpfs", unix.MS_NOSUID, "size=1m,mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev/pts", "/dev/shm", "/tmp", wire.ProgramDir} {
		if err := os.MkdirAll(in(dir), 0o755); err != nil {
			return err
		}
	}
	for _, d := range sandboxDevices {
		if err := unix.Mknod(in("/dev/"+d.name), unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, in("/dev/"+name)); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		kind, dir, data string
		flags           uintptr
	}{
		// Of the same PID namespace: numbers of tasks are those that the trace has.
		{"proc", "/proc", "", noDevices | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", noDevices | unix.MS_NOEXEC},
		{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777," + sandboxFiles, noDevices},
		{"tmpfs", "/tmp", "mode=1777," + sandboxFiles, noDevices},
	} {
		if err := mount(m.kind, in(m.dir), m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := mount(wire.ProgramDir, in(wire.ProgramDir), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, dir := range []string{wire.ProgramDir, "/sys"} {
		if err := remount(in(dir), noDevices|unix.MS_RDONLY); err != nil {
			return err
		}
	}
	if err := b.allowFiles(); err != nil {
		return err
	}
	return remount(sandboxRoot, unix.MS_NOSUID|unix.MS_RDONLY)
}

// allowFiles lets programs that are root, or have CAP_SYS_ADMIN, write their files and
// no others in /proc and /sys. What an ordinary user cannot write there needs no such
// care.
func (b *sandbox) allowFiles() error {
	if !b.administers() {
		return nil
	}
	entries, err := os.ReadDir(sandboxRoot + "/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil || e.Type()&fs.ModeSymlink != 0 {
			continue // tasks' own, which guard themselves
		}
		if fi, err := e.Info(); err != nil || !fi.IsDir() && fi.Mode()&0o222 == 0 {
			continue
		}
		if err := bindReadOnly(filepath.Join(sandboxRoot, "proc", e.Name())); err != nil {
			return err
		}
	}
	for _, pattern := range b.files {
		found, err := filepath.Glob(sandboxRoot + pattern)
		if err != nil {
			return err
		}
		for _, file := range found {
			if err := mount(file, file, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			if err := remount(file, noDevices); err != nil {
				return err
			}
		}
	}
	return nil
}

func bindReadOnly(path string) error {
	if err := mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return remount(path, noDevices|unix.MS_NOEXEC|unix.MS_RDONLY)
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

func remount(target string, flags uintptr) error {
	return mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
}

// changeRoot makes root the thread's root, and leaves nothing mounted beside it. The
// kernel's first file system, which the guest's files are on, cannot be exchanged by
// pivot_root: the new root is moved over it, as switch_root does, and is what every
// way up ends at.
func changeRoot(root string) error {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		// 25 1 0:22 / /sys rw,…: the fifth field is where (proc_pid_mountinfo(5)).
		f := strings.Fields(line)
		if len(f) < 5 || f[4] == "/" || f[4] == root || strings.HasPrefix(f[4], root+"/") {
			continue
		}
		// What was below it is gone with it.
		if err := unix.Unmount(f[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", f[4], err)
		}
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return unix.Chdir("/")
}

// administration are system calls that a program with CAP_SYS_ADMIN, or the root of
// a namespace of its own that is root outside, could undo its sandbox by.
var administration = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT,
	unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_MOUNT_SETATTR,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PTRACE, unix.SYS_PIDFD_GETFD, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT,
	unix.SYS_SYSLOG, unix.SYS_FANOTIFY_INIT, unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}

// denyAdministration has those calls answered by EPERM in the thread and in all that
// it makes. Calls by another ABI of the machine, whose numbers are others, are
// refused altogether.
func denyAdministration() error {
	audit, ok := map[string]uint32{
		"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "arm": unix.AUDIT_ARCH_ARM,
	}[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("no filter of system calls for %s", runtime.GOARCH)
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atMost = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K

		offNumber, offArch = 0, 4 // of struct seccomp_data

		x32  = 0x40000000 // __X32_SYSCALL_BIT
		deny = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	prog := []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: equal, K: audit, Jt: 1},
		{Code: ret, K: deny},
		{Code: load, K: offNumber},
	}
	if runtime.GOARCH == "amd64" {
		prog = append(prog, unix.SockFilter{Code: atMost, K: x32 - 1, Jf: 1}, unix.SockFilter{Code: ret, K: deny})
	}
	for _, nr := range administration {
		prog = append(prog, unix.SockFilter{Code: equal, K: nr, Jf: 1}, unix.SockFilter{Code: ret, K: deny})
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

// cgroup is what sandboxed programs are started in: by it they are bounded, and found
// when they are to end.
type cgroup struct {
	dir string
	fd  int
}

// newCgroup makes the cgroup. It is nil where the kernel has none, or cannot start a
// process in one (CLONE_INTO_CGROUP, since 5.7).
func newCgroup(root string) *cgroup {
	for _, controller := range []string{"+pids", "+memory"} {
		os.WriteFile(root+"/cgroup.subtree_control", []byte(controller), 0) // one that is not there bounds nothing
	}
	g := &cgroup{dir: root + "/labctl-sandbox"}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil
	}
	if !clonesIntoCgroup() {
		return nil
	}
	var err error
	if g.fd, err = unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	g.set("pids.max", strconv.Itoa(sandboxTasks))
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) == nil {
		g.set("memory.max", strconv.FormatUint(uint64(si.Totalram)*uint64(si.Unit)/sandboxShareOf*sandboxShare, 10))
	}
	g.set("memory.oom.group", "1")
	return g
}

// clonesIntoCgroup asks clone3 with the member cgroup set, for a flag that no kernel
// has: one that knows the member complains of the flag, another of the member.
func clonesIntoCgroup() bool {
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64 }{flags: 1 << 63, cgroup: 1}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	return errno == unix.EINVAL
}

func (g *cgroup) set(file, value string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0)
}

func (g *cgroup) close() { unix.Close(g.fd) }

// killFor is how long what a program has left behind may take to end.
const killFor = 20 * time.Second

// kill ends all processes of sandboxes.
func (b *sandbox) kill() error {
	left := outsiders
	if b.cgroup != nil {
		left = b.cgroup.processes
	}
	pids, err := left()
	if err != nil || len(pids) == 0 {
		return err
	}
	if b.cgroup != nil { // no more of them
		b.cgroup.set("pids.max", "0")
		defer b.cgroup.set("pids.max", strconv.Itoa(sandboxTasks))
		b.cgroup.set("cgroup.kill", "1") // since 5.14
	}
	for deadline := time.Now().Add(killFor); len(pids) > 0; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes that it left behind do not end", len(pids))
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond)
		if pids, err = left(); err != nil {
			return err
		}
	}
	return nil
}

// processes are those in the cgroup.
func (g *cgroup) processes() (pids []int, err error) {
	text, err := os.ReadFile(g.dir + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text) {
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// outsiders are the processes that are in another mount namespace than PID 1's,
// kernel threads left out, which have no executable.
func outsiders() (pids []int, err error) {
	own, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		in, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/mnt"))
		if err != nil || in == own { // ended, or the agent's
			continue
		}
		if _, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe")); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
