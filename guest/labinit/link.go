package labinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	portName = "labctl"
	// linkWait is how long the link's device may take to appear. Drivers probe
	// before init runs, so this is for slow buses and freshly loaded modules.
	linkWait = 10 * time.Second
	// hostWait is how long the host may be away from a virtio port: a guest that
	// is restored from a snapshot runs before the new host has connected.
	hostWait = 10 * time.Second
)

// link is the open way to the host.
type link struct {
	file      *os.File
	transport string // as in wire.Hello
	chunk     int    // most bytes of a Data frame, 0 for no bound
	virtio    bool
}

// openLink opens the link that how names, as soon as its device is there.
func openLink(how string, wait time.Duration) (*link, error) {
	var open func() (*os.File, error)
	l := &link{}
	tty, isTTY := strings.CutPrefix(how, "tty:")
	switch {
	case how == "virtio":
		l.transport, l.virtio = "virtio-serial", true
		open = func() (*os.File, error) { return openPort("/sys/class/virtio-ports", "/dev") }
	case isTTY && tty != "" && !strings.Contains(tty, "/"):
		l.transport, l.chunk = "uart", 2<<10
		open = func() (*os.File, error) { return openTTY("/dev/" + tty) }
	case how == "":
		return nil, errors.New("open link: labctl.link= is missing on the kernel command line")
	default:
		return nil, fmt.Errorf("open link: labctl.link=%s: want virtio or tty:NAME", how)
	}
	deadline := time.Now().Add(wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		var err error
		if l.file, err = open(); err == nil {
			return l, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) || time.Now().After(deadline) {
			return nil, fmt.Errorf("open link %s: %w", how, err)
		}
		time.Sleep(pause)
	}
}

// openPort finds the port by its name: the numbers in vportNpM vary.
func openPort(class, dev string) (*os.File, error) {
	names, err := filepath.Glob(filepath.Join(class, "*/name"))
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == portName {
			return os.OpenFile(filepath.Join(dev, filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("find virtio port %q: %w", portName, os.ErrNotExist)
}

// openTTY opens a serial line that passes every byte as it is.
func openTTY(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := makeRaw(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makeRaw sets 115200 8N1 without echo or translation, and drops old input.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag = 0
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag = unix.B115200 | unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
}

func (l *link) Write(p []byte) (int, error) { return l.file.Write(p) }

// Read waits out a host that is away: a virtio port then reads as ended.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.file.Read(p)
	if !l.virtio || err != io.EOF {
		return n, err
	}
	deadline := time.Now().Add(hostWait)
	for err == io.EOF && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
		n, err = l.file.Read(p)
	}
	return n, err
}
