package labinit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"labctl/guest/tracefs"
)

// mounts are made in order. debugfs shows tracefs at /sys/kernel/debug/tracing by
// itself, where old scripts look for it.
var mounts = []struct {
	kind, dir string
	flags     uintptr
	data      string
	optional  bool // kernels may lack it, and nothing of labctl's needs it
}{
	{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755", false}, // kernels may lack DEVTMPFS_MOUNT
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", false},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", false},
	{"debugfs", "/sys/kernel/debug", 0, "", false},
	{"tracefs", tracefs.Root, 0, "", true},
	{"cgroup2", "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", false},
	{"bpf", "/sys/fs/bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0700", true},
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", false},
	{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
	{"mqueue", "/dev/mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", true},
	{"hugetlbfs", "/dev/hugepages", unix.MS_NOSUID | unix.MS_NODEV, "", true},
	{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
	{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", false},
}

// links are names that scripts expect in /dev and that no kernel makes.
var links = map[string]string{
	"/dev/fd":     "/proc/self/fd",
	"/dev/stdin":  "/proc/self/fd/0",
	"/dev/stdout": "/proc/self/fd/1",
	"/dev/stderr": "/proc/self/fd/2",
}

// setUp mounts, names and connects the system. What fails is a note: a lab
// that needs it fails there, with the note to explain it.
func setUp() notes {
	var n notes
	for _, m := range mounts {
		// In sysfs and devtmpfs the directory is the kernel's to make.
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			if !m.optional {
				n.note("mount "+m.kind, err)
			}
			continue
		}
		err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.data)
		switch {
		case errors.Is(err, unix.EBUSY): // mounted by the kernel
		case m.optional && (errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist)):
		default:
			n.note("mount "+m.kind+" on "+m.dir, err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, name); !errors.Is(err, os.ErrExist) {
			n.note("link", err)
		}
	}
	n.note("set host name", unix.Sethostname([]byte("labctl")))
	n.note("bring up lo", loopbackUp())
	return n
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// loadModules loads the modules listed in the file, one path a line in load
// order. No list is no modules. A module that fails is a note: the link that
// needs it will be missed, which says so too.
func loadModules(list string, n *notes) {
	f, err := os.Open(list)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		n.note("load modules", err)
		return
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		path := strings.TrimSpace(sc.Text())
		if path == "" {
			continue
		}
		n.note("load module", loadModule(path))
	}
	n.note("load modules", sc.Err())
}

// moduleCompressed is MODULE_INIT_COMPRESSED_FILE of include/uapi/linux/module.h.
const moduleCompressed = 4

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") { // .ko.xz, .ko.zst
		flags = moduleCompressed
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	if err != nil && !errors.Is(err, unix.EEXIST) { // loaded, or built in
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
