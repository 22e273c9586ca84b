package wire

import "sync"

// Credit is how many bytes a sender may still send on one stream. It starts
// with Window and never holds more, whatever the other side grants.
type Credit struct {
	mu     sync.Mutex
	more   sync.Cond
	n      int
	closed bool
}

// NewCredit returns a Credit of Window bytes.
func NewCredit() *Credit {
	c := &Credit{n: Window}
	c.more.L = &c.mu
	return c
}

// Take waits until there is any credit and takes up to max bytes of it. It
// returns 0 once the Credit is closed.
func (c *Credit) Take(max int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n == 0 && !c.closed {
		c.more.Wait()
	}
	if c.closed {
		return 0
	}
	n := min(max, c.n)
	c.n -= n
	return n
}

// Grant adds n bytes.
func (c *Credit) Grant(n uint32) {
	c.mu.Lock()
	c.n = min(Window, c.n+int(min(n, Window)))
	c.mu.Unlock()
	c.more.Broadcast()
}

// Close ends every Take, now and later.
func (c *Credit) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.more.Broadcast()
}
