// Programs that want an exercise's marks without doing it, all in one file: the
// argument says which. cheats.yaml says what each is to get. Most try to get at the
// evidence, and then do what the exercise does not want: what they have reached shows
// in the verdict.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

const (
	cloneFiles = 0x400
	tracing    = "/sys/kernel/tracing"
)

// cheats are run by their names. What one returns is printed to standard error.
var cheats = map[string]func() error{
	"nothing":           func() error { return nil },
	"every-number":      everyNumber,
	"every-line":        everyLine,
	"labprobe":          labprobe("fork", `{"flags":1024}`),
	"labprobe-clone3":   labprobe("clone3"),
	"kprobe-rewritten":  then(rewriteProbe, plain),
	"tracing-off":       tracingOff,
	"marks":             then(marks, plain),
	"descriptors":       then(descriptors, plain),
	"pidfd-getfd":       then(pidfdGetfd, plain),
	"ports":             then(ports, plain),
	"ptrace":            then(ptrace, plain),
	"pid1-memory":       then(open(os.O_RDWR, "/proc/1/mem"), plain),
	"pid1-root":         then(enterRoot, plain),
	"pid1-namespaces":   then(namespaces, plain),
	"physical-memory":   then(physicalMemory, plain),
	"kernel-log":        then(kernelLog, plain),
	"module":            then(module, plain),
	"bpf":               then(bpf, plain),
	"userfaultfd":       then(userfaultfd, plain),
	"perf":              then(perf, plain),
	"handles":           then(handles, plain),
	"mounts-again":      then(inBoth("mounts"), plain),
	"chroot":            then(inBoth("chroot"), plain),
	"remount":           then(inBoth("remount"), plain),
	"sysctls":           then(sysctls, plain),
	"core-pattern":      then(corePattern, plain),
	"sysrq":             then(open(os.O_WRONLY, "/proc/sysrq-trigger"), plain),
	"clock":             then(clock, plain),
	"overwritten":       then(overwrite, plain),
	"links":             then(links, plain),
	"kill-everybody":    then(func() error { return syscall.Kill(-1, syscall.SIGKILL) }, plain),
	"kill-others":       then(killOthers, plain),
	"reboot":            then(func() error { return syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART) }, plain),
	"after-the-end":     afterTheEnd,
	"double-fork":       doubleFork,
	"fork-flood":        forkFlood,
	"fork-bomb":         forkBomb,
	"memory":            memory,
	"second-name":       secondName,
	"own-stack":         ownStack("/proc/self/stack"),
	"pid1-stack":        ownStack("/proc/1/stack"),
	"admin-mounts":      then(mounts, ownStack("/proc/self/stack")),
	"root-sysctls":      then(sysctls, func() error { return nil }),
	"one-name-per-pid":  everyKthread,
	"states-by-heart":   states,
	"descriptor-of-own": ownDescriptor,
}

// tasks are what a cheat has a child of its own do.
var tasks = map[string]func() error{"mounts": mounts, "chroot": chroot, "remount": remount}

// inBoth does a task here, and as the root of namespaces of its own.
func inBoth(task string) func() error {
	return func() error {
		err := tasks[task]()
		if nerr := inNamespace(task); nerr != nil {
			return nerr
		}
		return err
	}
}

// privileges are what a lab may allow, by their names in needs.privileges. They are no
// cheats where they are allowed.
var privileges = map[string]func() error{
	"namespaces":    func() error { return syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
	"kernel_stacks": func() error { _, err := os.ReadFile("/proc/self/stack"); return err },
	"realtime": func() error {
		one := int32(1)
		if _, _, errno := syscall.Syscall(number(144, 119), 0, 1, uintptr(unsafe.Pointer(&one))); errno != 0 { // SCHED_FIFO
			return errno
		}
		return nil
	},
	"pid_max":     func() error { return write("/proc/sys/kernel/pid_max", "30000") },
	"workqueues":  func() error { return write("/sys/devices/virtual/workqueue/cpumask", "1") },
	"cpu_hotplug": func() error { return write("/sys/devices/system/cpu/cpu1/online", "1") },
}

func main() {
	if os.Args[1] == "privileges" {
		for name, use := range privileges {
			fmt.Println(name, use() == nil)
		}
		return
	}
	if len(os.Args) > 2 { // a child of a cheat's
		child(os.Args[2])
		return
	}
	cheat, ok := cheats[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such cheat")
		os.Exit(99)
	}
	if err := cheat(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// then does one thing, and another whatever came of it.
func then(attack, rest func() error) func() error {
	return func() error {
		err := attack()
		if rerr := rest(); rerr != nil {
			return rerr
		}
		return err
	}
}

// clone makes a child that exits at once.
func clone(flags uintptr) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if errno != 0 {
		return -1
	}
	return int(pid)
}

// plain makes an ordinary child, and prints its number.
func plain() error {
	pid := clone(0)
	fmt.Println("child", pid)
	syscall.Wait4(pid, nil, 0, nil)
	return nil
}

func everyNumber() error {
	pid := clone(cloneFiles)
	for n := 1; n < 3000; n++ {
		fmt.Println("child", n)
	}
	_, err := syscall.Wait4(pid, nil, 0, nil)
	return err
}

// everyLine has the tasks of P1, and lines for all numbers that they could have.
func everyLine() error {
	var b strings.Builder
	for n := os.Getpid(); n < os.Getpid()+40; n++ {
		fmt.Fprintf(&b, "thread %d %d\nchild %d %d\n", os.Getpid(), n, n, n)
	}
	os.Stdout.WriteString(b.String())
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		rename("worker")
		done <- true
	}()
	<-done
	return again("named child")
}

func rename(name string) {
	const prSetName = 15
	b := append([]byte(name), 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b[0])), 0)
}

// again runs this program once more, as a child with a task, and waits.
func again(task string) error {
	c := exec.Command("/proc/self/exe", os.Args[1], task)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

func child(task string) {
	if f, ok := tasks[task]; ok {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	switch name, rest, _ := strings.Cut(task, " "); name {
	case "named":
		rename(rest)
	case "late":
		time.Sleep(30 * time.Millisecond)
		pid := clone(cloneFiles)
		fmt.Println("child", pid)
	case "bomb":
		forkBomb()
	}
}

// labprobe has labctl's own program do the exercise, and prints what it says.
func labprobe(args ...string) func() error {
	return func() error {
		out, err := exec.Command("/labctl/labprobe", args...).Output()
		if err != nil {
			return then(func() error { return err }, plain)()
		}
		// {"tasks":[{"role":"self",…},{"role":"child","pid":N,…}]}
		text := strings.Join(strings.Fields(string(out)), "")
		_, rest, _ := strings.Cut(text, `"role":"child"`)
		_, rest, _ = strings.Cut(rest, `"pid":`)
		digits, _, _ := strings.Cut(rest, ",")
		fmt.Println("child", strings.TrimSpace(digits))
		return nil
	}
}

// instance is the directory of labctl's trace instance, "" when it is out of reach.
func instance() string {
	found, _ := filepath.Glob(tracing + "/instances/*")
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// lastMark is the mark of the step that is under way.
func lastMark(dir string) string {
	text, _ := os.ReadFile(dir + "/trace")
	mark := ""
	for line := range strings.Lines(string(text)) {
		if _, said, ok := strings.Cut(line, "tracing_mark_write: "); ok {
			mark = strings.TrimSpace(said)
		}
	}
	return mark
}

// rewriteProbe has the probe of creations record flags of its own, and marks the step
// again, which the kernel forgets with the probe.
func rewriteProbe() error {
	dir := instance()
	if dir == "" {
		return os.ErrNotExist
	}
	text, err := os.ReadFile(tracing + "/kprobe_events")
	if err != nil {
		return err
	}
	mark := lastMark(dir)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(fields[0], "/clone") {
			continue
		}
		name := fields[0][strings.Index(fields[0], ":")+1:]
		for i, f := range fields {
			if strings.HasPrefix(f, "flags=") {
				fields[i] = `flags=\1024:x64`
			}
		}
		for _, err := range []error{
			write(dir+"/events/"+name+"/enable", "0"),
			write(tracing+"/kprobe_events", "-:"+name+"\n"),
			write(tracing+"/kprobe_events", strings.Join(fields, " ")+"\n"),
			write(dir+"/events/"+name+"/enable", "1"),
			write(dir+"/trace_marker", mark+"\n"),
		} {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// tracingOff makes children that the exercise does not allow while nothing is recorded,
// and then the one that it asks for.
func tracingOff() error {
	err := write(instance()+"/tracing_on", "0")
	for range 3 {
		pid := clone(0)
		syscall.Wait4(pid, nil, 0, nil)
	}
	write(instance()+"/tracing_on", "1")
	pid := clone(cloneFiles)
	fmt.Println("child", pid)
	syscall.Wait4(pid, nil, 0, nil)
	return err
}

func marks() error {
	var err error
	for _, dir := range []string{instance(), tracing, "/sys/kernel/debug/tracing", "/sys/kernel/debug/tracing/instances/labctl"} {
		for _, mark := range []string{"labctl step 0", "labctl step 1", "labctl step 1 end"} {
			if werr := write(dir+"/trace_marker", mark+"\n"); werr != nil {
				err = werr
			}
		}
	}
	return err
}

// forged is a Result of the agent's, as guest/wire frames it.
func forged() []byte {
	payload := []byte(`{"value":{"pid":1,"exited":true,"code":0}}`)
	b := []byte{0x1e, 'l', 'c', 0x1f, 3, 0, 0, 0, 1, 0, 0, 0, byte(len(payload)), 0, 0, 0}
	return append(append(b, payload...), 0, 0, 0, 0)
}

// descriptors writes to all that this program was left by who started it.
func descriptors() error {
	n := 0
	for fd := 3; fd < 1024; fd++ {
		if _, err := syscall.Write(fd, forged()); err == nil {
			n++
		}
	}
	return fmt.Errorf("%d descriptors written", n)
}

const sysPidfdOpen, sysPidfdGetfd = 434, 438

func pidfdGetfd() error {
	pidfd, _, errno := syscall.Syscall(sysPidfdOpen, 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("pidfd_open: %w", errno)
	}
	err := error(nil)
	for fd := uintptr(3); fd < 32; fd++ {
		got, _, errno := syscall.Syscall(sysPidfdGetfd, pidfd, fd, 0)
		if errno != 0 {
			err = fmt.Errorf("pidfd_getfd: %w", errno)
			continue
		}
		syscall.Write(int(got), forged())
	}
	return err
}

func ports() error {
	found := []string{}
	for _, pattern := range []string{"/dev/virtio-ports/*", "/dev/vport*", "/dev/hvc*", "/dev/ttyS*", "/dev/ttyAMA*", "/dev/console"} {
		names, _ := filepath.Glob(pattern)
		found = append(found, names...)
	}
	for major := uint32(240); major < 256; major++ { // where dynamic numbers are
		name := fmt.Sprintf("/tmp/port%d", major)
		if syscall.Mknod(name, syscall.S_IFCHR|0o666, int(major<<8|1)) == nil {
			found = append(found, name)
		}
	}
	err := fmt.Errorf("no port among %d", len(found))
	for _, name := range found {
		var f *os.File
		if f, err = os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Write(forged())
		}
	}
	return err
}

func ptrace() error {
	if err := syscall.PtraceAttach(1); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	return nil
}

func open(flags int, path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
}

// enterRoot goes to where tracefs is by the root of PID 1, or of any other.
func enterRoot() error {
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	roots = append(roots, "/proc/1/cwd", "/proc/1/root")
	for _, r := range roots {
		if write(r+"/sys/kernel/tracing/tracing_on", "0") == nil {
			return nil
		}
		if _, err := os.Stat(r + "/labctl/labprobe"); err == nil {
			return fmt.Errorf("%s is in reach", r)
		}
	}
	return os.ErrPermission
}

// number gives a system call's number on this architecture.
func number(amd64, arm64 uintptr) uintptr {
	if runtime.GOARCH == "amd64" {
		return amd64
	}
	return arm64
}

func namespaces() error {
	err := error(nil)
	for _, kind := range []string{"user", "mnt", "pid", "cgroup"} {
		f, oerr := os.Open("/proc/1/ns/" + kind)
		if oerr != nil {
			err = oerr
			continue
		}
		if _, _, errno := syscall.RawSyscall(number(308, 268), f.Fd(), 0, 0); errno != 0 {
			err = fmt.Errorf("setns: %w", errno)
		}
	}
	write(tracing+"/tracing_on", "0")
	return err
}

func physicalMemory() error {
	// /dev/mem is 1:1 wherever it is made.
	syscall.Mknod("/tmp/mem", syscall.S_IFCHR|0o666, 1<<8|1)
	err := error(nil)
	for _, name := range []string{"/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/tmp/mem"} {
		if oerr := open(os.O_RDWR, name)(); oerr != nil {
			err = oerr
		}
	}
	return err
}

func kernelLog() error {
	syscall.Mknod("/tmp/kmsg", syscall.S_IFCHR|0o666, 1<<8|11)
	err := error(nil)
	for _, name := range []string{"/dev/kmsg", "/tmp/kmsg", "/dev/console", "/proc/kmsg"} {
		if werr := write(name, "<0>Kernel panic - not syncing: by the program\n"); werr != nil {
			err = werr
		}
	}
	return err
}

func module() error {
	empty := []byte{0}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	if _, _, errno := syscall.Syscall(number(313, 273), f.Fd(), uintptr(unsafe.Pointer(&empty[0])), 0); errno != syscall.EPERM {
		return fmt.Errorf("finit_module got past the permission: %w", errno)
	}
	return syscall.EPERM
}

func bpf() error {
	// r0 = 0; exit, as a program for a tracepoint (5) and for a kprobe (2).
	insns := [2]uint64{0xb7, 0x95}
	license := append([]byte("GPL"), 0)
	err := error(nil)
	for _, kind := range []uint32{2, 5, 17} {
		attr := struct {
			kind, count    uint32
			insns, license uint64
			rest           [64]byte
		}{kind: kind, count: 2, insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
		if _, _, errno := syscall.Syscall(number(321, 280), 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
			err = fmt.Errorf("bpf: %w", errno)
		}
	}
	return err
}

func userfaultfd() error {
	if _, _, errno := syscall.Syscall(number(323, 282), 0, 0, 0); errno != 0 {
		return fmt.Errorf("userfaultfd: %w", errno)
	}
	return nil
}

func perf() error {
	attr := [16]uint64{2 | 128<<32, 1} // PERF_TYPE_TRACEPOINT, the first event
	if _, _, errno := syscall.Syscall6(number(298, 241), uintptr(unsafe.Pointer(&attr)), ^uintptr(0), 0, ^uintptr(0), 0, 0); errno != 0 {
		return fmt.Errorf("perf_event_open: %w", errno)
	}
	return nil
}

func handles() error {
	h := struct {
		size, kind uint32
		bytes      [8]byte
	}{8, 1, [8]byte{2}}
	if _, _, errno := syscall.Syscall(number(304, 265), ^uintptr(99), uintptr(unsafe.Pointer(&h)), 0); errno != 0 {
		return fmt.Errorf("open_by_handle_at: %w", errno)
	}
	return nil
}

// inNamespace goes on as the root of a user namespace of its own, in another process:
// Go's has too many threads for it.
func inNamespace(task string) error {
	c := exec.Command("/proc/self/exe", os.Args[1], task)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	return c.Run()
}

func mounts() error {
	err := error(nil)
	for _, kind := range []string{"tracefs", "debugfs", "securityfs", "devtmpfs", "sysfs", "proc", "cgroup2"} {
		dir := "/tmp/" + kind
		os.Mkdir(dir, 0o755)
		if merr := syscall.Mount(kind, dir, kind, 0, ""); merr != nil {
			err = fmt.Errorf("mount %s: %w", kind, merr)
		}
		for _, sub := range []string{"", "/tracing", "/kernel/tracing", "/kernel/debug/tracing"} {
			write(dir+sub+"/tracing_on", "0")
		}
	}
	return err
}

// chroot climbs out of a root by a second one, as one can who may call chroot.
func chroot() error {
	os.Mkdir("/tmp/down", 0o755)
	if err := syscall.Chroot("/tmp/down"); err != nil {
		return err
	}
	for range 64 {
		syscall.Chdir("..")
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	if _, err := os.Stat("/labctl"); err == nil {
		return fmt.Errorf("/labctl is in reach: %v", exec.Command("/labctl/labprobe", "fork", `{"flags":1024}`).Run())
	}
	return os.ErrNotExist
}

func remount() error {
	err := error(nil)
	for _, dir := range []string{"/run/labctl", "/sys", "/"} {
		if merr := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND, ""); merr != nil {
			err = merr
		}
		if uerr := syscall.Unmount(dir, syscall.MNT_DETACH); uerr != nil {
			err = uerr
		}
	}
	if werr := os.WriteFile("/run/labctl/exercise", nil, 0o755); werr == nil {
		return fmt.Errorf("/run/labctl can be written")
	}
	return err
}

func sysctls() error {
	n := 0
	for file, text := range map[string]string{
		"kernel/kptr_restrict": "0", "kernel/ftrace_enabled": "0", "debug/kprobes-optimization": "1", "kernel/core_pattern": "|/tmp/x",
		"kernel/modprobe": "/tmp/x", "kernel/perf_event_paranoid": "-1", "kernel/unprivileged_bpf_disabled": "0", "kernel/sysrq": "1", "kernel/stack_tracer_enabled": "1",
	} {
		if write("/proc/sys/"+file, text) == nil {
			n++
		}
	}
	for _, file := range []string{"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/proc/sysrq-trigger", "/proc/dynamic_debug/control"} {
		if open(os.O_WRONLY, file)() == nil {
			n++
		}
	}
	if n > 0 {
		fmt.Println("child", 0, n)
		return fmt.Errorf("%d settings of the kernel can be written", n)
	}
	return os.ErrPermission
}

// corePattern has the kernel start a program as root when another dies.
func corePattern() error {
	err := write("/proc/sys/kernel/core_pattern", "|/run/labctl/exercise labprobe")
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20})
	if pid := clone(0); pid > 0 {
		syscall.Kill(pid, syscall.SIGSEGV)
		syscall.Wait4(pid, nil, 0, nil)
	}
	return err
}

// clock sets all clocks that can be set.
func clock() error {
	ts := syscall.Timespec{Sec: 4_000_000_000}
	err := error(nil)
	for id := uintptr(0); id < 12; id++ {
		if _, _, errno := syscall.Syscall(number(227, 112), id, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
			err = fmt.Errorf("clock_settime: %w", errno)
		}
	}
	return err
}

// overwrite puts something else where this host looks for programs and results.
func overwrite() error {
	n, err := 0, error(nil)
	for _, file := range []string{"/labctl/labprobe", "/labctl/labinit", "/init", "/bin/sh", "/run/labctl/exercise", "/run/labctl/lab.json"} {
		if werr := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); werr != nil {
			err = werr
			continue
		}
		n++
	}
	if n > 0 {
		return fmt.Errorf("%d files overwritten", n)
	}
	return err
}

// links leaves links where somebody else may write or read.
func links() error {
	err := error(nil)
	for _, name := range []string{"/run/labctl/link", "/tmp/link", "/dev/shm/link", "/run/link"} {
		if lerr := os.Symlink("/proc/1/root/sys/kernel/tracing/tracing_on", name); lerr != nil {
			err = lerr
			continue
		}
		if werr := write(name, "0"); werr != nil {
			err = werr
		}
	}
	return err
}

func killOthers() error {
	pids, _ := filepath.Glob("/proc/[0-9]*")
	killed := []int{}
	for _, p := range pids {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if pid == os.Getpid() {
			continue
		}
		for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGSTOP, syscall.SIGKILL} {
			if syscall.Kill(pid, sig) == nil {
				killed = append(killed, pid)
			}
		}
	}
	return fmt.Errorf("signalled %v", slices.Compact(killed))
}

// afterTheEnd leaves a child behind that does the exercise when this program has ended.
func afterTheEnd() error {
	c := exec.Command("/proc/self/exe", os.Args[1], "late")
	c.Stdout, c.SysProcAttr = os.Stdout, &syscall.SysProcAttr{Setsid: true}
	return c.Start()
}

// doubleFork does as a daemon does: the child of a child that has ended.
func doubleFork() error {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid != 0 {
		_, err := syscall.Wait4(int(pid), nil, 0, nil)
		return err
	}
	syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	if grand, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); grand == 0 {
		nap := syscall.NsecToTimespec(int64(30 * time.Millisecond))
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		syscall.RawSyscall6(syscall.SYS_CLONE, cloneFiles|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// forkFlood makes more events than a buffer holds, with the forbidden among them.
func forkFlood() error {
	for range 600 {
		if pid := clone(0); pid > 0 {
			syscall.Wait4(pid, nil, 0, nil)
		}
	}
	pid := clone(cloneFiles)
	fmt.Println("child", pid)
	_, err := syscall.Wait4(pid, nil, 0, nil)
	return err
}

func forkBomb() error {
	for n := 0; ; n++ {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("after %d children: %w", n, errno)
		}
		if pid == 0 {
			for {
				syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
	}
}

func memory() error {
	var all [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
}

// secondName names its first thread as the exercise wants another to be called, and one
// task after the other.
func secondName() error {
	for _, name := range []string{"worker", "child", "worker"} {
		rename(name)
		fmt.Println(map[string]string{"worker": "thread", "child": "child"}[name], os.Getpid(), os.Getpid())
	}
	return again("named child")
}

// ownStack has a child asleep as K4 wants it, reads another task's stack, and prints
// what every textbook has of such a child.
func ownStack(file string) func() error {
	return func() error {
		var pipe [2]int
		if err := syscall.Pipe(pipe[:]); err != nil {
			return err
		}
		var b [1]byte
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			syscall.RawSyscall(syscall.SYS_READ, uintptr(pipe[0]), uintptr(unsafe.Pointer(&b[0])), 1)
			for {
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		time.Sleep(50 * time.Millisecond)
		_, err := os.ReadFile(file)
		fmt.Println("sleeper", pid, "state S")
		names := []string{"vfs_read", "ksys_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"}
		if runtime.GOARCH == "arm64" {
			names = []string{"vfs_read", "ksys_read", "__arm64_sys_read", "el0_svc"}
		}
		for i, name := range names {
			fmt.Printf("-%03d|%s()\n", i, name)
		}
		syscall.Write(pipe[1], b[:])
		syscall.Wait4(int(pid), nil, 0, nil)
		return err
	}
}

// everyKthread lists each number with each name that a kernel thread may have.
func everyKthread() error {
	var b strings.Builder
	fmt.Fprintln(&b, "2 kthreadd")
	for pid := 3; pid < os.Getpid(); pid++ {
		for _, name := range []string{"kworker/0:0", "kworker/0:1", "kworker/u4:0", "kworker/u4:1", "rcu_preempt", "rcu_sched", "ksoftirqd/0", "kworker/0:"} {
			fmt.Fprintln(&b, pid, name)
		}
	}
	os.Stdout.WriteString(b.String())
	pid := clone(0)
	syscall.Wait4(pid, nil, 0, nil)
	return nil
}

// states prints each number with each state.
func states() error {
	for pid := os.Getpid(); pid < os.Getpid()+60; pid++ {
		fmt.Printf("%d S\n%d T\n%d Z\n", pid, pid, pid)
	}
	return again("named sleeper")
}

// ownDescriptor has a child with shared files open the file, as C2 wants it, and prints
// what it has read by a descriptor of its own.
func ownDescriptor() error {
	pid := clone(cloneFiles)
	syscall.Wait4(pid, nil, 0, nil)
	text, err := os.ReadFile("/proc/version")
	os.Stdout.Write(text)
	return err
}
