// Package usage counts the CPU time of the processes that are run for one piece of
// work, however deep below it they are started: the meter is in the context.
package usage

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Meter is a sum of CPU time. The zero Meter is ready.
type Meter struct{ total atomic.Int64 }

type key struct{}

// With gives a context whose work is counted by m.
func With(ctx context.Context, m *Meter) context.Context {
	return context.WithValue(ctx, key{}, m)
}

// Add counts a process that has ended, and the children that it waited for, if
// the context has a meter.
func Add(ctx context.Context, p *os.ProcessState) {
	if m, ok := ctx.Value(key{}).(*Meter); ok && p != nil {
		m.Count(p.UserTime() + p.SystemTime())
	}
}

// Count counts d.
func (m *Meter) Count(d time.Duration) { m.total.Add(int64(d)) }

// Total is what was counted.
func (m *Meter) Total() time.Duration { return time.Duration(m.total.Load()) }

// Self is the CPU time of this process so far, without its children.
func Self() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0 // it fails for bad arguments alone (getrusage(2))
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
