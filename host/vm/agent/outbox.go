package agent

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Outbox is what waits to be sent to a client. A Write takes no time; the client's
// connection is ended when too much waits.
type Outbox struct {
	conn  net.Conn
	limit func() int
	done  chan struct{} // closed when nothing more is sent

	mu   sync.Mutex
	more sync.Cond
	buf  []byte
	last bool // nothing follows
	over bool
}

var errSlow = errors.New("the client reads nothing")

// NewOutbox sends what is written to it to conn. limit is how many bytes may wait.
func NewOutbox(conn net.Conn, limit func() int) *Outbox {
	o := &Outbox{conn: conn, limit: limit, done: make(chan struct{})}
	o.more.L = &o.mu
	go o.run()
	return o
}

// Write never waits.
func (o *Outbox) Write(p []byte) (int, error) {
	limit := o.limit()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over || o.last:
		return 0, net.ErrClosed
	case len(o.buf)+len(p) > limit:
		o.over = true
		o.conn.Close()
		o.more.Broadcast()
		return 0, errSlow
	}
	o.buf = append(o.buf, p...)
	o.more.Broadcast()
	return len(p), nil
}

func (o *Outbox) run() {
	defer close(o.done)
	defer o.conn.Close()
	var buf []byte
	for {
		o.mu.Lock()
		for len(o.buf) == 0 && !o.last && !o.over {
			o.more.Wait()
		}
		if o.over || len(o.buf) == 0 {
			o.mu.Unlock()
			return
		}
		buf, o.buf = o.buf, buf[:0]
		o.mu.Unlock()
		if _, err := o.conn.Write(buf); err != nil {
			o.close()
			return
		}
	}
}

// flushWait is how long a client may take to read what is sent last.
const flushWait = 5 * time.Second

// Finish sends what waits and ends the connection.
func (o *Outbox) Finish() {
	o.conn.SetWriteDeadline(time.Now().Add(flushWait))
	o.mu.Lock()
	o.last = true
	o.more.Broadcast()
	o.mu.Unlock()
	<-o.done
}

// close drops what waits.
func (o *Outbox) close() {
	o.mu.Lock()
	o.over, o.buf = true, nil
	o.more.Broadcast()
	o.mu.Unlock()
}
