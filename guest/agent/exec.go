package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// grace is how long after a program's end its output may still come from
// processes that it left behind.
const grace = 500 * time.Millisecond

// exec runs a program to its end. The Result follows the end of both streams.
func (s *session) exec(r *request, p wire.ExecParams) (any, error) {
	if len(p.Argv) == 0 || p.Argv[0] == "" {
		return nil, errors.New("exec: argv is empty")
	}
	var box *sandbox
	in := func(f func()) { f() }
	if p.Sandbox != nil {
		var err error
		if box, err = s.sandboxes.get(p.Sandbox.Privileges); err != nil {
			return nil, fmt.Errorf("exec: %w", err)
		}
		in = box.do // where its directories are
	}
	// Looked at first: the kernel's ENOENT does not say which of the two it means.
	var err error
	in(func() { err = isDirectory(cmp.Or(p.Dir, "/")) })
	if err != nil {
		return nil, fmt.Errorf("exec: working directory: %w", err)
	}
	if p.Watch && p.Mark == "" {
		return nil, errors.New("exec: a program is watched from a mark on, and it has none")
	}
	if len(p.Mark) > wire.MaxMark || strings.Contains(p.Mark, "\n") || p.Mark != "" && p.Instance == "" {
		return nil, fmt.Errorf("exec: mark %q: want one line of at most %d bytes, and a capture", clip(p.Mark, 60), wire.MaxMark)
	}
	path := p.Argv[0]
	if !strings.Contains(path, "/") {
		in(func() { path, err = exec.LookPath(path) })
		if err != nil {
			return unstarted(err), fmt.Errorf("exec: %w", err)
		}
	}
	std, err := openStdio(p)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
	}
	defer std.close()

	var lists []*os.File
	var w *watch
	if p.Instance != "" {
		if p.Watch {
			if w, err = s.captures.watch(p.Instance, s.guest.Proc); err != nil {
				return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
			}
		}
		if lists, err = s.captures.lists(p.Instance, p.Mark); err != nil {
			return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
		}
	}
	if err := w.begin(); err != nil {
		return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
	}
	start := func(sys *syscall.SysProcAttr) (*child, error) {
		return s.children.startEnlisted(path, p.Argv, &syscall.ProcAttr{
			Dir:   p.Dir,
			Env:   environ(os.Environ(), p.Env),
			Files: std.child[:],
			Sys:   sys,
		}, lists)
	}
	var ch *child
	if box != nil {
		ch, err = box.start(std.attr, start)
	} else {
		ch, err = start(std.attr)
	}
	std.closeChild()
	for _, f := range lists {
		f.Close()
	}
	if err != nil {
		return unstarted(err), fmt.Errorf("exec %s: %w", p.Argv[0], err)
	}
	r.onControl(func(c wire.Control) {
		if c.Rows > 0 && c.Cols > 0 && p.TTY {
			setSize(std.stdout, c.Rows, c.Cols)
		}
		if c.Signal > 0 {
			s.children.signal(ch, syscall.Signal(c.Signal))
		}
	})
	if p.Stdin {
		go feed(std.stdin, r.stdin, p.TTY, ch.done)
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { pump(r.senders[wire.Stdout], std.stdout, s.chunk()) })
	if std.stderr != nil {
		pumps.Go(func() { pump(r.senders[wire.Stderr], std.stderr, s.chunk()) })
	}
	<-ch.done
	res := ended(ch)
	if res.Watched, err = w.end(p.Mark); err != nil {
		return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
	}
	if box != nil {
		if err := box.kill(); err != nil {
			return nil, fmt.Errorf("exec %s: %w", p.Argv[0], err)
		}
	}
	deadline := time.Now().Add(grace)
	std.stdout.SetReadDeadline(deadline)
	if std.stderr != nil {
		std.stderr.SetReadDeadline(deadline)
	}
	pumps.Wait()
	// The terminal is closed next: nothing may resize it from here on.
	r.onControl(func(wire.Control) {})
	res.Tainted = taints(s.tainted)
	return res, nil
}

func isDirectory(path string) error {
	fi, err := os.Stat(path)
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	return err
}

// unstarted says by number why a program does not run.
func unstarted(err error) wire.ExecResult {
	var errno syscall.Errno
	switch {
	case errors.Is(err, exec.ErrNotFound):
		errno = unix.ENOENT
	case !errors.As(err, &errno):
		errno = unix.EINVAL
	}
	return wire.ExecResult{Errno: int(errno)}
}

// environ is env with add on top. Programs take the first of two equal names, so
// what is replaced is left out.
func environ(env, add []string) []string {
	replaced := make(map[string]bool, len(add))
	for _, kv := range add {
		name, _, _ := strings.Cut(kv, "=")
		replaced[name] = true
	}
	out := make([]string, 0, len(env)+len(add))
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); !replaced[name] {
			out = append(out, kv)
		}
	}
	return append(out, add...)
}

// taintedFile is below the root of procfs.
const taintedFile = "/sys/kernel/tainted"

// taints is what the kernel is tainted by. The file is open from the start: a program
// may hide it, and in a guest that starts from a snapshot every function that is not
// called is not translated.
func taints(f *os.File) uint64 {
	if f == nil {
		return 0
	}
	var buf [24]byte
	n, err := syscall.Pread(int(f.Fd()), buf[:], 0)
	if err != nil {
		return 0
	}
	t, _ := strconv.ParseUint(strings.TrimSpace(string(buf[:n])), 10, 64)
	return t
}

func ended(ch *child) wire.ExecResult {
	ws := ch.status
	res := wire.ExecResult{PID: ch.pid, Exited: ws.Exited(), Signaled: ws.Signaled()}
	if res.Exited {
		res.Code = ws.ExitStatus()
	} else {
		res.Signal, res.Core = int(ws.Signal()), ws.CoreDump()
	}
	return res
}

// feed copies the host's input to the program. A program that does not read its
// input to the end must not hold up the host, so the rest is dropped.
func feed(w *os.File, in *wire.Receiver, tty bool, ended <-chan struct{}) {
	_, err := io.Copy(w, in)
	if tty {
		if err == nil {
			typeEOF(w, ended)
		}
	} else {
		w.Close()
	}
	if err != nil {
		io.Copy(io.Discard, in)
	}
}

// pump sends what comes out of f until its end, or its deadline.
func pump(out *wire.Sender, f *os.File, chunk int) {
	buf := make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if _, werr := out.Write(buf[:n]); werr != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			drain(out, f, buf)
			break
		}
		if err != nil { // io.EOF, or EIO from a terminal that nobody has open
			break
		}
	}
	out.Close()
}

// drain sends what is in the pipe at the deadline. The host may have stalled
// the stream until now, so this can be output of the program itself. It is
// bounded, as what holds the pipe open may go on writing.
func drain(out *wire.Sender, f *os.File, buf []byte) {
	f.SetReadDeadline(time.Time{})
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for left := pipeSize; left > 0; {
		n := 0
		if raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buf)
			return true
		}); n <= 0 {
			return
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return
		}
		left -= n
	}
}
