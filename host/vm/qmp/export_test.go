package qmp

import (
	"context"

	"github.com/digitalocean/go-qemu/qmp"
)

// Bound returns the monitor that is passed to go-qemu's bindings.
func (m *Monitor) Bound(ctx context.Context) qmp.Monitor { return bound{m, ctx, nil} }

// Done is closed when the session has ended.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Backlog is the number of events that wait for a reader, over all streams.
func (m *Monitor) Backlog() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	count := func(q *queue) {
		q.mu.Lock()
		defer q.mu.Unlock()
		n += len(q.events)
	}
	if m.early != nil {
		count(m.early)
	}
	for q := range m.readers {
		count(q)
	}
	return n
}
