package vm

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Autopsy is what a look at a guest's tasks found.
type Autopsy struct {
	Text   string // all tasks with their stacks, for TasksLog
	Guilty string // what keeps the guest from going on, one line; "" if that cannot be told
	Log    string // what the kernel itself has logged, as its console would show it; "" if that cannot be read
	// Panicked is the task that made the kernel panic, and where; "" if no CPU is seen to.
	Panicked string
}

// autopsyWait is how long a look at the tasks may take. It takes a fifth of a second, most
// of it between two looks, and more on a busy host.
const autopsyWait = 10 * time.Second

// maxGuilty limits the line that becomes part of an error, in bytes.
const maxGuilty = 300

// autopsy looks at the guest's tasks and writes what it finds to TasksLog. That it fails
// is a line in the log: it is never the outcome.
func (v *VM) autopsy() (guilty, file string) {
	if v.cfg.Autopsy == nil {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.base), autopsyWait)
	defer cancel()
	type result struct {
		found Autopsy
		err   error
	}
	done := make(chan result, 1)
	go func() { // so that nothing that it waits for can hold up the end
		found, err := v.cfg.Autopsy(ctx, dying{v})
		done <- result{found, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = fmt.Errorf("it took more than %v", autopsyWait)
	}
	if r.err != nil {
		r.found.Text = fmt.Sprintf("the tasks could not be read: %s\n", text.Line(r.err.Error(), 400))
	}
	if f := v.cfg.TasksLog; f != "" && v.cfg.writeLog(f, r.found.Text) == nil && r.err == nil {
		file = f
	}
	v.con.adopt(r.found)
	return text.Line(r.found.Guilty, maxGuilty), file
}

// deadTasks looks at the tasks of a guest that crashed, once.
func (v *VM) deadTasks() string {
	v.dead.Do(func() { _, v.tasks = v.autopsy() })
	return v.tasks
}

// dying is an Inspector of a guest whose end is being explained. It does not ask for that
// explanation when something fails.
type dying struct{ v *VM }

func (d dying) Memory(ctx context.Context) (*Memory, error) {
	if j := d.v.joined; j != nil {
		return j.Memory(ctx)
	}
	mon := d.v.asked.Load()
	if mon == nil {
		return nil, errNotUp
	}
	regions, err := d.v.regions(ctx)
	if err != nil {
		return nil, outcome.Default(outcome.GuestCrashed, err)
	}
	return d.v.memory(ctx, mon, regions)
}

func (d dying) Registers(ctx context.Context) (string, error) {
	if j := d.v.joined; j != nil {
		return j.Registers(ctx)
	}
	if mon := d.v.asked.Load(); mon != nil {
		out, err := registers(ctx, mon)
		return out, outcome.Default(outcome.GuestCrashed, err)
	}
	return "", errNotUp
}

var errNotUp = outcome.New(outcome.GuestCrashed, "QEMU is not up")

func (d dying) Stop(ctx context.Context) (func() error, error) {
	if j := d.v.joined; j != nil {
		return j.Stop(ctx)
	}
	mon := d.v.asked.Load()
	if mon == nil {
		return nil, errNotUp
	}
	release, err := d.v.hold(ctx, mon)
	if err != nil {
		return nil, outcome.Default(outcome.GuestCrashed, err)
	}
	return sync.OnceValue(release), nil
}

func (d dying) GDB(context.Context) (net.Conn, error) { return nil, errNotUp }

// fate is why a guest ended, as QEMU says (QEMU: qapi/run-state.json, ShutdownCause).
type fate struct {
	known  chan struct{} // closed when reason is set, or QEMU is gone
	reason string
}

// keepAfterReset makes QEMU keep a guest that has reset or powered off, so that one that
// crashed can be looked at, and ends QEMU then. A QEMU older than 6.0 exits at once.
func (v *VM) keepAfterReset(ctx context.Context) {
	if v.cfg.Autopsy == nil {
		return
	}
	if err := v.mon.Execute(ctx, "set-action", map[string]any{"reboot": "shutdown", "shutdown": "pause"}, nil); err != nil {
		return
	}
	events, err := v.mon.Events(context.WithoutCancel(v.base))
	if err != nil {
		v.proc.Kill() // its monitor is gone
		return
	}
	f := &fate{known: make(chan struct{})}
	v.fate = f
	go func() {
		defer close(f.known)
		for e := range events {
			if e.Event != "SHUTDOWN" {
				continue
			}
			f.reason, _ = e.Data["reason"].(string)
			v.finish(f.reason)
			return
		}
	}()
}

// consoleWait is for the console's last bytes, which come on a connection of their own.
const consoleWait = 100 * time.Millisecond

// finish ends a QEMU whose guest has ended.
func (v *VM) finish(reason string) {
	if reason == "guest-reset" || reason == "guest-panic" {
		select {
		case <-v.con.reported:
		case <-time.After(consoleWait):
		}
		// The console may have lost the panic's line, or been told to hide it: the kernel's
		// log in memory has it.
		if r, _ := v.con.report(); r != nil || !v.con.restarts() {
			v.deadTasks()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	if err := v.mon.Execute(ctx, "quit", nil, nil); err != nil {
		v.proc.Kill()
	}
}
