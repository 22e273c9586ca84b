package agent

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/outcome"
)

// Bridge lets a client in another process use the same agent: it speaks the protocol of
// package wire to that, as the agent would, and passes frames on, each request with a
// number of this link's. Credit is passed on, too, so that a slow client holds up
// nobody else.
type Bridge struct {
	c    *Client
	peer net.Conn
	out  *Outbox
	w    *wire.Writer
	used func() // called when the client or a program of its does something

	mu   sync.Mutex
	open map[uint32]*relayed // by the client's number
	gone bool                // the client is
	owed []grant             // credit to send to the guest in place of the client

	wake     chan struct{} // has a token when the guest is owed credit
	idle     sync.Cond     // open has become empty
	programs atomic.Int32
}

// grant is credit for a stream of the guest's.
type grant struct {
	id     uint32
	stream wire.Stream
	n      uint32
}

// relayed is one request of the client's.
type relayed struct {
	b      *Bridge
	op     wire.Op
	tty    bool
	ch, id uint32 // the client's number, this link's
	credit int    // bytes that the client may send on Stdin; guarded by b.mu
}

// maxRelayed limits a client's open requests. The guest has a limit of its own, for all
// together.
const maxRelayed = 32

// NewBridge says hello to a client. used, if it is not nil, is called whenever the
// client does something.
func (c *Client) NewBridge(peer net.Conn, hello wire.Hello, used func()) *Bridge {
	b := &Bridge{c: c, peer: peer, used: used, open: map[uint32]*relayed{}, wake: make(chan struct{}, 1)}
	b.idle.L = &b.mu
	b.out = NewOutbox(peer, b.limit)
	b.w = wire.NewWriter(b.out)
	b.w.Send(wire.KindHello, 0, hello)
	return b
}

// limit is how many bytes may wait for the client: what it has granted, and some more.
func (b *Bridge) limit() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return (len(b.open) + 1) * 4 * wire.Window
}

// Programs returns how many programs of the client's are running.
func (b *Bridge) Programs() int { return int(b.programs.Load()) }

// Busy reports whether something of the client's runs that needs nobody at a terminal.
func (b *Bridge) Busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.open {
		if !r.tty {
			return true
		}
	}
	return false
}

// Run serves the client until its connection ends, then ends what it has started, and
// returns when that has ended, or ctx has. The error is a violation of the protocol by
// the client.
func (b *Bridge) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { b.peer.Close() })
	defer stop()
	left := make(chan struct{})
	go func() {
		select {
		case <-b.c.Done(): // what the guest has sent last is still for the client
			b.out.Finish()
		case <-left:
		}
	}()
	err := b.read()
	close(left)
	b.peer.Close()
	b.out.close()
	b.leave()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go b.grantAll(ctx)
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.idle.Broadcast()
	})()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.open) > 0 && ctx.Err() == nil {
		b.idle.Wait()
	}
	return err
}

// read passes the client's frames on to the guest. Everything in them is checked here: a
// frame that the guest does not understand would end the link for all.
func (b *Bridge) read() error {
	strays := false
	r := wire.NewReader(b.peer, func([]byte) {
		strays = true
		b.peer.Close()
	})
	for {
		f, err := r.Read()
		switch {
		case strays || r.Lost() > 0:
			return outcome.New(outcome.BadInput, "a client sent something else than frames")
		case err != nil:
			return nil // it has left
		}
		if err := b.pass(f); err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("a client sent what it may not: %w", err))
		}
	}
}

func (b *Bridge) pass(f wire.Frame) error {
	b.mu.Lock()
	r := b.open[f.Chan]
	b.mu.Unlock()
	if b.used != nil && f.Kind != wire.KindCredit {
		b.used()
	}
	switch {
	case f.Kind == wire.KindHello || f.Kind == wire.KindResult:
		return fmt.Errorf("a frame of kind %d", f.Kind)
	case f.Kind == wire.KindRequest && r != nil:
		return fmt.Errorf("two requests on chan %d", f.Chan)
	case f.Kind == wire.KindRequest:
		return b.request(f)
	case r == nil: // it has ended meanwhile
		return nil
	}
	switch f.Kind {
	case wire.KindData:
		if f.Stream != wire.Stdin {
			return fmt.Errorf("data on stream %d", f.Stream)
		}
		b.mu.Lock()
		r.credit -= len(f.Payload)
		over := r.credit < 0
		b.mu.Unlock()
		if over {
			return wire.ErrOverrun
		}
	case wire.KindCredit:
		if _, err := wire.ParseCredit(f.Payload); err != nil {
			return err
		}
	case wire.KindControl:
		if _, err := wire.Decode[wire.Control](f.Payload); err != nil {
			return err
		}
	}
	f.Chan = r.id
	return b.c.w.Write(f)
}

// request opens a request of the client's.
func (b *Bridge) request(f wire.Frame) error {
	q, err := wire.Decode[wire.Request](f.Payload)
	if err != nil {
		return err
	}
	r := &relayed{b: b, op: q.Op, ch: f.Chan, credit: wire.Window}
	refused := ""
	switch q.Op {
	case wire.OpResume:
		refused = "it is for a guest that was restored"
	case wire.OpExec:
		p, err := wire.Decode[wire.ExecParams](q.Params)
		if err != nil {
			return err
		}
		r.tty = p.TTY
	}
	b.mu.Lock()
	if len(b.open) >= maxRelayed {
		refused = fmt.Sprintf("more than %d requests at once", maxRelayed)
	}
	b.mu.Unlock()
	if refused != "" {
		return b.w.Send(wire.KindResult, f.Chan, wire.Result{Err: refused})
	}
	_, err = b.c.open(func(id uint32) request {
		r.id = id
		b.mu.Lock()
		defer b.mu.Unlock()
		b.open[r.ch] = r
		return r
	})
	if err != nil {
		return err // the guest has ended
	}
	if r.op == wire.OpExec {
		b.programs.Add(1)
	}
	return b.c.w.Write(wire.Frame{Kind: wire.KindRequest, Chan: r.id, Payload: f.Payload})
}

// take passes a frame of the guest's on to the client. It is called by the goroutine
// that reads the link, and never waits.
func (r *relayed) take(f wire.Frame) error {
	b := r.b
	switch f.Kind {
	case wire.KindCredit:
		n, err := wire.ParseCredit(f.Payload)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		b.mu.Lock()
		r.credit = min(wire.Window, r.credit+int(min(n, wire.Window)))
		b.mu.Unlock()
	case wire.KindResult:
		b.taint(r, f.Payload)
	case wire.KindData:
		b.mu.Lock()
		if gone := b.gone; gone {
			b.owed = append(b.owed, grant{r.id, f.Stream, uint32(len(f.Payload))})
			b.nudge()
		}
		b.mu.Unlock()
	}
	if b.used != nil && !r.tty {
		b.used()
	}
	f.Chan = r.ch
	b.w.Write(f) // what fails here ends the client's connection
	if f.Kind == wire.KindResult {
		r.end()
	}
	return nil
}

// lost ends the request without a result. Run ends the client's connection: that is what
// the guest's end looks like.
func (r *relayed) lost(error) { r.end() }

func (r *relayed) end() {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, r.ch)
	if r.op == wire.OpExec {
		b.programs.Add(-1)
	}
	if len(b.open) == 0 {
		b.idle.Broadcast()
	}
}

// taint remembers what a program has tainted the kernel with.
func (b *Bridge) taint(r *relayed, payload []byte) {
	if r.op != wire.OpExec {
		return
	}
	res, err := wire.Decode[wire.Result](payload)
	if err != nil || len(res.Value) == 0 {
		return
	}
	var v wire.ExecResult
	if wire.Unmarshal(res.Value, &v) == nil {
		b.c.tainted.Or(v.Tainted)
	}
}

// leave ends what the client has started: programs are killed, captures stopped. What
// they still send is dropped, and granted, so that they do not wait for the client.
func (b *Bridge) leave() {
	b.mu.Lock()
	b.gone = true
	var left []*relayed
	for _, r := range b.open {
		left = append(left, r)
		for s := wire.Stdout; s <= wire.Extra; s++ {
			b.owed = append(b.owed, grant{r.id, s, wire.Window})
		}
	}
	b.nudge()
	b.mu.Unlock()
	go func() { // a guest that hangs takes nothing
		for _, r := range left {
			b.c.w.Write(wire.Frame{Kind: wire.KindData, Stream: wire.Stdin, Chan: r.id})
			switch r.op {
			case wire.OpExec:
				b.c.w.Send(wire.KindControl, r.id, wire.Control{Signal: int(syscall.SIGKILL)})
			case wire.OpCapture:
				b.c.w.Send(wire.KindControl, r.id, wire.Control{Stop: true})
			}
		}
	}()
}

func (b *Bridge) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// grantAll sends the guest the credit that it is owed.
func (b *Bridge) grantAll(ctx context.Context) {
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
		b.mu.Lock()
		owed := b.owed
		b.owed = nil
		b.mu.Unlock()
		for _, g := range owed {
			if b.c.w.SendCredit(g.id, g.stream, g.n) != nil {
				return
			}
		}
	}
}
