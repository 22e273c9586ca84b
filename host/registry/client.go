package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm"
)

// infoWait is how long an owner may take to say who it is: it answers at once unless it
// is stopped.
const infoWait = 2 * time.Second

// Machine is a running machine that another process may own.
type Machine struct {
	Info
	dir       *directory
	workspace string
}

var _ vm.Inspector = (*Machine)(nil)

// List returns the running machines by name. Of one whose owner does not answer, only
// Name and Trouble are known.
func List(ctx context.Context) ([]Info, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.list(ctx)
}

func (d *directory) list(ctx context.Context) ([]Info, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	d.sweepLogs(names)
	found := make([]*Info, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			info, err := d.info(ctx, name)
			if errors.Is(err, errNone) {
				return
			}
			if err != nil {
				info = Info{Name: name, Trouble: err.Error()}
				info.clean()
			}
			found[i] = &info
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	all := []Info{}
	for _, info := range found {
		if info != nil {
			all = append(all, *info)
		}
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// info asks a machine's owner about it.
func (d *directory) info(ctx context.Context, name string) (info Info, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, infoWait, errSilent)
	defer cancel()
	m := Machine{Info: Info{Name: name}, dir: d}
	if err := m.ask(ctx, opInfo, &info); err != nil {
		return info, err
	}
	info.clean()
	if info.Name != name || info.ID == "" {
		return info, outcome.Hostf("machine %s: its labctl answers for another one", name)
	}
	return info, nil
}

var errSilent = outcome.New(outcome.HostLacks, "its labctl does not answer")

// Find returns a running machine by name. An empty name stands for the only machine
// that the user has named, or the only one at all.
func Find(ctx context.Context, name string) (*Machine, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	m, err := d.find(ctx, name)
	if err != nil {
		d.Close()
		return nil, err
	}
	return m, nil
}

func (d *directory) find(ctx context.Context, name string) (*Machine, error) {
	if name == "" {
		return d.only(ctx)
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	info, err := d.info(ctx, name)
	if errors.Is(err, errNone) {
		all, lerr := d.list(ctx)
		if lerr != nil {
			return nil, lerr
		}
		running := "none is running; start it with: labctl up " + name
		if len(all) > 0 {
			running = "running: " + strings.Join(namesOf(all), ", ")
		}
		return nil, outcome.Inputf("machine %q is not running%s (%s)", name, nearest.Hint(name, namesOf(all)), running)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	return &Machine{info, d, newWorkspace()}, nil
}

// only returns the machine that is meant when none is named.
func (d *directory) only(ctx context.Context) (*Machine, error) {
	all, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	meant := slices.DeleteFunc(slices.Clone(all), func(i Info) bool { return !i.Named && i.Trouble == "" })
	if len(meant) == 0 {
		meant = all
	}
	switch {
	case len(meant) == 0:
		return nil, outcome.Inputf("no machine is running; start one with: labctl up NAME")
	case len(meant) > 1:
		return nil, outcome.Inputf("several machines are running; name one of: %s", strings.Join(namesOf(meant), ", "))
	case meant[0].Trouble != "":
		return nil, outcome.Hostf("machine %s: %s", meant[0].Name, meant[0].Trouble)
	}
	return &Machine{meant[0], d, newWorkspace()}, nil
}

// Names returns the names of running machines, for completion: those that the user has
// named, or, with all, every one.
func Names(ctx context.Context, all bool) []string {
	infos, err := List(ctx)
	if err != nil {
		return nil
	}
	return namesOf(slices.DeleteFunc(infos, func(i Info) bool { return !all && !i.Named }))
}

func namesOf(all []Info) []string {
	names := make([]string, len(all))
	for i, info := range all {
		names[i] = info.Name
	}
	return names
}

// Close frees what finding the machine has taken. Memory, connections and stops that
// are under way stay.
func (m *Machine) Close() error { return m.dir.Close() }

// call sends a request on a connection of its own. The connection is returned, with the
// files that came with the reply; after an error it is closed.
func (m *Machine) call(ctx context.Context, q request) (r reply, conn *net.UnixConn, files []*os.File, err error) {
	if conn, err = m.dir.dial(ctx, m.Name); err != nil {
		return r, nil, nil, m.explain(ctx, err)
	}
	if r, files, err = m.exchange(ctx, conn, q); err != nil {
		conn.Close()
		return r, nil, nil, m.explain(ctx, err)
	}
	return r, conn, files, nil
}

// exchange sends a request and reads the reply.
func (m *Machine) exchange(ctx context.Context, conn *net.UnixConn, q request) (r reply, files []*os.File, err error) {
	q.Schema, q.Machine = schema, m.ID
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := encode(q)
	if err != nil {
		return r, nil, err
	}
	if err := send(conn, line); err != nil {
		return r, nil, err
	}
	if line, files, err = receive(conn, maxReply); err != nil {
		return r, nil, err
	}
	if r, err = decodeReply(line); err == nil && r.Files != len(files) {
		err = outcome.Hostf("reply of the machine's labctl: %d files, want %d", len(files), r.Files)
	}
	if err == nil && r.Error != nil {
		err = r.Error.err()
	}
	if err != nil {
		closeFiles(files)
		return r, nil, err
	}
	return r, files, nil
}

// explain says what an error of a connection means.
func (m *Machine) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errNone) && m.ID == "":
		return err
	case errors.Is(err, errNone), errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE): // a connection that it did not accept any more is reset
		return &EndedError{m.Name}
	}
	return outcome.Default(outcome.HostLacks, err)
}

// ask sends a request whose reply is a value.
func (m *Machine) ask(ctx context.Context, o op, v any) error {
	r, conn, files, err := m.call(ctx, request{Op: o})
	if err != nil {
		return err
	}
	closeFiles(files)
	conn.Close()
	return decodeValue(r, v)
}

// memoryReply is what comes with the file of the guest's memory.
type memoryReply struct {
	Regions []vm.Region `json:"regions"`
	Slow    string      `json:"slow,omitempty"` // the file is a socket, on which the memory is served
}

// Memory opens the guest's memory.
func (m *Machine) Memory(ctx context.Context) (*vm.Memory, error) {
	r, conn, files, err := m.call(ctx, request{Op: opMemory})
	if err != nil {
		return nil, fmt.Errorf("the memory of %s: %w", m.Name, err)
	}
	conn.Close()
	var v memoryReply
	if err = decodeValue(r, &v); err == nil && len(files) != 1 {
		err = outcome.Hostf("%d files, want 1", len(files))
	}
	if err != nil {
		closeFiles(files)
		return nil, fmt.Errorf("the memory of %s: %w", m.Name, err)
	}
	if v.Slow == "" {
		return &vm.Memory{File: files[0], Regions: v.Regions}, nil
	}
	served, err := net.FileConn(files[0])
	closeFiles(files)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("the memory of %s: %w", m.Name, err))
	}
	return vm.RemoteMemory(served, v.Regions, text.Line(v.Slow, 500)), nil
}

// Registers returns all CPUs' registers.
func (m *Machine) Registers(ctx context.Context) (regs string, err error) {
	if err := m.ask(ctx, opRegisters, &regs); err != nil {
		return "", fmt.Errorf("the registers of %s: %w", m.Name, err)
	}
	return regs, nil
}

// Stop stops the guest. The owner lets it go on when this process has ended, in
// whatever way.
func (m *Machine) Stop(ctx context.Context) (cont func() error, err error) {
	_, conn, _, err := m.call(ctx, request{Op: opStop})
	if err != nil {
		return nil, fmt.Errorf("stop %s: %w", m.Name, err)
	}
	return sync.OnceValue(func() error {
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), contWait)
		defer cancel()
		if _, _, err := m.exchange(ctx, conn, request{Op: opCont}); err != nil {
			return fmt.Errorf("resume %s: %w", m.Name, m.explain(ctx, err))
		}
		return nil
	}), nil
}

// contWait is how long an owner may take to let its guest go on.
const contWait = 20 * time.Second

// GDB connects to QEMU's gdbstub by way of the owner, which removes the breakpoints and
// lets the guest run when the connection ends.
func (m *Machine) GDB(ctx context.Context) (net.Conn, error) {
	_, conn, files, err := m.call(ctx, request{Op: opGDB})
	if err != nil {
		return nil, fmt.Errorf("the gdbstub of %s: %w", m.Name, err)
	}
	defer closeFiles(files)
	if len(files) != 1 {
		conn.Close()
		return nil, outcome.Hostf("the gdbstub of %s: %d files, want 1", m.Name, len(files))
	}
	stub, err := net.FileConn(files[0])
	if err != nil {
		conn.Close()
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	return &stubConn{stub, sync.OnceValue(func() error { return m.detach(stub, conn) })}, nil
}

// stubConn is a connection to the gdbstub.
type stubConn struct {
	net.Conn
	close func() error
}

func (c *stubConn) Close() error { return c.close() }

// detach ends a connection to the gdbstub and waits until the guest goes on.
func (m *Machine) detach(stub net.Conn, conn *net.UnixConn) error {
	defer conn.Close()
	if err := stub.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), contWait)
	defer cancel()
	if _, _, err := m.exchange(ctx, conn, request{Op: opDetached}); err != nil {
		return fmt.Errorf("resume %s: %w", m.Name, m.explain(ctx, err))
	}
	return nil
}

// Wait returns when the machine has ended: nil, or what the guest died of. When ctx ends
// it returns its cause.
func (m *Machine) Wait(ctx context.Context) error {
	err := m.ask(ctx, opWait, nil)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ended *EndedError
	if errors.As(err, &ended) {
		return nil
	}
	return err
}

// EndedError means that a machine has ended.
type EndedError struct{ Name string }

func (e *EndedError) Error() string { return "machine " + e.Name + " has ended" }

// Outcome is GuestCrashed.
func (e *EndedError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is PoweredOff.
func (e *EndedError) How() outcome.How { return outcome.PoweredOff }

// Save stores a checkpoint of the machine, which stands still meanwhile.
func (m *Machine) Save(ctx context.Context, as string) error {
	_, conn, files, err := m.call(ctx, request{Op: opSave, As: as})
	if err != nil {
		return fmt.Errorf("save %s: %w", m.Name, err)
	}
	closeFiles(files)
	return conn.Close()
}

// Down asks the owner to end the machine and waits for that.
func (m *Machine) Down(ctx context.Context) error {
	if !m.Named {
		return outcome.Inputf("machine %s is that of %s (pid %d); end that", m.Name, cmp.Or(m.Run, "another command"), m.PID)
	}
	qemu, err := unix.PidfdOpen(m.QEMU, 0)
	if err == nil {
		defer unix.Close(qemu)
	}
	if err := m.ask(ctx, opDown, nil); err != nil {
		var ended *EndedError
		if errors.As(err, &ended) {
			return nil
		}
		return fmt.Errorf("end %s: %w", m.Name, err)
	}
	if err := m.Wait(ctx); err != nil || qemu < 0 {
		return err
	}
	// The owner has let the others go; QEMU is next.
	for ctx.Err() == nil {
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(qemu), Events: unix.POLLIN}}, 100); n > 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}
