package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/usage"
)

// MaxStderr limits how much of QEMU's own output is kept, in bytes. The end is kept,
// since the last lines say why QEMU exited.
const MaxStderr = 64 << 10

// Process is a running QEMU.
type Process struct {
	path  string
	argv  []string
	pid   int
	conns map[string]net.Conn
	out   *bounded.Tail
	done  chan struct{}
	err   error // set before done is closed

	mu     sync.Mutex
	reaped bool // the pid may have been reused
}

// Start runs c. QEMU is killed when ctx ends, and when this program ends in whatever
// way. Its CPU time is added to ctx's usage.Meter.
//
// The kernel sends the parent-death signal when the *thread* that forked exits, not
// when the process does (prctl(2), PR_SET_PDEATHSIG), and the Go runtime may end
// threads at any time. So QEMU is forked from a thread that a goroutine locks for as
// long as QEMU runs; when this program is killed all its threads exit, that one
// included. QEMU has its own process group, so that the terminal's ^C does not reach
// it and the caller can still read its last output.
func Start(ctx context.Context, c *Command) (*Process, error) {
	path, err := find(c.Binary)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start %s: %w", c.Binary, context.Cause(ctx))
	}
	ours, theirs, err := open(c.slots)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("start %s: %w", c.Binary, err))
	}
	p := &Process{path: path, argv: c.Argv(), conns: ours, out: &bounded.Tail{Max: MaxStderr}, done: make(chan struct{})}
	cmd := &exec.Cmd{
		Path:        path,
		Args:        p.argv,
		Stdout:      p.out,
		Stderr:      p.out,
		ExtraFiles:  theirs,
		WaitDelay:   2 * time.Second, // a child of QEMU may still have stderr open
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.supervise(ctx, cmd)
		}
	}()
	err = <-started
	for i, s := range c.slots {
		if s.file == nil {
			theirs[i].Close()
		}
	}
	if err != nil {
		closeAll(ours)
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("start %s: %w", c.Binary, err))
	}
	return p, nil
}

// open creates a socket pair for each slot that has no file.
func open(slots []slot) (ours map[string]net.Conn, theirs []*os.File, err error) {
	ours = map[string]net.Conn{}
	for _, s := range slots {
		f := s.file
		if f == nil {
			if ours[s.name], f, err = SocketPair(s.name); err != nil {
				closeAll(ours)
				for i, f := range theirs {
					if slots[i].file == nil {
						f.Close()
					}
				}
				return nil, nil, err
			}
		}
		theirs = append(theirs, f)
	}
	return ours, theirs, nil
}

// SocketPair returns a connection and the other end of it as a file, for QEMU.
func SocketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair %s: %w", name, err)
	}
	return conn, theirs, nil
}

func closeAll(conns map[string]net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// supervise runs on the thread that forked QEMU and keeps it locked until QEMU ends.
func (p *Process) supervise(ctx context.Context, cmd *exec.Cmd) {
	stop := context.AfterFunc(ctx, p.signalKill)
	defer stop()
	// The zombie keeps its pid, so its group can be killed before it is reaped.
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	unix.Kill(-p.pid, unix.SIGKILL)
	p.reaped = true
	p.mu.Unlock()

	err := cmd.Wait()
	usage.Add(ctx, cmd.ProcessState)
	if cmd.ProcessState == nil {
		p.err = fmt.Errorf("wait for %s: %w", p.argv[0], err)
	} else if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws != 0 {
		e := &ExitError{Code: ws.ExitStatus(), Stderr: p.out.String(), Argv: p.argv}
		if ws.Signaled() {
			e.Signal = ws.Signal()
		}
		p.err = e
		if ctx.Err() != nil {
			p.err = fmt.Errorf("%w: %w", context.Cause(ctx), e)
		}
	}
	close(p.done)
}

// signalKill kills QEMU and its whole group immediately.
func (p *Process) signalKill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// Kill kills QEMU with SIGKILL and returns when it has exited. It may be called at any
// time and more than once. QEMU is not asked to quit: it has no disk to close, and a
// guest has no state besides its memory.
func (p *Process) Kill() {
	p.signalKill()
	<-p.done
}

// PID returns the ID of QEMU's process and process group.
func (p *Process) PID() int { return p.pid }

// Program returns the path of the binary.
func (p *Process) Program() string { return p.path }

// Conn returns the host's end of the chardev with that name, or nil if the command
// has none. It is the same one each time; the caller must close it. What QEMU wrote
// before it exited can still be read afterwards.
func (p *Process) Conn(name string) net.Conn { return p.conns[name] }

// Done is closed when QEMU has exited.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until QEMU has exited. It returns nil for exit status 0, else an error
// that wraps an *ExitError, and the context's cause if that ended QEMU. It may be
// called any number of times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stderr returns the end of QEMU's output so far, standard output and error, at most
// MaxStderr bytes.
func (p *Process) Stderr() string { return p.out.String() }

// ExitError reports that QEMU ended other than with exit status 0.
type ExitError struct {
	Code   int            // -1 after a signal
	Signal syscall.Signal // 0 after an exit
	Stderr string
	Argv   []string
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exited with status %d", e.Code)
	if e.Signal != 0 {
		how = fmt.Sprintf("was killed by %s", unix.SignalName(e.Signal))
	}
	name := filepath.Base(e.Argv[0])
	if why := reason(e.Stderr, name+":"); why != "" {
		return name + " " + how + ": " + why
	}
	return name + " " + how
}

// Outcome is HostLacks: the host's QEMU rejects its command line, lacks a device, or
// crashed.
func (e *ExitError) Outcome() outcome.Kind { return outcome.HostLacks }

// reason returns the last line that starts with QEMU's name, without it, since hints
// may follow that line; without such a line, the last line.
func reason(stderr, sign string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, l := range slices.Backward(lines) {
		if why, ok := strings.CutPrefix(l, sign); ok {
			return strings.TrimSpace(why)
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

// NotFoundError reports that a QEMU program is not on this host.
type NotFoundError struct {
	Binary string
	Remedy string // what to do
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s not found; %s", e.Binary, e.Remedy)
}

// Outcome is HostLacks.
func (e *NotFoundError) Outcome() outcome.Kind { return outcome.HostLacks }

func find(binary string) (string, error) {
	path, err := exec.LookPath(binary)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return "", &NotFoundError{Binary: binary, Remedy: "on Debian: apt-get install qemu-system-x86 qemu-system-arm"}
	}
	if err != nil {
		return "", outcome.Default(outcome.HostLacks, fmt.Errorf("find %s: %w", binary, err))
	}
	return path, nil
}
