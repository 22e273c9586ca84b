package qmp

import (
	"context"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"
)

// queue is an unbounded queue of events, so that reading the socket never blocks on
// a reader of events.
type queue struct {
	mu     sync.Mutex
	events []qmp.Event
	closed bool
	wake   chan struct{} // has a token if there is something to read
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) put(e qmp.Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	q.nudge()
}

// close closes the queue; the reader still receives what is queued.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.nudge()
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// first returns the oldest event without removing it.
func (q *queue) first() (e qmp.Event, ok, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		return e, false, q.closed
	}
	return q.events[0], true, q.closed
}

func (q *queue) pop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events[0] = qmp.Event{} // release its data
	q.events = q.events[1:]
}

// deliver moves events to ch until the queue is closed and empty, or ctx ends.
func (q *queue) deliver(ctx context.Context, ch chan<- qmp.Event) {
	defer close(ch)
	for {
		e, ok, closed := q.first()
		switch {
		case ok:
			select {
			case ch <- e:
				q.pop()
			case <-ctx.Done():
				return
			}
		case closed:
			return
		default:
			select {
			case <-q.wake:
			case <-ctx.Done():
				return
			}
		}
	}
}
