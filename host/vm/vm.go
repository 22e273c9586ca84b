// Package vm is one guest from QEMU's start to its end: the phases of its boot
// and their deadlines, its console, its agent, and how it died.
package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/targets"
	"labctl/host/vm/agent"
	"labctl/host/vm/qemu"
	"labctl/host/vm/qmp"
)

// InitPath is PID 1 in the initramfs.
const InitPath = "/labctl/labinit"

// Names of the sockets between labctl and QEMU.
const (
	consoleConn = "console"
	linkConn    = "labctl"
)

// Config is a guest to boot. Everything in it is decided: nothing is looked up.
type Config struct {
	Target   targets.Target
	Link     targets.Link
	Image    string // kernel
	Initrd   string
	DTB      string // empty: the machine's own
	CPUs     int    // 0: the target's
	MemoryMB int    // 0: the target's
	Accel    string // "tcg", "kvm"
	Append   []string

	// ConsoleLog is written as the console comes; CommandLog gets QEMU's
	// command line. Empty ones are not written.
	// RegistersLog gets the CPUs' registers when a deadline passes.
	ConsoleLog   string
	CommandLog   string
	RegistersLog string
	// Spool, when set, gets the logs in place of the files.
	Spool *Spool
	// ConsoleBefore opens the log: what the console of a snapshot said before
	// it was saved.
	ConsoleBefore []byte
	// Console, when set, gets the console live, raw.
	Console io.Writer
	// Patience multiplies every deadline; 0 is 1.
	Patience float64

	// Window is how many bytes of memory the guest shares with labctl, a power of
	// two; 0 for none. Files for the guest go by it as far as they fit.
	Window int64
	// RAM, when set, is the guest's memory, so that Save can leave it behind: an
	// empty file that is as long as the memory.
	RAM *os.File
	// Snapshot, when set, is where the guest starts from. All else must be as it
	// was when the snapshot was saved.
	Snapshot *Snapshot
}

// Phase is a step of the boot.
type Phase string

const (
	PhaseQEMU   Phase = "qemu"   // QEMU starts, until it answers QMP
	PhaseKernel Phase = "kernel" // until the kernel's first line
	PhaseInit   Phase = "init"   // until PID 1 runs
	PhaseHello  Phase = "hello"  // until the agent's first frame

	// From a snapshot, after PhaseQEMU:
	PhaseRestore Phase = "restore" // until QEMU loads the devices' state
	PhaseResume  Phase = "resume"  // until the agent answers
)

// deadlines are for a machine of two busy cores without KVM, where a Debian
// kernel takes 2 to 10 seconds to come up and a snapshot a fifth of one.
var deadlines = map[Phase]time.Duration{
	PhaseQEMU:    20 * time.Second,
	PhaseKernel:  60 * time.Second,
	PhaseInit:    180 * time.Second,
	PhaseHello:   60 * time.Second,
	PhaseRestore: 10 * time.Second,
	PhaseResume:  10 * time.Second,
}

// Timing is how long a phase took on the host's clock.
type Timing struct {
	Phase Phase
	Took  time.Duration
}

// BootError is a guest that did not come up.
type BootError struct {
	Phase    Phase
	After    time.Duration // since QEMU's start
	Deadline bool          // the phase took too long
	Cause    error
	State
}

func (e *BootError) Error() string {
	what := "ended"
	if e.Deadline {
		what = "took too long"
	}
	s := fmt.Sprintf("boot: phase %s %s after %.1f s", e.Phase, what, e.After.Seconds())
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *BootError) Unwrap() error { return e.Cause }

// Outcome is Deadline when the phase took too long, else that of the cause, and
// GuestCrashed where the guest came up as something else.
func (e *BootError) Outcome() outcome.Kind {
	switch {
	case e.Deadline:
		return outcome.Deadline
	case e.Cause == nil:
		return outcome.GuestCrashed
	}
	return outcome.Of(outcome.Default(outcome.GuestCrashed, e.Cause))
}

// How is the cause's word where it has one, else NotBooted.
func (e *BootError) How() outcome.How { return cmp.Or(outcome.HowOf(e.Cause), outcome.NotBooted) }

// Reached is the phase of the boot that did not end.
func (e *BootError) Reached() string { return string(e.Phase) }

// CrashError is a guest whose kernel died.
type CrashError struct {
	Report *crash.Report
	Log    string
}

func (e *CrashError) Error() string { return e.Report.Error() }

// Outcome is GuestCrashed.
func (e *CrashError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is the kind of the report: "panic".
func (e *CrashError) How() outcome.How { return outcome.How(e.Report.Kind) }

// Seen is what the console reported.
func (e *CrashError) Seen() (cpus []string, report *crash.Report) { return nil, e.Report }

// RefusedError is a QEMU that left before the guest's first word: it does not
// take its command line, or lacks a device or a file.
type RefusedError struct{ *qemu.ExitError }

func (e *RefusedError) Error() string { return "QEMU did not start the guest: " + e.ExitError.Error() }

func (e *RefusedError) Unwrap() error { return e.ExitError }

// How is Refused.
func (e *RefusedError) How() outcome.How { return outcome.Refused }

// DiedError is a QEMU that was killed, crashed or gave up under a guest.
type DiedError struct{ *qemu.ExitError }

func (e *DiedError) Error() string { return "QEMU ended under the guest: " + e.ExitError.Error() }

func (e *DiedError) Unwrap() error { return e.ExitError }

// How is Died.
func (e *DiedError) How() outcome.How { return outcome.Died }

// gone is a guest that ended without a report of its kernel's.
type gone struct {
	how  outcome.How
	text string
}

func (e *gone) Error() string         { return e.text }
func (e *gone) Outcome() outcome.Kind { return outcome.GuestCrashed }
func (e *gone) How() outcome.How      { return e.how }

// ErrPoweredOff says that the guest powered off or restarted by itself: QEMU
// left with status 0 and the console shows no panic.
var ErrPoweredOff error = &gone{outcome.PoweredOff, "the guest powered off"}

// ErrReset says that the machine was reset and no kernel said so: on x86 a triple
// fault, which is an exception while one is handled.
var ErrReset error = &gone{outcome.Reset, "the guest was reset without a word, as by a triple fault"}

// VM is a guest whose agent has said hello.
type VM struct {
	cfg     Config
	proc    *qemu.Process
	mon     *qmp.Monitor
	con     *console
	window  *os.File // nil for none
	client  *agent.Client
	hello   wire.Hello
	timings []Timing
	started time.Time

	ctx    context.Context
	cancel context.CancelCauseFunc
	closed atomic.Bool                 // by Close: QEMU's end says nothing of the guest
	base   context.Context             // Boot's
	unbind func() bool                 // lets the guest outlive it
	asked  atomic.Pointer[qmp.Monitor] // mon, for who looks while the boot goes on

	asking sync.Once // sets reason
	reason string
}

// Boot starts the guest and returns once its agent is there. The guest lives
// no longer than ctx, and when that ends by a deadline, as long as it takes to
// look at the CPUs. Errors are *BootError, which may hold a *RefusedError or a
// *DiedError, *CrashError, *DeadlineError, *qemu.NotFoundError or the context's
// cause.
func Boot(ctx context.Context, cfg Config) (_ *VM, err error) {
	var restore restore
	if cfg.Snapshot != nil {
		if err := restore.open(cfg); err != nil {
			return nil, err
		}
		defer restore.close()
	}
	window, err := newWindow(cfg.Window)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			window.Close()
		}
	}()
	cmd, err := command(cfg, &restore, window)
	if err != nil {
		return nil, err
	}
	if cfg.CommandLog != "" {
		if err := cfg.writeLog(cfg.CommandLog, cmd.String()+"\n"); err != nil {
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("write QEMU's command line: %w", err))
		}
	}
	con, err := newConsole(cfg)
	if err != nil {
		return nil, err
	}
	v := &VM{cfg: cfg, con: con, window: window, base: ctx, started: time.Now()}
	if ctx.Err() != nil {
		con.close()
		return nil, context.Cause(ctx)
	}
	v.ctx, v.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if v.proc, err = qemu.Start(v.ctx, cmd); err != nil {
		v.cancel(err)
		con.close()
		return nil, err
	}
	v.unbind = context.AfterFunc(ctx, func() { v.expire(ctx) })
	if err := v.boot(&restore); err != nil {
		err = v.Why(err)
		v.Close()
		return nil, err
	}
	if n := min(v.hello.Window, cfg.Window); n > 0 {
		v.client.SetWindow(v.window, n)
	}
	go v.watch()
	return v, nil
}

// expire ends the guest with the context that it was booted under.
func (v *VM) expire(ctx context.Context) {
	cause := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		cause = &DeadlineError{After: time.Since(v.started), Cause: cause, State: v.state()}
	}
	v.cancel(cause)
}

// boot walks the phases, one by one, so that a deadline names the one that is
// stuck.
func (v *VM) boot(r *restore) error {
	v.con.start(v.proc.Conn(consoleConn))
	v.client = agent.New(v.proc.Conn(linkConn), v.con.stray)

	at := v.started
	done := func(p Phase, now time.Time) {
		v.timings = append(v.timings, Timing{p, now.Sub(at)})
		at = now
	}
	if err := v.step(PhaseQEMU, func(ctx context.Context) error {
		mon, err := qmp.New(ctx, v.proc.Conn(qemu.QMPName))
		if err != nil {
			return err
		}
		v.mon = mon
		v.asked.Store(mon)
		return nil
	}); err != nil {
		return err
	}
	done(PhaseQEMU, time.Now())
	if v.cfg.Snapshot != nil {
		return v.restore(r, done)
	}

	hello := make(chan error, 1)
	go func() {
		h, err := v.client.Hello(v.ctx)
		v.hello = h
		hello <- err
	}()
	// A quiet kernel says nothing before the agent does, so each wait ends with
	// the hello too.
	var helloErr error
	said := false
	wait := func(ch <-chan struct{}) func(context.Context) error {
		return func(ctx context.Context) error {
			if said {
				return helloErr
			}
			select {
			case <-ch:
				return nil
			case helloErr = <-hello:
				said = true
				return helloErr
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	if err := v.step(PhaseKernel, wait(v.con.first)); err != nil {
		return err
	}
	done(PhaseKernel, time.Now())
	if err := v.step(PhaseInit, wait(v.con.init)); err != nil {
		return err
	}
	initAt := time.Now()
	if err := v.step(PhaseHello, wait(nil)); err != nil {
		return err
	}
	// The guest knows best when PID 1 began: the console lags.
	helloAt := time.Now()
	if d := v.hello.HelloSec - v.hello.InitSec; d > 0 && d < helloAt.Sub(at).Seconds() {
		initAt = helloAt.Add(-time.Duration(d * float64(time.Second)))
	}
	done(PhaseInit, initAt)
	done(PhaseHello, helloAt)
	return nil
}

// errDeadline marks a phase's own deadline among the causes of a context.
var errDeadline = errors.New("deadline")

// step runs one phase under its deadline and ends early when the guest dies.
func (v *VM) step(p Phase, f func(context.Context) error) error {
	limit := deadlines[p]
	if v.cfg.Patience > 0 {
		limit = time.Duration(float64(limit) * v.cfg.Patience)
	}
	ctx, cancel := context.WithTimeoutCause(v.ctx, limit, errDeadline)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-v.con.panicked:
			stop(errDied)
		case <-v.proc.Done():
			stop(errDied)
		case <-ctx.Done():
		}
	}()
	err := f(ctx)
	if err == nil {
		return nil
	}
	boot := &BootError{
		Phase: p, After: time.Since(v.started).Round(time.Millisecond),
		Deadline: errors.Is(err, errDeadline), Cause: err,
		State: State{Tail: v.con.tail(), Log: v.cfg.ConsoleLog},
	}
	if boot.Deadline {
		boot.State = v.state()
	}
	return boot
}

// errDied is a cause that Why replaces by what killed the guest.
var errDied = outcome.New(outcome.GuestCrashed, "the guest ended")

// watch ends the VM's context when the guest dies.
func (v *VM) watch() {
	err := errDied
	select {
	case <-v.con.panicked:
	case <-v.proc.Done():
	case <-v.client.Done():
		err = v.client.Err()
	case <-v.ctx.Done():
		return
	}
	if why := v.Why(err); !v.closed.Load() {
		v.cancel(why)
	}
}

// settle is how long a dying guest is given to finish its last words, and QEMU
// to go. Both take milliseconds, but on a busy host many of them.
const settle = 15 * time.Second

// Why explains err: when the guest died under an operation, the operation's own
// error is only that the link ended. It waits for the last words on the
// console and returns the *CrashError, ErrPoweredOff, ErrReset or QEMU's error; a
// *BootError keeps its phase with that as its cause. A deadline under which the
// guest did not die becomes a *DeadlineError or an *AgentError. Other errors
// come back as they are.
func (v *VM) Why(err error) error {
	if err == nil {
		return nil
	}
	if v.base.Err() != nil && !v.closed.Load() {
		<-v.ctx.Done() // expire is at it
	}
	if cause := context.Cause(v.ctx); cause != nil && v.ctx.Err() != nil {
		return cause
	}
	var boot *BootError
	isBoot := errors.As(err, &boot)
	died := errors.Is(err, errDied) || errors.Is(err, agent.ErrClosed) || errors.Is(err, qmp.ErrClosed) || isBoot && boot.Deadline
	if !died {
		var late *DeadlineError
		if errors.Is(err, context.DeadlineExceeded) && !isBoot && !errors.As(err, &late) {
			return v.late(err)
		}
		return err
	}
	v.awaitEnd(isBoot && boot.Deadline)
	if r := v.con.report(); r != nil {
		return &CrashError{Report: r, Log: v.cfg.ConsoleLog}
	}
	why := err
	select {
	case <-v.proc.Done():
		why = v.left()
	default:
		if isBoot && boot.Deadline {
			why = nil
		}
	}
	if isBoot {
		boot.Cause, boot.Tail = why, v.con.tail()
		return boot
	}
	return why
}

// left says how QEMU, which is gone, ended.
func (v *VM) left() error {
	err := v.proc.Wait()
	var exit *qemu.ExitError
	switch {
	case err == nil && v.shutdown() == "guest-reset" && !v.con.restarts():
		return ErrReset
	case err == nil:
		return ErrPoweredOff
	case !errors.As(err, &exit):
		return err
	case exit.Signal == 0 && v.cfg.Snapshot == nil && !v.con.spoke():
		return &RefusedError{exit}
	}
	return &DiedError{exit}
}

// shutdown is QEMU's own reason for its end (QEMU: qapi/run-state.json,
// ShutdownCause), empty when it gave none.
func (v *VM) shutdown() string {
	v.asking.Do(func() {
		mon := v.asked.Load()
		if mon == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), settle)
		defer cancel()
		events, err := mon.Events(ctx) // those so far too
		if err != nil {
			return
		}
		for e := range events {
			if reason, ok := e.Data["reason"].(string); ok && e.Event == "SHUTDOWN" {
				v.reason = reason
			}
		}
	})
	return v.reason
}

// awaitEnd waits until a panic's report is whole or QEMU is gone and its
// console read to the end. A guest that is merely late is not waited for.
func (v *VM) awaitEnd(late bool) {
	if late && v.con.report() == nil {
		return
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	gone, ended := v.proc.Done(), (<-chan struct{})(v.con.ended)
	for gone != nil || ended != nil {
		select {
		case <-gone:
			gone = nil
		case <-ended:
			ended = nil
		case <-v.con.reported:
			return
		case <-timer.C:
			return
		}
	}
}

// Hello is the agent's first frame.
func (v *VM) Hello() wire.Hello { return v.hello }

// Agent is the link to the agent.
func (v *VM) Agent() *agent.Client { return v.client }

// QMP is the monitor.
func (v *VM) QMP() *qmp.Monitor { return v.mon }

// PID is QEMU's process.
func (v *VM) PID() int { return v.proc.PID() }

// Context ends with the guest; its cause says why.
func (v *VM) Context() context.Context { return v.ctx }

// Timings are the phases of the boot.
func (v *VM) Timings() []Timing { return v.timings }

// BootTime is from QEMU's start to the hello.
func (v *VM) BootTime() time.Duration {
	var d time.Duration
	for _, t := range v.timings {
		d += t.Took
	}
	return d
}

// Patient scales a deadline that was set for a machine on which a boot takes
// two seconds by how long it took here.
func (v *VM) Patient(d time.Duration) time.Duration {
	boot := v.BootTime()
	if s := v.cfg.Snapshot; s != nil {
		boot = max(boot, s.BootTime)
	}
	f := max(1, boot.Seconds()/2)
	if v.cfg.Patience > 0 {
		f *= v.cfg.Patience
	}
	return time.Duration(float64(d) * f)
}

// Reports are the crashes on the console so far, oopses included.
func (v *VM) Reports() []*crash.Report { return v.con.reports() }

// consoleLag is how far the console may be behind the agent's word of the same
// event: each has a device of its own.
const consoleLag = time.Second

// Killed is the report of the guest's OOM killer on the process pid, or, with
// pid 0, on the last one that it killed; nil when there is none. It waits a
// moment for the console.
func (v *VM) Killed(pid int) *crash.Report {
	for end := time.Now().Add(v.Patient(consoleLag)); ; time.Sleep(10 * time.Millisecond) {
		all := v.con.reports()
		for i := range all {
			r := all[len(all)-1-i]
			if r.Victim != nil && (pid == 0 || r.Victim.PID == pid) {
				return r
			}
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// Close ends QEMU and the console's log. The guest's memory is all the state
// there is, so nothing is lost by not shutting it down. Close returns what went
// wrong in writing the log.
func (v *VM) Close() error {
	v.closed.Store(true)
	v.unbind()
	v.proc.Kill()
	if v.client != nil {
		v.client.Close()
	}
	if v.mon != nil {
		v.mon.Disconnect()
	}
	v.cancel(errors.New("the VM was closed"))
	v.window.Close()
	return v.con.close()
}

// newWindow makes the memory that a guest shares with labctl, and nobody else.
func newWindow(size int64) (*os.File, error) {
	if size == 0 {
		return nil, nil
	}
	fd, err := unix.MemfdCreate("window", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "window")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("make the guest's window: %w", err))
	}
	return f, nil
}

// command builds QEMU's command line.
func command(cfg Config, r *restore, window *os.File) (*qemu.Command, error) {
	t := cfg.Target
	cpu, board := t.CPU, qemu.Machine{Type: t.Machine}
	if cfg.Accel == "kvm" {
		cpu, board.Options = "host", t.KVMOptions
	}
	devices := []qemu.Device{
		qemu.Defaults{}, qemu.Sandbox{},
		board,
		qemu.Accel{Name: cfg.Accel, Thread: t.TCGThread},
		qemu.CPU(cpu), qemu.QMP{},
	}
	if !t.Fixed {
		mem := qemu.Memory{MiB: pick(cfg.MemoryMB, t.MemoryMB), Inherit: cfg.RAM, Share: cfg.RAM != nil}
		if cfg.Snapshot != nil {
			mem.File = cfg.Snapshot.RAM
			devices = append(devices, qemu.Incoming{State: r.state, FD: &r.fd})
		}
		devices = append(devices, mem, qemu.SMP(pick(cfg.CPUs, t.CPUs)))
	} else if cfg.MemoryMB > 0 && cfg.MemoryMB != t.MemoryMB || cfg.CPUs > 0 && cfg.CPUs != t.CPUs {
		return nil, outcome.Inputf("%s always has %d CPUs and %d MB of memory", t.Name, t.CPUs, t.MemoryMB)
	}
	last := t.ConsoleSerial
	link := "labctl.link=virtio"
	if cfg.Link.Kind == "uart" {
		last = max(last, cfg.Link.Serial)
		link = "labctl.link=tty:" + cfg.Link.TTY
	} else {
		devices = append(devices, qemu.VirtioSerial{Driver: "virtio-serial-pci", Ports: []string{linkConn}})
	}
	if cfg.Window > 0 {
		devices = append(devices, qemu.Window{File: window, Bytes: cfg.Window, Share: cfg.Snapshot == nil})
	}
	for i := 0; i <= last; i++ {
		switch {
		case i == t.ConsoleSerial:
			devices = append(devices, qemu.Serial{Name: consoleConn})
		case cfg.Link.Kind == "uart" && i == cfg.Link.Serial:
			devices = append(devices, qemu.Serial{Name: linkConn})
		default:
			devices = append(devices, qemu.NoSerial{})
		}
	}
	// panic=-1 resets at once and -no-reboot makes that QEMU's end, so a panic
	// is known as soon as it is printed.
	args := append([]string{}, t.Console...)
	args = append(args, t.Append...)
	args = append(args, "rdinit="+InitPath, "panic=-1", link)
	args = append(args, cfg.Append...)
	for _, a := range args {
		if strings.ContainsAny(a, "\n\x00") {
			return nil, outcome.Inputf("kernel argument %q: holds a line break", a)
		}
	}
	kernel := qemu.Kernel{Image: cfg.Image, Initrd: cfg.Initrd, DTB: cfg.DTB, Append: args}
	if cfg.Snapshot != nil {
		kernel.Inherit, kernel.Initrd = r.head, ""
	}
	devices = append(devices, kernel)
	return qemu.New(t.Binary, devices...)
}

func pick(v, otherwise int) int {
	if v > 0 {
		return v
	}
	return otherwise
}
