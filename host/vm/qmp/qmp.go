// Package qmp is a QEMU Machine Protocol client over a connection opened by the
// caller: with contexts, ids that match each reply to its command, replies of any
// length up to MaxLine, and events that never block replies.
//
// From go-qemu it uses the interface qmp.Monitor, the event type, and qmp/raw, the
// typed commands generated from QEMU's schema (Commands). It does not use
// SocketMonitor, which has no deadlines, fails on replies over 64 KiB and blocks if
// nobody reads events, nor qemu.Domain, whose disks, screens and power button the
// machines here do not have. The schema is that of QEMU 2.11; newer commands are
// sent by name (Execute).
//
// Protocol: QEMU's docs/interop/qmp-spec.txt.
package qmp

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// Event is go-qemu's event type.
type Event = qmp.Event

// ErrClosed is wrapped by every error from a closed connection: QEMU has exited, or
// Disconnect was called.
var ErrClosed = outcome.New(outcome.HostLacks, "QMP connection closed")

// Error is QEMU's error reply to a command.
type Error struct {
	Class string `json:"class"` // "GenericError", "CommandNotFound", …
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Class + ": " + e.Desc }

// Outcome is HostLacks: supported QEMU versions accept every command that labctl
// sends.
func (e *Error) Outcome() outcome.Kind { return outcome.HostLacks }

// Monitor is a QMP session. Its methods are safe for concurrent use.
type Monitor struct {
	conn    net.Conn
	writing chan struct{} // has one token: the right to write
	done    chan struct{}

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan message // includes commands whose caller gave up
	err     error                   // set before done is closed
	early   *queue                  // events from before the first Events call
	readers map[*queue]bool
}

// New negotiates a session over conn and takes ownership of it: conn is closed if New
// returns an error. ctx applies to the negotiation only.
func New(ctx context.Context, conn net.Conn) (*Monitor, error) {
	m := &Monitor{
		conn:    conn,
		writing: make(chan struct{}, 1),
		done:    make(chan struct{}),
		waiting: map[uint64]chan message{},
		early:   newQueue(),
		readers: map[*queue]bool{},
	}
	r := bufio.NewReader(conn)
	if err := m.greet(ctx, r); err != nil {
		conn.Close()
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("QMP greeting: %w", err))
	}
	go m.read(r)
	if err := m.Commands(ctx).QMPCapabilities(); err != nil {
		m.Disconnect()
		return nil, err
	}
	return m, nil
}

func (m *Monitor) greet(ctx context.Context, r *bufio.Reader) error {
	release := interrupt(ctx, m.conn.SetReadDeadline)
	line, err := readLine(r, MaxLine)
	release()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return closedError(err)
	}
	msg, err := decode(line)
	if err != nil {
		return err
	}
	if !msg.greeting {
		return fmt.Errorf("message %.80q: want the greeting", line)
	}
	return nil
}

// interrupt interrupts I/O when ctx ends, by setting a deadline in the past. release
// undoes that and clears the deadline.
func interrupt(ctx context.Context, setDeadline func(time.Time) error) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		setDeadline(time.Unix(1, 0))
		close(fired)
	})
	return func() {
		if !stop() {
			<-fired
		}
		setDeadline(time.Time{})
	}
}

func closedError(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// read dispatches messages until the connection ends.
func (m *Monitor) read(r *bufio.Reader) {
	for {
		line, err := readLine(r, MaxLine)
		if err != nil {
			m.fail(closedError(err))
			return
		}
		msg, err := decode(line)
		if err == nil {
			err = m.dispatch(msg)
		}
		if err != nil {
			m.fail(closedError(err))
			return
		}
	}
}

func (m *Monitor) dispatch(msg message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case msg.greeting:
		return errors.New("second greeting")
	case msg.event != nil:
		if m.early != nil {
			m.early.put(*msg.event)
		}
		for q := range m.readers {
			q.put(*msg.event)
		}
		return nil
	}
	id := m.oldest()
	if msg.id != nil {
		id = *msg.id
	}
	reply, ok := m.waiting[id]
	if !ok {
		return fmt.Errorf("reply %.80q: no such command is pending", msg.line)
	}
	delete(m.waiting, id)
	reply <- msg
	return nil
}

// oldest returns the id of the oldest pending command. An error reply without an id
// belongs to it: QEMU works in order and could not even parse the command's id.
func (m *Monitor) oldest() uint64 {
	var oldest uint64
	for id := range m.waiting {
		if oldest == 0 || id < oldest {
			oldest = id
		}
	}
	return oldest
}

// fail ends the session for all callers; the first reason is kept.
func (m *Monitor) fail(err error) {
	m.conn.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return
	}
	m.err = err
	if m.early != nil {
		m.early.close()
	}
	for q := range m.readers {
		q.close()
	}
	close(m.done)
}

// Err returns nil while the session is open, then an error that wraps ErrClosed.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Commands returns go-qemu's typed commands, which are canceled with ctx. QEMU's
// error reply is an *Error. A canceled command may still be executed; its reply is
// dropped.
func (m *Monitor) Commands(ctx context.Context) *raw.Monitor {
	return raw.NewMonitor(bound{m, ctx, nil})
}

// bound adapts a Monitor to go-qemu's interface, whose Run has no context.
type bound struct {
	*Monitor
	ctx  context.Context
	file *os.File // sent with the command; may be nil
}

var _ qmp.Monitor = bound{}

// Run sends one command, {"execute": …, "arguments": …}, and returns QEMU's whole
// reply, {"return": …, "id": …}.
func (b bound) Run(command []byte) ([]byte, error) {
	msg, err := b.run(b.ctx, command, b.file)
	return msg.line, err
}

// Connect does nothing: New has connected already.
func (bound) Connect() error { return nil }

// run sends one command, with file if it is not nil, and waits for the reply.
func (m *Monitor) run(ctx context.Context, command []byte, file *os.File) (message, error) {
	msg, name, err := m.exchange(ctx, command, file)
	if err != nil {
		return message{}, fmt.Errorf("QMP %s: %w", cmp.Or(name, "command"), err)
	}
	return msg, nil
}

func (m *Monitor) exchange(ctx context.Context, command []byte, file *os.File) (msg message, name string, err error) {
	select {
	case m.writing <- struct{}{}:
	case <-m.done:
		return msg, "", m.Err()
	case <-ctx.Done():
		return msg, "", context.Cause(ctx)
	}
	m.mu.Lock()
	m.lastID++
	id := m.lastID
	m.mu.Unlock()
	line, name, err := encode(command, id)
	if err != nil {
		<-m.writing
		return msg, name, err
	}
	reply := make(chan message, 1)
	m.mu.Lock()
	m.waiting[id] = reply
	m.mu.Unlock()
	err = m.write(ctx, id, line, file)
	<-m.writing
	if err != nil {
		return msg, name, err
	}
	select {
	case msg = <-reply:
	case <-ctx.Done():
		return msg, name, context.Cause(ctx)
	case <-m.done:
		// QEMU replies to quit just before it closes the connection.
		select {
		case msg = <-reply:
		default:
			return msg, name, m.Err()
		}
	}
	if msg.err != nil {
		return msg, name, msg.err
	}
	return msg, name, nil
}

// write sends one command, with file if it is not nil. A partial command would
// corrupt the next one, so a write that is interrupted by ctx ends the session.
func (m *Monitor) write(ctx context.Context, id uint64, line []byte, file *os.File) error {
	release := interrupt(ctx, m.conn.SetWriteDeadline)
	n, err := m.send(line, file)
	release()
	if err == nil {
		return nil
	}
	m.mu.Lock()
	delete(m.waiting, id)
	m.mu.Unlock()
	if ctx.Err() == nil {
		m.fail(closedError(err))
		return m.Err()
	}
	if n > 0 {
		m.fail(closedError(fmt.Errorf("command cut short: %w", context.Cause(ctx))))
	}
	return context.Cause(ctx)
}

// send writes a line and passes a descriptor with its first byte (unix(7),
// SCM_RIGHTS).
func (m *Monitor) send(line []byte, file *os.File) (n int, err error) {
	if file != nil {
		conn, ok := m.conn.(*net.UnixConn)
		if !ok {
			return 0, errors.New("cannot pass a file: the connection is not a Unix socket")
		}
		if n, _, err = conn.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil); err != nil {
			return n, err
		}
	}
	rest, err := m.conn.Write(line[n:])
	return n + rest, err
}

// GiveFile passes an open file to QEMU, for use in commands as "fd:NAME". The caller
// may close file afterwards.
func (m *Monitor) GiveFile(ctx context.Context, name string, file *os.File) error {
	return raw.NewMonitor(bound{m, ctx, file}).Getfd(name)
}

// AddFile passes an open file to QEMU, which keeps it until remove-fd names its set.
// number is the descriptor's in QEMU's process. The caller may close file afterwards.
func (m *Monitor) AddFile(ctx context.Context, file *os.File) (set, number int64, err error) {
	msg, err := m.run(ctx, []byte(`{"execute":"add-fd"}`), file)
	if err != nil {
		return 0, 0, err
	}
	var v struct {
		Set    int64 `json:"fdset-id"`
		Number int64 `json:"fd"`
	}
	if err := json.Unmarshal(msg.ret, &v); err != nil {
		return 0, 0, fmt.Errorf("QMP add-fd: reply: %w", err)
	}
	return v.Set, v.Number, nil
}

// Execute runs a command by name, for commands or arguments that go-qemu's schema
// lacks. arguments is any JSON value, or nil for none; QEMU's return value is decoded
// into result unless that is nil.
func (m *Monitor) Execute(ctx context.Context, name string, arguments, result any) error {
	command, err := json.Marshal(qmp.Command{Execute: name, Args: arguments})
	if err != nil {
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	msg, err := m.run(ctx, command, nil)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(msg.ret, result); err != nil {
		return fmt.Errorf("QMP %s: reply: %w", name, err)
	}
	return nil
}

// Events streams events until ctx or the session ends; events received before the
// end of the session are still delivered. Each call returns its own stream. The first
// call also gets earlier events.
func (m *Monitor) Events(ctx context.Context) (<-chan Event, error) {
	m.mu.Lock()
	q := m.early
	m.early = nil
	if q == nil {
		q = newQueue()
	}
	if m.err != nil {
		q.close()
	}
	m.readers[q] = true
	m.mu.Unlock()

	ch := make(chan Event)
	go func() {
		q.deliver(ctx, ch)
		m.mu.Lock()
		delete(m.readers, q)
		m.mu.Unlock()
	}()
	return ch, nil
}

// Disconnect ends the session. Pending commands fail with ErrClosed.
func (m *Monitor) Disconnect() error {
	m.fail(fmt.Errorf("%w: disconnected", ErrClosed))
	return nil
}
