package vm

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/vm/agent"
)

// Joined is a guest that another process owns.
type Joined struct {
	Inspector
	Agent   net.Conn // speaks the agent's protocol
	Console net.Conn // what the guest prints from now on
	// Window, if set, is the guest's window, of WindowSize bytes.
	Window     *os.File
	WindowSize int64
	Started    time.Time
	Pace       time.Duration // how long it took to boot
	Tainted    uint64        // what its kernel is tainted by already
	QEMU       int           // process ID

	// Wait returns how the guest ended; Ended is closed then.
	Wait  func() error
	Ended <-chan struct{}
	// Alone reports whether the programs of this process are the only ones.
	Alone func(context.Context) bool
}

// process is that of a guest that is not this process's: it is not killed.
type joinedProcess struct{ *Joined }

func (p joinedProcess) PID() int              { return p.QEMU }
func (p joinedProcess) Program() string       { return "" }
func (p joinedProcess) Done() <-chan struct{} { return p.Ended }
func (p joinedProcess) Wait() error           { return p.Joined.Wait() }
func (p joinedProcess) Kill()                 {}

// Join makes a VM of a guest that another process owns. Its console is that from now
// on: reports of the kernel's from before are not this VM's. When ctx ends, and at
// Close, the programs that were started by it are killed; the guest lives on. Of cfg only
// the logs, Spool, Console, Autopsy and Patience are used.
func Join(ctx context.Context, cfg Config, j *Joined) (*VM, error) {
	con, err := newConsole(Config{ConsoleLog: cfg.ConsoleLog, Spool: cfg.Spool, Console: cfg.Console})
	if err != nil {
		j.Agent.Close()
		j.Console.Close()
		return nil, err
	}
	v := &VM{cfg: cfg, con: con, joined: j, proc: joinedProcess{j}, window: j.Window, base: ctx, started: j.Started}
	v.ctx, v.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	v.con.start(j.Console)
	v.client = agent.New(j.Agent, nil)
	v.client.TaintedBefore(j.Tainted)
	v.unbind = context.AfterFunc(ctx, func() { v.expire(ctx) })
	hello, cancel := context.WithTimeoutCause(v.ctx, helloWait, errDeadline)
	defer cancel()
	if v.hello, err = v.client.Hello(hello); err != nil {
		err = fmt.Errorf("join the machine: %w", v.Why(err))
		v.Close()
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	if j.Window != nil && j.WindowSize > 0 {
		v.client.SetWindow(j.Window, j.WindowSize)
	}
	go v.watch()
	return v, nil
}

// helloWait is for the hello, which the owner sends, not the guest.
const helloWait = 5 * time.Second

// lastWords is how long the owner may take to send the rest of the console.
const lastWords = 5 * time.Second

// leave reads what the owner has of the console. The end of this side asks for it.
func (v *VM) leave() {
	if c, ok := v.joined.Console.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		select {
		case <-v.con.ended:
		case <-time.After(lastWords):
		}
	}
	v.joined.Console.Close()
}

// Outlet is what the owner of a guest passes to one that joins it.
type Outlet struct {
	Hello   wire.Hello
	Started time.Time
	Pace    time.Duration
	Tainted uint64
}

// Outlet describes the guest to one that joins it.
func (v *VM) Outlet() Outlet {
	return Outlet{Hello: v.hello, Started: v.started, Pace: v.pace(), Tainted: v.client.Tainted() | crash.TaintedBy(v.Reports())}
}

// TapConsole has w get what the guest prints from now on. Its Write must not wait.
func (v *VM) TapConsole(w io.Writer) (untap func()) { return v.con.tap(w) }

// OpenWindow opens the guest's window once more, nil if it has none: see
// agent.WindowFile.
func (v *VM) OpenWindow() (f *os.File, size int64, err error) {
	size = min(v.hello.Window, v.cfg.Window)
	if v.window == nil || size <= 0 {
		return nil, 0, nil
	}
	f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", v.window.Fd()), os.O_RDWR, 0)
	return f, size, outcome.Default(outcome.HostLacks, err)
}
