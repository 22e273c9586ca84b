// Package qmp is a QEMU Machine Protocol monitor over a connection that the
// caller made. It implements go-qemu's qmp.Monitor, so that go-qemu's raw
// bindings and qemu.Domain work on it, and adds what go-qemu's SocketMonitor
// lacks: contexts, ids that tie each reply to its command, replies of any
// length up to MaxLine, and events that never hold up replies.
//
// Protocol: QEMU's docs/interop/qmp-spec.txt.
package qmp

import (
	"bufio"
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
	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// Event is go-qemu's.
type Event = qmp.Event

// ErrClosed is wrapped by every error that comes from a closed connection:
// QEMU is gone, or Disconnect was called.
var ErrClosed = outcome.New(outcome.HostLacks, "QMP connection closed")

// Error is QEMU's refusal of a command.
type Error struct {
	Class string `json:"class"` // "GenericError", "CommandNotFound", …
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Class + ": " + e.Desc }

// Outcome is HostLacks: labctl gives no command that a QEMU of the versions that it
// knows refuses.
func (e *Error) Outcome() outcome.Kind { return outcome.HostLacks }

// Monitor is a QMP session. All methods may be called at the same time.
type Monitor struct {
	// Timeout bounds Run, which go-qemu's bindings call and which has no
	// context. Set it before use; New sets 30 s.
	Timeout time.Duration

	conn    net.Conn
	version qmp.Version
	writing chan struct{} // holds one token: the right to write
	done    chan struct{}

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan message // also of commands whose caller gave up
	err     error                   // set before done is closed
	early   *queue                  // events from before the first Events call
	readers map[*queue]bool
}

var _ qmp.Monitor = (*Monitor)(nil)

// New negotiates a session over conn, which the Monitor owns from then on: it
// is closed when New returns an error. ctx bounds the negotiation only.
func New(ctx context.Context, conn net.Conn) (*Monitor, error) {
	m := &Monitor{
		Timeout: 30 * time.Second,
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
	if _, err := m.RunContext(ctx, []byte(`{"execute":"qmp_capabilities"}`)); err != nil {
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
	if msg.greeting == nil {
		return fmt.Errorf("message %.80q: want the greeting", line)
	}
	m.version = msg.greeting.Version
	return nil
}

// interrupt has ctx's end break off I/O by a deadline in the past. release
// ends that and clears the deadline.
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

// read hands on messages until the connection ends.
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
	case msg.greeting != nil:
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
		return fmt.Errorf("reply %.80q: nobody asked", msg.line)
	}
	delete(m.waiting, id)
	reply <- msg
	return nil
}

// oldest is the command that an error without an id answers: QEMU, which works
// in order, could not read so much as the command's id.
func (m *Monitor) oldest() uint64 {
	var oldest uint64
	for id := range m.waiting {
		if oldest == 0 || id < oldest {
			oldest = id
		}
	}
	return oldest
}

// fail ends the session for everyone; the first reason stays.
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

// Version is QEMU's, from its greeting.
func (m *Monitor) Version() qmp.Version { return m.version }

// Done is closed when the session has ended; Err then says why.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Err is nil while the session lives, and wraps ErrClosed after it.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// RunContext sends one command, {"execute": …, "arguments": …}, and returns
// QEMU's whole reply, {"return": …, "id": …}. QEMU's refusal is an *Error. A
// command whose ctx ends may still be carried out; its reply is dropped.
func (m *Monitor) RunContext(ctx context.Context, command []byte) ([]byte, error) {
	msg, name, err := m.run(ctx, command, nil)
	if err != nil {
		if name == "" {
			name = "command"
		}
		return nil, fmt.Errorf("QMP %s: %w", name, err)
	}
	return msg.line, nil
}

func (m *Monitor) run(ctx context.Context, command []byte, file *os.File) (msg message, name string, err error) {
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
		// quit is answered just before QEMU closes the connection.
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

// write sends one command, and file with it if there is one. Half a command on the wire would garble the next
// one, so a write that ctx broke off in its middle ends the session.
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

// send writes a line and passes a descriptor along with its first byte (unix(7),
// SCM_RIGHTS).
func (m *Monitor) send(line []byte, file *os.File) (n int, err error) {
	if file != nil {
		conn, ok := m.conn.(*net.UnixConn)
		if !ok {
			return 0, errors.New("no file can be sent: the connection is not a Unix socket")
		}
		if n, _, err = conn.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil); err != nil {
			return n, err
		}
	}
	rest, err := m.conn.Write(line[n:])
	return n + rest, err
}

// GiveFile hands QEMU an open file, which commands then know by name: "fd:NAME".
// The caller's own may be closed.
func (m *Monitor) GiveFile(ctx context.Context, name string, file *os.File) error {
	return m.execute(ctx, "getfd", map[string]string{"fdname": name}, nil, file)
}

// Execute runs the command of that name with arguments of any JSON shape, or
// nil for none, and decodes what it returns into result unless that is nil.
func (m *Monitor) Execute(ctx context.Context, name string, arguments, result any) error {
	return m.execute(ctx, name, arguments, result, nil)
}

func (m *Monitor) execute(ctx context.Context, name string, arguments, result any, file *os.File) error {
	command, err := json.Marshal(qmp.Command{Execute: name, Args: arguments})
	if err != nil {
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	msg, _, err := m.run(ctx, command, file)
	if err != nil {
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(msg.ret, result); err != nil {
		return fmt.Errorf("QMP %s: reply: %w", name, err)
	}
	return nil
}

// Quit asks QEMU to end. A connection that closes meanwhile is an answer too.
func (m *Monitor) Quit(ctx context.Context) error {
	if err := m.Err(); err != nil {
		return err
	}
	if err := m.Execute(ctx, "quit", nil, nil); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// Run is RunContext within Timeout, for go-qemu.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), m.Timeout)
	defer cancel()
	return m.RunContext(ctx, command)
}

// Events streams events until ctx ends or the session does; what was received
// before the session's end is still delivered. Each call has a stream of its
// own. The first call also gets the events from before it.
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

// Backlog is the number of events that wait for a reader, over all streams.
func (m *Monitor) Backlog() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	if m.early != nil {
		n = m.early.len()
	}
	for q := range m.readers {
		n += q.len()
	}
	return n
}

// Connect is for go-qemu's interface: New has connected already.
func (m *Monitor) Connect() error { return m.Err() }

// Disconnect closes the connection. QEMU goes on.
func (m *Monitor) Disconnect() error {
	m.fail(fmt.Errorf("%w: disconnected", ErrClosed))
	return nil
}
