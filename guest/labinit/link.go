package labinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
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
	if err := makeRaw(fd, lineRate("/sys/class/tty/"+filepath.Base(path))); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// usualRate is the rate of a line, in bits a second, of which QEMU makes nothing.
const usualRate = 115200

// lineRate returns the rate for the line that a directory of /sys/class/tty describes.
//
// It matters for the Raspberry Pi's mini UART alone. While the divisor latch is open,
// the kernel writes the divisor's high byte to the register that else enables
// interrupts; QEMU (5.2 to 11.1, hw/char/bcm2835_aux.c: "NYI") does not know the latch
// and enables interrupts by it. At 115200 the byte is 1, receive, on a Raspberry Pi 3,
// whose clock is 800 MHz. On a Raspberry Pi 4, of 1125 MHz, it is 2: transmit, which
// interrupts CPU 0 without end until something is sent; a kernel that waits for CPU 0
// before that stands still. So the rate is one whose divisor has 1 for its high byte.
func lineRate(dir string) uint32 {
	if !drivenBy(filepath.Join(dir, "device"), "bcm2835-aux-uart") {
		return usualRate
	}
	text, err := os.ReadFile(filepath.Join(dir, "uartclk"))
	if err != nil {
		return usualRate
	}
	clock, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || clock < 1<<20 {
		return usualRate
	}
	return uint32(clock) / 16 / 0x180
}

// drivenBy reports whether a device, or one that it is a part of, has a driver: from 6.5
// on a serial line is two devices below the UART's own.
func drivenBy(device, driver string) bool {
	path, err := filepath.EvalSymlinks(device)
	if err != nil {
		return false
	}
	for range 4 {
		if link, err := os.Readlink(filepath.Join(path, "driver")); err == nil && filepath.Base(link) == driver {
			return true
		}
		path = filepath.Dir(path)
	}
	return false
}

// makeRaw sets a rate and 8N1 without echo or translation, and drops old input.
func makeRaw(fd int, rate uint32) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return err
	}
	t.Iflag = 0
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag = unix.BOTHER | unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Ispeed, t.Ospeed = rate, rate
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
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
