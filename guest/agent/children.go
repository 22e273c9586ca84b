package agent

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children starts programs and collects them. PID 1 must collect the orphans it
// inherits too, by waiting for any child; that would take the status of a
// program away from whoever waits for it by number. So there is one collector,
// and one lock held across start-and-note and across wait-and-tell: a status is
// never seen before its program is known, and a process group is never
// signalled after its number is free again.
type children struct {
	mu    sync.Mutex
	alive map[int]*child
	ended bool // no more starts
}

// child is a running program, leader of its own process group.
type child struct {
	pid  int
	done chan struct{} // closed when status holds
	// status is valid after done.
	status syscall.WaitStatus
}

func newChildren() *children { return &children{alive: make(map[int]*child)} }

// start runs a program. It uses ForkExec, because os.StartProcess first clones
// a process to try pidfds, which would show up in the task-creation traces.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr) (*child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, errors.New("session is over")
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	ch := &child{pid: pid, done: make(chan struct{})}
	c.alive[pid] = ch
	return ch, nil
}

// signal sends sig to the program's process group while the program lives.
func (c *children) signal(ch *child, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive[ch.pid] != ch {
		return unix.ESRCH
	}
	return syscall.Kill(-ch.pid, sig)
}

// collect reaps children until ctx is done.
func (c *children) collect(ctx context.Context) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, unix.SIGCHLD)
	defer signal.Stop(sig)
	for {
		c.reap() // also those that ended before Notify
		select {
		case <-sig:
		case <-ctx.Done():
			return
		}
	}
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch := c.alive[pid]; ch != nil {
			delete(c.alive, pid)
			ch.status = ws
			close(ch.done)
		}
	}
}

// killAll kills every program with its process group and lets none start.
func (c *children) killAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for pid := range c.alive {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
}
