// Package agent is the host's end of the link to the agent in the guest: the
// Hello, requests and their streams. It knows nothing of QEMU; any connection
// with guest/agent at its other end will do.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/text"
)

// ErrClosed says that the link ended. A request that was under way then has no
// final record, so nothing is known of its outcome.
var ErrClosed = errors.New("the link to the guest ended before the final record")

// DamageError says that frames were lost on the link.
type DamageError struct{ Frames uint64 }

func (e *DamageError) Error() string {
	return fmt.Sprintf("the link to the guest lost %d frames", e.Frames)
}

// GuestError is a request that the agent could not carry out.
type GuestError struct {
	Op  wire.Op
	Msg string // cleaned, one line
}

func (e *GuestError) Error() string { return fmt.Sprintf("guest: %s: %s", e.Op, e.Msg) }

// A UART moves about ten bytes a millisecond towards the guest, so that a frame
// of full length would hold up a signal behind it for seconds.
const (
	uart      = "uart" // wire.Hello.Transport
	uartChunk = 2 << 10
)

// Client speaks to one agent. Its methods are safe for concurrent use.
type Client struct {
	conn io.ReadWriteCloser
	w    *wire.Writer

	hello chan wire.Hello

	mu    sync.Mutex
	chunk int // most bytes of a Stdin frame; 0 is wire.MaxPayload
	calls map[uint32]*Call
	next  uint32
	err   error
	done  chan struct{}
}

// New starts reading conn. Bytes on the link that are no frames, which on a
// lone UART are the kernel's console, go to stray (nil drops them).
func New(conn io.ReadWriteCloser, stray func([]byte)) *Client {
	c := &Client{
		conn: conn, w: wire.NewWriter(conn),
		hello: make(chan wire.Hello, 1),
		calls: map[uint32]*Call{},
		done:  make(chan struct{}),
	}
	go c.read(stray)
	return c
}

// Done is closed when the link has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the link ended, nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the link.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Hello waits for the guest's first frame.
func (c *Client) Hello(ctx context.Context) (wire.Hello, error) {
	select {
	case h := <-c.hello:
		if h.Version != wire.Version {
			return h, fmt.Errorf("the guest's agent speaks version %d, this labctl %d", h.Version, wire.Version)
		}
		return h, nil
	case <-c.done:
		return wire.Hello{}, c.Err()
	case <-ctx.Done():
		return wire.Hello{}, context.Cause(ctx)
	}
}

func (c *Client) read(stray func([]byte)) {
	r := wire.NewReader(c.conn, stray)
	var err error
	for err == nil {
		var f wire.Frame
		if f, err = r.Read(); err != nil {
			err = fmt.Errorf("%w: %w", ErrClosed, err)
			break
		}
		if n := r.Lost(); n > 0 {
			err = &DamageError{n}
			break
		}
		err = c.take(f)
	}
	c.conn.Close()
	c.mu.Lock()
	c.err = err
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, call := range calls {
		call.end(wire.Result{}, err)
	}
	close(c.done)
}

// take handles one frame. Only what breaks the protocol for every request is
// an error; a frame for a Chan that is not open is dropped.
func (c *Client) take(f wire.Frame) error {
	if f.Kind == wire.KindHello {
		h, err := wire.Decode[wire.Hello](f.Payload)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		if h.Transport == uart {
			c.mu.Lock()
			c.chunk = uartChunk
			c.mu.Unlock()
		}
		select {
		case c.hello <- h:
		default: // a second Hello: the agent was started again; its requests are gone
		}
		return nil
	}
	c.mu.Lock()
	call := c.calls[f.Chan]
	if f.Kind == wire.KindResult {
		delete(c.calls, f.Chan)
	}
	c.mu.Unlock()
	if call == nil {
		return nil
	}
	switch f.Kind {
	case wire.KindData:
		if r := call.out(f.Stream); r != nil {
			return r.Push(f.Payload)
		}
	case wire.KindCredit:
		n, err := wire.ParseCredit(f.Payload)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		if f.Stream == wire.Stdin {
			call.stdin.Grant(n)
		}
	case wire.KindResult:
		res, err := wire.Decode[wire.Result](f.Payload)
		if err != nil {
			err = fmt.Errorf("guest: %w", err)
		}
		call.end(res, err)
	}
	return nil
}

// Call is one request under way.
type Call struct {
	c     *Client
	op    wire.Op
	id    uint32
	stdin *wire.Sender
	outs  [3]*wire.Receiver // Stdout, Stderr, Extra

	res  wire.Result
	err  error
	done chan struct{}
}

// Start sends a request. The caller must read every stream that it expects
// bytes on and then call Wait.
func (c *Client) Start(op wire.Op, params any) (*Call, error) {
	req, err := wire.NewRequest(op, params)
	if err != nil {
		return nil, fmt.Errorf("ask guest: %w", err)
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("ask guest: %s: %w", op, c.err)
	}
	c.next++
	call := &Call{c: c, op: op, id: c.next, done: make(chan struct{})}
	call.stdin = wire.NewSender(c.w, call.id, wire.Stdin, c.chunk)
	for i := range call.outs {
		stream := wire.Stdout + wire.Stream(i)
		call.outs[i] = wire.NewReceiver(func(n uint32) error { return c.w.SendCredit(call.id, stream, n) })
	}
	c.calls[call.id] = call
	c.mu.Unlock()
	if err := c.w.Send(wire.KindRequest, call.id, req); err != nil {
		c.mu.Lock()
		delete(c.calls, call.id)
		c.mu.Unlock()
		return nil, fmt.Errorf("ask guest: %s: %w", op, err)
	}
	return call, nil
}

func (call *Call) out(s wire.Stream) *wire.Receiver {
	if i := int(s) - int(wire.Stdout); i >= 0 && i < len(call.outs) {
		return call.outs[i]
	}
	return nil
}

func (call *Call) end(res wire.Result, err error) {
	call.res, call.err = res, err
	call.stdin.Abort()
	eof := io.EOF
	if err != nil {
		eof = err
	}
	for _, r := range call.outs {
		r.CloseWithError(eof)
	}
	close(call.done)
}

// Stdin is the program's input. Closing it sends the end of file.
func (call *Call) Stdin() io.WriteCloser { return call.stdin }

// Stdout, Stderr and Extra are what the request sends back. Each ends with
// io.EOF when the request is over.
func (call *Call) Stdout() io.Reader { return call.outs[0] }

// Stderr is described at Stdout.
func (call *Call) Stderr() io.Reader { return call.outs[1] }

// Extra is described at Stdout.
func (call *Call) Extra() io.Reader { return call.outs[2] }

// Control sends a signal or a window size.
func (call *Call) Control(ctl wire.Control) error {
	return call.c.w.Send(wire.KindControl, call.id, ctl)
}

// Wait waits for the final record and decodes its value into v, which may be
// nil. When the agent reports an error the value, if there is one, is decoded
// all the same.
func (call *Call) Wait(ctx context.Context, v any) error {
	select {
	case <-call.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if call.err != nil {
		return fmt.Errorf("%s: %w", call.op, call.err)
	}
	if v != nil && len(call.res.Value) > 0 {
		if err := wire.Unmarshal(call.res.Value, v); err != nil {
			return fmt.Errorf("guest: %s: %w", call.op, err)
		}
	}
	if call.res.Err != "" {
		return &GuestError{Op: call.op, Msg: text.Line(call.res.Err, 2000)}
	}
	return nil
}

// do is a request whose only stream, if any, is copied to w.
func (c *Client) do(ctx context.Context, op wire.Op, params, v any, stream func(*Call) io.Reader, w io.Writer) error {
	call, err := c.Start(op, params)
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	if w != nil {
		go func() { _, err := io.Copy(w, stream(call)); copied <- err }()
	} else {
		copied <- nil
	}
	if err := call.Wait(ctx, v); err != nil {
		return err
	}
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TraceStart arms the trace.
func (c *Client) TraceStart(ctx context.Context, p wire.TraceParams) (wire.TraceArmed, error) {
	var armed wire.TraceArmed
	err := c.do(ctx, wire.OpTraceStart, p, &armed, nil, nil)
	return armed, err
}

// TraceStop disarms the trace and copies its text to w.
func (c *Client) TraceStop(ctx context.Context, w io.Writer) (wire.TraceStopped, error) {
	var st wire.TraceStopped
	err := c.do(ctx, wire.OpTraceStop, nil, &st, (*Call).Extra, w)
	return st, err
}

// ReadFile copies at most max bytes of a guest file to w.
func (c *Client) ReadFile(ctx context.Context, path string, max int64, w io.Writer) error {
	return c.do(ctx, wire.OpReadFile, wire.FileParams{Path: path, Max: max}, nil, (*Call).Stdout, w)
}

// Stat asks for the guest's state.
func (c *Client) Stat(ctx context.Context) (wire.Stat, error) {
	var st wire.Stat
	err := c.do(ctx, wire.OpStat, nil, &st, nil, nil)
	return st, err
}

// PowerOff asks the guest to stop. The link may end right after.
func (c *Client) PowerOff(ctx context.Context) error {
	return c.do(ctx, wire.OpPowerOff, nil, nil, nil, nil)
}

// IO is what a program in the guest reads and writes.
type IO struct {
	Stdin          io.Reader // nil: the program reads /dev/null
	Stdout, Stderr io.Writer // nil: dropped
	// Started, when set, is given the Call, for signals and window sizes.
	Started func(*Call)
}

// Exec runs a program and waits for its end and for all of its output. When
// ctx ends first the program's process group is killed.
func (c *Client) Exec(ctx context.Context, p wire.ExecParams, s IO) (wire.ExecResult, error) {
	p.Stdin = s.Stdin != nil
	call, err := c.Start(wire.OpExec, p)
	if err != nil {
		return wire.ExecResult{}, err
	}
	if s.Started != nil {
		s.Started(call)
	}
	if s.Stdin != nil {
		// Not waited for: a read of the host's terminal cannot be interrupted,
		// and Abort makes the write fail once the program is gone.
		go func() {
			io.Copy(call.Stdin(), s.Stdin)
			call.Stdin().Close()
		}()
	}
	copied := make(chan error, 2)
	pump := func(w io.Writer, r io.Reader) {
		if w == nil {
			w = io.Discard
		}
		_, err := io.Copy(w, r)
		if err != nil {
			// The stream must be drained, or the program blocks for ever on a
			// host whose pipe is gone.
			io.Copy(io.Discard, r)
		}
		copied <- err
	}
	go pump(s.Stdout, call.Stdout())
	go pump(s.Stderr, call.Stderr())

	var res wire.ExecResult
	if err := call.Wait(ctx, &res); err != nil {
		if ctx.Err() != nil {
			call.Control(wire.Control{Signal: int(syscall.SIGKILL)})
		}
		return res, err
	}
	var werr error
	for range 2 {
		select {
		case err := <-copied:
			if werr == nil {
				werr = err
			}
		case <-ctx.Done():
			return res, context.Cause(ctx)
		}
	}
	if res.Exited == res.Signaled {
		return res, &GuestError{Op: wire.OpExec, Msg: "the final record says neither exit nor signal"}
	}
	return res, werr
}
