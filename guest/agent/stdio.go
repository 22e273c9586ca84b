package agent

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// pipeSize is what an output pipe holds: enough that a program seldom waits for
// a slow emulated CPU to switch to the agent.
const pipeSize = 256 << 10

// stdio is a program's standard files, from both sides.
type stdio struct {
	stdin, stdout, stderr *os.File // ours; nil when there is none, stdin and stdout may be one
	child                 [3]uintptr
	attr                  *syscall.SysProcAttr
	opened                []int // the child's ends, closed once it runs
}

func (s *stdio) closeChild() {
	for _, fd := range s.opened {
		unix.Close(fd)
	}
	s.opened = nil
}

func (s *stdio) close() {
	s.closeChild()
	for _, f := range []*os.File{s.stdin, s.stdout, s.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

func openStdio(p wire.ExecParams) (*stdio, error) {
	if p.TTY {
		return openTTY(p.Rows, p.Cols)
	}
	return openPipes(p.Stdin)
}

// openPipes makes a pipe a stream. Only our ends are non-blocking: programs
// expect theirs to block.
func openPipes(stdin bool) (_ *stdio, err error) {
	s := &stdio{attr: &syscall.SysProcAttr{Setpgid: true}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	pipe := func(name string, ours int) (*os.File, uintptr, error) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, 0, fmt.Errorf("open %s pipe: %w", name, err)
		}
		s.opened = append(s.opened, p[1-ours])
		unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one is only slower
		if err := unix.SetNonblock(p[ours], true); err != nil {
			unix.Close(p[ours])
			return nil, 0, fmt.Errorf("open %s pipe: %w", name, err)
		}
		return os.NewFile(uintptr(p[ours]), name), uintptr(p[1-ours]), nil
	}
	if stdin {
		if s.stdin, s.child[0], err = pipe("stdin", 1); err != nil {
			return nil, err
		}
	} else {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
		}
		s.opened = append(s.opened, fd)
		s.child[0] = uintptr(fd)
	}
	if s.stdout, s.child[1], err = pipe("stdout", 0); err != nil {
		return nil, err
	}
	s.stderr, s.child[2], err = pipe("stderr", 0)
	return s, err
}

// openTTY makes a pseudo-terminal, of 24 by 80 unless told otherwise, as the
// controlling terminal of a session of its own.
func openTTY(rows, cols int) (*stdio, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	s := &stdio{stdin: master, stdout: master, attr: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		s.close()
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("number terminal: %w", err)
	}
	name := "/dev/pts/" + strconv.Itoa(n)
	slave, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s.opened = []int{slave}
	s.child = [3]uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
	if rows <= 0 || cols <= 0 {
		rows, cols = 24, 80
	}
	setSize(master, rows, cols)
	return s, nil
}

// setSize tells the terminal its size; the kernel sends SIGWINCH on a change.
func setSize(master *os.File, rows, cols int) {
	control(master, func(fd int) {
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(min(rows, 1<<16-1)), Col: uint16(min(cols, 1<<16-1))})
	})
}

// typeEOF ends the input of a terminal: it types what means that, Ctrl-D, until the
// program has ended. One is not enough: a shell that reads keys by itself misses one that
// came while it ran a program, and each program that reads wants one.
func typeEOF(master *os.File, ended <-chan struct{}) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		var eof byte
		control(master, func(fd int) {
			if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
				eof = t.Cc[unix.VEOF]
			}
		})
		if eof == 0 {
			return
		}
		if _, err := master.Write([]byte{eof}); err != nil {
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(pause):
		}
	}
}

// control runs f on an open file's descriptor, which Fd would make blocking.
func control(file *os.File, f func(fd int)) {
	if raw, err := file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
