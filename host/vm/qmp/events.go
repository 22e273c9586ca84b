package qmp

import (
	"context"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"
)

// queue is an endless queue of events, so that the reader of the socket never
// waits for a reader of events.
type queue struct {
	mu     sync.Mutex
	events []qmp.Event
	closed bool
	wake   chan struct{} // holds one token when there is something to look at
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) put(e qmp.Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	q.nudge()
}

// close lets the reader finish what is queued.
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

// first returns the oldest event and leaves it in the queue.
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
	q.events[0] = qmp.Event{} // let go of its data
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
