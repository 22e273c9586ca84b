package shell

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// group is a process group: what runs in the foreground of a terminal, or a job.
type group struct {
	id      int
	mu      sync.Mutex
	changed *sync.Cond
	procs   []*process
	front   bool          // it has the terminal
	modes   *unix.Termios // of the terminal when it was stopped
	isJob   atomic.Bool   // it was stopped: the line that started it is over
}

// process is one of a group.
type process struct {
	cmd   *exec.Cmd
	state state
	end   int // its status, once it has ended
}

type state int

const (
	running state = iota
	stopped
	ended
)

func newGroup() *group {
	g := &group{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// add notes a program that was started, and follows what becomes of it. The lock is held.
func (g *group) add(cmd *exec.Cmd) *process {
	p := &process{cmd: cmd}
	if len(g.procs) == 0 {
		g.id = cmd.Process.Pid
	}
	g.procs = append(g.procs, p)
	go g.follow(p)
	return p
}

// codeStopped is CLD_STOPPED of a child's siginfo (include/uapi/asm-generic/siginfo.h).
const codeStopped = 5

// follow waits for each change of a process until its end.
func (g *group) follow(p *process) {
	set := func(s state) {
		g.mu.Lock()
		defer g.mu.Unlock()
		p.state = s
		g.changed.Broadcast()
		if s == stopped {
			g.stopRest()
		}
	}
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || info.Code != codeStopped {
			break
		}
		// The change is taken, and not the end, which is for Wait.
		if unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOHANG, nil) == nil {
			set(stopped)
		}
	}
	p.end = programStatus(p.cmd.Wait())
	set(ended)
}

// stopRest stops all of a group in the foreground of which a process was stopped: one
// that joined it since Ctrl-Z has not got that. The lock is held.
func (g *group) stopRest() {
	if g.front && !g.is(ended, stopped) {
		syscall.Kill(-g.id, unix.SIGTSTP)
	}
}

// is reports whether all processes are in one of the states. The lock is held.
func (g *group) is(states ...state) bool {
	return !slices.ContainsFunc(g.procs, func(p *process) bool { return !slices.Contains(states, p.state) })
}

// settled waits until p has ended, or all of its group has ended or stopped. p is nil
// for the latter alone.
func (g *group) settled(p *process) state {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		switch {
		case p != nil && p.state == ended, g.is(ended):
			return ended
		case g.is(ended, stopped):
			return stopped
		}
		g.changed.Wait()
	}
}

// state is how the group is as a whole.
func (g *group) state() state {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.is(ended):
		return ended
	case g.is(ended, stopped):
		return stopped
	}
	return running
}

// resume continues a group that was stopped; front says that it has the terminal.
func (g *group) resume(front bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.front = front
	for _, p := range g.procs {
		if p.state == stopped {
			p.state = running
		}
	}
	syscall.Kill(-g.id, unix.SIGCONT)
}

// jobControl is a terminal whose foreground the shell gives to what it runs, and takes back
// (POSIX 2.11, "job control"; glibc's manual, "Implementing a Job Control Shell").
type jobControl struct {
	fd    int
	own   int           // the shell's process group
	modes *unix.Termios // when the foreground was given away

	mu         sync.Mutex
	foreground *group // nil while it is the shell's
	abandon    func() // ends the line that is being run
	suspended  bool   // the line was ended by a stop
	source     string // of the statement that is being run
}

// newControl returns nil where there is nothing to control: no controlling terminal, or
// one that is another's.
func newControl(fd int) *jobControl {
	// A shell that started this one gives it the foreground only when it runs.
	for range 100 {
		pgrp, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err != nil {
			return nil
		}
		if pgrp == unix.Getpgrp() {
			return &jobControl{fd: fd, own: pgrp}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// give makes a group the terminal's foreground. The signal for those who do so from the
// background is blocked meanwhile: the call would be repeated without end if it were
// caught, and the programs to come would inherit that it is ignored.
func (c *jobControl) give(pgrp int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] |= 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old) == nil {
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	}
	unix.IoctlSetPointerInt(c.fd, unix.TIOCSPGRP, pgrp)
}

// take takes the foreground back. A program that was stopped or killed may have left the
// terminal in any mode.
func (c *jobControl) take(g *group, restore bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreground != g {
		return
	}
	c.foreground = nil
	g.mu.Lock()
	g.front = false
	g.mu.Unlock()
	c.give(c.own)
	if restore {
		g.modes, _ = unix.IoctlGetTermios(c.fd, unix.TCGETS)
		if c.modes != nil {
			unix.IoctlSetTermios(c.fd, unix.TCSETS, c.modes)
		}
	}
}

// start starts a program in the foreground: in the group of those that run there already,
// as the other parts of a pipeline do, or in one of its own.
func (c *jobControl) start(cmd *exec.Cmd) (*group, *process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.foreground; g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.is(ended) {
			again := *cmd
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.id}
			// Ctrl-Z may stop it before it has become the program, for which Start waits.
			wake := time.AfterFunc(time.Second/2, func() { syscall.Kill(-g.id, unix.SIGCONT) })
			err := cmd.Start()
			wake.Stop()
			if err == nil {
				p := g.add(cmd)
				if slices.ContainsFunc(g.procs, func(p *process) bool { return p.state == stopped }) {
					g.stopRest()
				}
				return g, p, nil
			}
			if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ESRCH) {
				return nil, nil, err
			}
			*cmd = again // its group has ended just now
		}
	}
	g := newGroup()
	c.modes, _ = unix.IoctlGetTermios(c.fd, unix.TCGETS)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	// Only now, and not by the child: Ctrl-Z would stop it before it has become the
	// program, for which Start waits. What has used the terminal already was stopped
	// for that, and goes on.
	c.give(cmd.Process.Pid)
	syscall.Kill(-cmd.Process.Pid, unix.SIGCONT)
	g.mu.Lock()
	defer g.mu.Unlock()
	c.foreground, g.front = g, true
	return g, g.add(cmd), nil
}

// end ends the line that is being run.
func (c *jobControl) end(suspended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspended = c.suspended || suspended
	if c.abandon != nil {
		c.abandon()
	}
}

// line is for the start of a line, which abandon ends.
func (c *jobControl) line(abandon func()) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon, c.suspended = abandon, false
}

// statement notes what is being run, for a job's name.
func (c *jobControl) statement(source string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = source
}

// wasSuspended reports whether the line ended because what it ran was stopped.
func (c *jobControl) wasSuspended() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspended
}

// runForeground runs a program that the terminal's keys are for.
func (s *shell) runForeground(ctx context.Context, make func() *exec.Cmd, other func() *exec.Cmd) (status int, err error) {
	g, p, err := s.control.start(make())
	if errors.Is(err, syscall.ENOEXEC) { // a script without #!
		g, p, err = s.control.start(other())
	}
	if err != nil {
		return 0, err
	}
	defer forward(ctx, func() {
		if !g.isJob.Load() {
			p.cmd.Process.Signal(unix.SIGINT)
		}
	})()
	if g.settled(p) == stopped {
		s.suspend(g)
		return statusStopped, nil
	}
	if g.state() == ended {
		s.control.take(g, p.end > statusSignal)
	}
	if p.end == statusInterrupted {
		s.control.end(false) // Ctrl-C is meant for the rest of the line, too
	}
	return p.end, nil
}

// forward has interrupt called if the line ends within a second, until stop is called:
// Ctrl-C may have come just before there was a program to get it.
func forward(ctx context.Context, interrupt func()) (stop func() bool) {
	began := time.Now()
	return context.AfterFunc(ctx, func() {
		if time.Since(began) < time.Second {
			interrupt()
		}
	})
}

// suspend makes a job of what was stopped, and ends the line.
func (s *shell) suspend(g *group) {
	g.isJob.Store(true)
	s.control.take(g, true)
	s.control.mu.Lock()
	source := s.control.source
	s.control.mu.Unlock()
	if job, say := s.jobs.of(g, source); say {
		fmt.Fprintf(s.stderr, "\n[%d]  %-12s %s\n", job.number, "Stopped", job.source)
	}
	s.control.end(true)
}

// continueJob is the builtin fg, and bg.
func (s *shell) continueJob(ctx context.Context, name string, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if s.control == nil {
		return s.fail(hc, 1, "%s: no job control in this shell", name)
	}
	which := "%%"
	if len(args) > 0 {
		which = args[0]
	}
	job := s.jobs.find(which)
	if job == nil {
		return s.fail(hc, 1, "%s: %s: no such job", name, which)
	}
	if name == "bg" {
		fmt.Fprintf(hc.Stdout, "[%d] %s &\n", job.number, job.source)
		s.jobs.continued(job)
		job.group.resume(false)
		return nil
	}
	c := s.control
	c.mu.Lock()
	c.foreground = job.group
	c.modes, _ = unix.IoctlGetTermios(c.fd, unix.TCGETS)
	c.source = job.source
	c.give(job.group.id)
	if job.group.modes != nil {
		unix.IoctlSetTermios(c.fd, unix.TCSETS, job.group.modes)
	}
	c.mu.Unlock()
	// Who sees the line may type the keys that are meant for the job.
	fmt.Fprintln(hc.Stdout, job.source)
	s.jobs.continued(job)
	stop := forward(ctx, func() { syscall.Kill(-job.group.id, unix.SIGINT) })
	job.group.resume(true)
	state := job.group.settled(nil)
	stop()
	if state == stopped {
		s.suspend(job.group)
		return exitStatus(statusStopped)
	}
	<-job.done
	s.jobs.forget(job)
	c.take(job.group, job.status > statusSignal)
	if job.status == statusInterrupted {
		c.end(false)
	}
	return exitStatus(job.status)
}

func (s *shell) fg(ctx context.Context, args []string) error { return s.continueJob(ctx, "fg", args) }
func (s *shell) bg(ctx context.Context, args []string) error { return s.continueJob(ctx, "bg", args) }
