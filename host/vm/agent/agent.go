// Package agent is the host's side of the link to the agent in the guest: the
// Hello, requests and their streams. It is independent of QEMU and works over any
// connection to a guest/agent.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"labctl/guest/wire"
	"labctl/host/outcome"
	"labctl/host/text"
)

// ErrClosed means that the link ended. A request that was in progress has no final
// record, so its result is unknown.
var ErrClosed = outcome.New(outcome.GuestCrashed, "the link to the guest ended before the final record")

// DamageError reports that frames were lost on the link.
type DamageError struct{ Frames uint64 }

func (e *DamageError) Error() string {
	return fmt.Sprintf("the link to the guest lost %d frames", e.Frames)
}

// Outcome is GuestCrashed: the agent's state is unknown.
func (e *DamageError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is LinkDamaged.
func (e *DamageError) How() outcome.How { return outcome.LinkDamaged }

// greetedError reports a second Hello: if it is the agent's, its requests are lost, and
// their final records will never arrive.
type greetedError struct{}

func (e *greetedError) Error() string {
	return "the guest's agent said hello again: it restarted, or somebody else writes to its link"
}

// Outcome is GuestCrashed: the agent's state is unknown.
func (e *greetedError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is LinkDamaged.
func (e *greetedError) How() outcome.How { return outcome.LinkDamaged }

// GuestError reports that the agent could not perform a request.
type GuestError struct {
	Op  wire.Op
	Msg string // cleaned, one line
}

func (e *GuestError) Error() string { return fmt.Sprintf("guest: %s: %s", e.Op, e.Msg) }

// Outcome is CannotRun: the guest is up, but cannot perform the request.
func (e *GuestError) Outcome() outcome.Kind { return outcome.CannotRun }

// nonsense classifies a protocol violation: the guest sent it, and nothing it sends
// from then on can be trusted. Errors that have an outcome keep it.
func nonsense(err error) error { return outcome.Default(outcome.GuestCrashed, err) }

// A UART transfers about ten bytes per millisecond to the guest, so that a
// full-length frame would delay a signal behind it for seconds.
const (
	uart      = "uart" // wire.Hello.Transport
	uartChunk = 2 << 10
)

// Client is a connection to one agent. Its methods are safe for concurrent use.
type Client struct {
	conn io.ReadWriteCloser
	w    *wire.Writer

	hello   chan wire.Hello
	greeted atomic.Bool // by a Hello, or by the answer of a guest that was restored

	window *Window                     // nil without one
	watch  func(context.Context) error // nil for none

	tainted atomic.Uint64 // of ExecResult
	before  atomic.Uint64 // what was tainted by others

	mu    sync.Mutex
	chunk int // maximum bytes of a Stdin frame; 0: wire.MaxPayload
	calls map[uint32]request
	next  uint32
	err   error
	done  chan struct{}
}

// request is one that the guest has not answered to the end yet.
type request interface {
	// take acts on a frame of the guest's. A *wire.KindResult is the last. An error is
	// a violation that affects every request.
	take(f wire.Frame) error
	// lost ends it without a result.
	lost(err error)
}

// New starts reading conn. Bytes that are not part of a frame, which are the
// kernel's console if both share a UART, go to stray (nil drops them).
func New(conn io.ReadWriteCloser, stray func([]byte)) *Client {
	c := &Client{
		conn: conn, w: wire.NewWriter(conn),
		hello: make(chan wire.Hello, 1),
		calls: map[uint32]request{},
		done:  make(chan struct{}),
	}
	go c.read(stray)
	return c
}

// Done is closed when the link has ended; Err then returns the reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the link ended, nil while it is up.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close closes the link.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Hello waits for the guest's first frame.
func (c *Client) Hello(ctx context.Context) (wire.Hello, error) {
	select {
	case h := <-c.hello:
		return h, checkVersion(h)
	case <-c.done:
		return wire.Hello{}, c.Err()
	case <-ctx.Done():
		return wire.Hello{}, context.Cause(ctx)
	}
}

// heard sets what depends on the guest's transport.
func (c *Client) heard(h wire.Hello) {
	if h.Transport == uart {
		c.mu.Lock()
		c.chunk = uartChunk
		c.mu.Unlock()
	}
}

func checkVersion(h wire.Hello) error {
	if h.Version != wire.Version {
		return fmt.Errorf("the guest's agent has protocol version %d, this labctl %d", h.Version, wire.Version)
	}
	return nil
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
		err = nonsense(c.take(f))
	}
	c.conn.Close()
	c.mu.Lock()
	c.err = err
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, call := range calls {
		call.lost(err)
	}
	close(c.done)
}

// take handles one frame. Only a violation that affects every request is an error;
// a frame for a Chan that is not open is dropped.
func (c *Client) take(f wire.Frame) error {
	if f.Kind == wire.KindHello {
		h, err := wire.Decode[wire.Hello](f.Payload)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		if c.greeted.Swap(true) {
			return &greetedError{}
		}
		c.heard(h)
		c.hello <- h
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
	return call.take(f)
}

func (call *Call) take(f wire.Frame) error {
	switch f.Kind {
	case wire.KindData:
		if r := call.out(f.Stream); r != nil {
			if err := r.Push(f.Payload); err != nil {
				return fmt.Errorf("guest: %s: %w", call.op, err)
			}
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
			err = nonsense(fmt.Errorf("guest: %w", err))
		}
		call.end(res, err)
	}
	return nil
}

// Call is one request in progress.
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

// Start sends a request. The caller must read every stream on which it expects data
// and then call Wait.
func (c *Client) Start(op wire.Op, params any) (*Call, error) {
	req, err := wire.NewRequest(op, params)
	if err != nil {
		return nil, fmt.Errorf("request to guest: %w", err)
	}
	call := &Call{c: c, op: op, done: make(chan struct{})}
	call.id, err = c.open(func(id uint32) request {
		call.stdin = wire.NewSender(c.w, id, wire.Stdin, c.chunk)
		for i := range call.outs {
			stream := wire.Stdout + wire.Stream(i)
			call.outs[i] = wire.NewReceiver(func(n uint32) error { return c.w.SendCredit(id, stream, n) })
		}
		return call
	})
	if err != nil {
		return nil, fmt.Errorf("request to guest: %s: %w", op, err)
	}
	if err := c.w.Send(wire.KindRequest, call.id, req); err != nil {
		c.forget(call.id)
		return nil, outcome.Default(outcome.GuestCrashed, fmt.Errorf("request to guest: %s: %w", op, err))
	}
	return call, nil
}

// open gives a request its number.
func (c *Client) open(made func(id uint32) request) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	for c.next++; c.calls[c.next] != nil || c.next == 0; c.next++ {
	}
	c.calls[c.next] = made(c.next)
	return c.next, nil
}

// forget drops a request that was not sent.
func (c *Client) forget(id uint32) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
}

func (call *Call) lost(err error) { call.end(wire.Result{}, err) }

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

// Stdin returns the program's input. Closing it sends end of file.
func (call *Call) Stdin() io.WriteCloser { return call.stdin }

// Stdout returns one of the output streams of the request; the others are Stderr
// and Extra. Each ends with io.EOF when the request is done.
func (call *Call) Stdout() io.Reader { return call.outs[0] }

// Stderr is an output stream; see Stdout.
func (call *Call) Stderr() io.Reader { return call.outs[1] }

// Extra is an output stream; see Stdout.
func (call *Call) Extra() io.Reader { return call.outs[2] }

// Control sends a signal or a window size.
func (call *Call) Control(ctl wire.Control) error {
	return call.c.w.Send(wire.KindControl, call.id, ctl)
}

// Wait waits for the final record and decodes its value into v, which may be nil.
// The value, if there is one, is decoded even if the agent reports an error.
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
			return nonsense(fmt.Errorf("guest: %s: %w", call.op, err))
		}
	}
	if call.res.Err != "" {
		return &GuestError{Op: call.op, Msg: text.Line(call.res.Err, 2000)}
	}
	return nil
}

// do performs a request and copies its only stream, if any, to w.
func (c *Client) do(ctx context.Context, op wire.Op, params, v any, stream func(*Call) io.Reader, w io.Writer) error {
	call, err := c.Start(op, params)
	if err != nil {
		return err
	}
	if w == nil {
		return call.Wait(ctx, v)
	}
	d := drainTo(w, stream(call))
	err = call.Wait(ctx, v)
	if werr := d.finish(ctx); err == nil {
		err = werr
	}
	return err
}

// ReadFile copies at most max bytes of a guest file to w.
func (c *Client) ReadFile(ctx context.Context, path string, max int64, w io.Writer) error {
	return c.do(ctx, wire.OpReadFile, wire.FileParams{Path: path, Max: max}, nil, (*Call).Stdout, w)
}

// Unpack unpacks a tar archive into the guest's directory dir, which is created with
// its parents. It reads r to its end; if it returns early, because of an error or
// because ctx has ended, a Read of r may still be in progress.
func (c *Client) Unpack(ctx context.Context, dir string, r io.Reader) (wire.Unpacked, error) {
	var done wire.Unpacked
	p := wire.UnpackParams{Dir: dir}
	near := c.window.take()
	if near {
		var err error
		if p.Window, p.Rest, err = c.window.fill(ctx, r); err != nil {
			return done, err
		}
	}
	done, err := c.unpack(ctx, p, r)
	var refused *GuestError
	if near && (err == nil || errors.As(err, &refused)) {
		c.window.give()
	}
	return done, err
}

// unpack sends the part of the archive that is not in the window.
func (c *Client) unpack(ctx context.Context, p wire.UnpackParams, r io.Reader) (wire.Unpacked, error) {
	var done wire.Unpacked
	call, err := c.Start(wire.OpUnpack, p)
	if err != nil {
		return done, err
	}
	if p.Window > 0 && !p.Rest {
		err := call.Wait(ctx, &done)
		return done, err
	}
	read := make(chan error, 1)
	go func() {
		in := source{r: r}
		io.Copy(call.Stdin(), &in)
		read <- in.err
		call.Stdin().Close() // the guest reports a truncated archive, too
	}()
	err = call.Wait(ctx, &done)
	if ctx.Err() != nil {
		call.stdin.Abort()
		return done, err
	}
	select {
	case rerr := <-read:
		if rerr != nil {
			return done, outcome.Default(outcome.BadInput, fmt.Errorf("read the files for the guest: %w", rerr))
		}
	default: // the guest did not read all of it
	}
	return done, err
}

// Remove removes a workspace, wire.WorkspaceDir/NAME.
func (c *Client) Remove(ctx context.Context, dir string) error {
	return c.do(ctx, wire.OpRemove, wire.RemoveParams{Dir: dir}, nil, nil, nil)
}

// Pack copies a tar archive of the guest's files to w. The guest controls its
// contents: the reader must check them against p.
func (c *Client) Pack(ctx context.Context, p wire.PackParams, w io.Writer) (wire.Packed, error) {
	var done wire.Packed
	err := c.do(ctx, wire.OpPack, p, &done, (*Call).Stdout, w)
	return done, err
}

// Stat returns the guest's state.
func (c *Client) Stat(ctx context.Context) (wire.Stat, error) {
	var st wire.Stat
	err := c.do(ctx, wire.OpStat, nil, &st, nil, nil)
	return st, err
}

// IO is the input and output of a program in the guest.
type IO struct {
	Stdin          io.Reader // nil: the program reads /dev/null
	Stdout, Stderr io.Writer // nil: dropped
	// Started, if set, is called with the Call, for signals and window sizes.
	Started func(*Call)
}

// Watch makes every Exec call f, whose context ends with the program. If f returns
// an error the program is killed and Exec returns that error. Watch is called before
// the first Exec.
func (c *Client) Watch(f func(context.Context) error) { c.watch = f }

// Tainted returns what the guest's kernel was tainted by after its programs, without
// what it was tainted by before.
func (c *Client) Tainted() uint64 { return c.tainted.Load() &^ c.before.Load() }

// TaintedBefore says what the guest's kernel is tainted by already.
func (c *Client) TaintedBefore(tainted uint64) { c.before.Store(tainted) }

// Exec runs a program and waits for its exit and for all of its output. If ctx ends
// first, the program's process group is killed and further output is dropped.
func (c *Client) Exec(ctx context.Context, p wire.ExecParams, s IO) (wire.ExecResult, error) {
	if c.watch != nil {
		watched, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		ctx = watched
		go func() {
			if err := c.watch(watched); err != nil {
				cancel(err)
			}
		}()
	}
	p.Stdin = s.Stdin != nil
	call, err := c.Start(wire.OpExec, p)
	if err != nil {
		return wire.ExecResult{}, err
	}
	if s.Started != nil {
		s.Started(call)
	}
	unread := make(chan error, 1)
	if s.Stdin != nil {
		// Not waited for: a read of the host's terminal cannot be interrupted,
		// and Abort makes the write fail once the program is gone.
		go func() {
			in := source{r: s.Stdin}
			io.Copy(call.Stdin(), &in)
			if in.err != nil {
				unread <- outcome.Default(outcome.BadInput, fmt.Errorf("read the input for the guest: %w", in.err))
			}
			call.Stdin().Close()
		}()
	}
	stdout, stderr := drainTo(s.Stdout, call.Stdout()), drainTo(s.Stderr, call.Stderr())

	var res wire.ExecResult
	err = call.Wait(ctx, &res)
	if err != nil && ctx.Err() != nil {
		// In the background: a hung guest reads nothing from the link.
		go call.Control(wire.Control{Signal: int(syscall.SIGKILL)})
	}
	c.tainted.Or(res.Tainted)
	errOut, errErr := stdout.finish(ctx), stderr.finish(ctx)
	switch {
	case err != nil:
		return res, err
	case !valid(res):
		return res, &GuestError{Op: wire.OpExec, Msg: fmt.Sprintf("the final record is neither an exit nor a signal: %+v", res)}
	}
	select {
	case err = <-unread:
	default:
	}
	return res, cmp.Or(errOut, errErr, err)
}

// valid reports whether r is either an exit or a signal, with a number that Linux
// allows.
func valid(r wire.ExecResult) bool {
	if r.Exited {
		return !r.Signaled && r.Code >= 0 && r.Code <= 255
	}
	return r.Signaled && r.Signal >= 1 && r.Signal <= 127
}

// source records the error of a Reader, which io.Copy does not distinguish from
// the Writer's.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// drain copies a stream to a Writer and reads the stream to its end even if the
// Writer fails: otherwise the guest would block forever and never send the final
// record.
type drain struct {
	w    io.Writer
	turn chan struct{} // held by a Write to w
	left atomic.Bool   // no more Writes
	werr error
	rerr error
	done chan struct{}
}

func drainTo(w io.Writer, r io.Reader) *drain {
	d := &drain{w: w, turn: make(chan struct{}, 1), done: make(chan struct{})}
	if w == nil {
		d.w = io.Discard
	}
	go func() {
		defer close(d.done)
		_, d.rerr = io.Copy(d, r)
	}()
	return d
}

// Write never fails, so that the copying continues.
func (d *drain) Write(p []byte) (int, error) {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if d.werr == nil && !d.left.Load() {
		var n int
		if n, d.werr = d.w.Write(p); d.werr == nil && n < len(p) {
			d.werr = io.ErrShortWrite
		}
	}
	return len(p), nil
}

// stuck is how long finish waits for a Write that blocks, such as one to a pipe that
// nobody reads.
const stuck = time.Second

// finish waits for the stream's end. If ctx ends first, nothing more is written to
// w, so that the caller can use it.
func (d *drain) finish(ctx context.Context) error {
	select {
	case <-d.done:
		return cmp.Or(outcome.Default(outcome.HostLacks, d.werr), d.rerr)
	case <-ctx.Done():
	}
	d.left.Store(true)
	timer := time.NewTimer(stuck)
	defer timer.Stop()
	select {
	case d.turn <- struct{}{}:
		<-d.turn
	case <-timer.C:
	}
	return context.Cause(ctx)
}
