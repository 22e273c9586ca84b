// Package usage measures the CPU time of the processes that are run for a piece of
// work, at whatever depth they are started: the meter is in the context.
package usage

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Meter is a sum of CPU time. The zero Meter is ready to use.
type Meter struct{ total atomic.Int64 }

type key struct{}

// With returns a context whose processes are counted by m.
func With(ctx context.Context, m *Meter) context.Context {
	return context.WithValue(ctx, key{}, m)
}

// Add adds the CPU time of a process that has exited, and of the children that it
// waited for, to the context's meter, if it has one.
func Add(ctx context.Context, p *os.ProcessState) {
	if m, ok := ctx.Value(key{}).(*Meter); ok && p != nil {
		m.Count(p.UserTime() + p.SystemTime())
	}
}

// Count adds d.
func (m *Meter) Count(d time.Duration) { m.total.Add(int64(d)) }

// Total returns the sum.
func (m *Meter) Total() time.Duration { return time.Duration(m.total.Load()) }

// Self returns the CPU time of this process so far, without its children.
func Self() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0 // it fails only for invalid arguments (getrusage(2))
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
