package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

const (
	sockSuffix = ".sock"
	logSuffix  = ".log"
	lockName   = "lock"
)

// directory is where the sockets are.
type directory struct {
	path string
	fd   *os.File
}

// openDir opens the directory, and makes it if necessary.
func openDir() (*directory, error) {
	path := ""
	if base := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(base) && private(base) == nil {
		path = filepath.Join(base, "labctl")
	} else {
		base, err := cachedir.Dir()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(base, "run")
	}
	if err := cachedir.Make(path, 0o700); err != nil {
		return nil, err
	}
	if err := private(path); err != nil {
		return nil, outcome.Hostf("the directory of running machines: %w; remove it, or make it yours with mode 0700", err)
	}
	fd, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("open the directory of running machines: %w", err))
	}
	return &directory{path, fd}, nil
}

// private reports what keeps path from being a directory of this user alone.
func private(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case !ok || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user", path)
	case fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to others (mode %04o)", path, fi.Mode().Perm())
	}
	return nil
}

func (d *directory) Close() error { return d.fd.Close() }

func (d *directory) file(name, suffix string) string { return filepath.Join(d.path, name+suffix) }

// address is the path of a socket for bind and connect, which take at most 107 bytes
// (unix(7)). It is short however long the directory's path is.
func (d *directory) address(name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s%s", d.fd.Fd(), name, sockSuffix)}
}

// names lists the machines that have a socket, dead ones included.
func (d *directory) names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("list running machines: %w", err))
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), sockSuffix); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// errNone means that there is no machine of a name.
var errNone = outcome.New(outcome.BadInput, "no such machine")

// dial connects to the owner of a machine. A dead owner's socket is removed.
func (d *directory) dial(ctx context.Context, name string) (*net.UnixConn, error) {
	conn, err := d.connect(ctx, name)
	if errors.Is(err, unix.ECONNREFUSED) {
		d.bury(ctx, name)
		err = errNone
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errNone
	}
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	if err := samePeer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (d *directory) connect(ctx context.Context, name string) (*net.UnixConn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.address(name).Name)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// samePeer refuses a connection whose other end is another user's.
func samePeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctlErr != nil {
		return ctlErr
	}
	if err != nil {
		return os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if int(cred.Uid) != os.Geteuid() {
		return outcome.Hostf("the machine belongs to another user (%d)", cred.Uid)
	}
	return nil
}

// lockWait is for the lock, which is held for a connection to a dead socket at most.
const lockWait = 5 * time.Second

func (d *directory) lock(ctx context.Context) (*scratch.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	return scratch.TakeLock(ctx, d.file(lockName, ""))
}

// bury removes the socket of a dead owner. Another may have taken the name since the
// connection was refused, and one that is being made refuses them, so it is tried again
// under the lock.
func (d *directory) bury(ctx context.Context, name string) {
	lock, err := d.lock(ctx)
	if err != nil {
		return // the next one will
	}
	defer lock.Release()
	d.buryLocked(ctx, name)
}

// buryLocked reports whether name is free.
func (d *directory) buryLocked(ctx context.Context, name string) bool {
	conn, err := d.connect(ctx, name)
	switch {
	case err == nil:
		conn.Close()
		return false
	case errors.Is(err, fs.ErrNotExist):
		return true
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(d.file(name, sockSuffix)) == nil
	}
	return false // its queue is full: alive
}

// listen makes the socket of a machine.
func (d *directory) listen(ctx context.Context, name string) (*net.UnixListener, error) {
	lock, err := d.lock(ctx)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	defer lock.Release()
	if !d.buryLocked(ctx, name) {
		return nil, &TakenError{name}
	}
	l, err := net.ListenUnix("unix", d.address(name))
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("make the socket of machine %s: %w", name, err))
	}
	l.SetUnlinkOnClose(false) // the descriptor in its address may be another's by then
	return l, nil
}

// TakenError means that a machine of this name runs.
type TakenError struct{ Name string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("a machine called %s is running; choose another name, or run: labctl down %s", e.Name, e.Name)
}

// Outcome is BadInput.
func (e *TakenError) Outcome() outcome.Kind { return outcome.BadInput }
