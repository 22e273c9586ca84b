package registry

import (
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// connectAs connects with another user's credentials, which are those of one thread.
func connectAs(uid int, to *net.UnixAddr) (*net.UnixConn, error) {
	runtime.LockOSThread() // not unlocked: the thread is not fit for others
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// The raw call: that of package syscall changes all threads.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return nil, errno
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + to.Name[1:]}); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "conn")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
