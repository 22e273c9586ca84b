package vm

import (
	"context"
	"time"

	"labctl/host/vm/qemu"
)

// maxStretch bounds by how much a busy host stretches a phase's deadline.
const maxStretch = 5

// within returns a context that ends with errDeadline once the phase has had limit of
// the host's time. Time in which QEMU was ready to run and had no CPU does not count:
// a deadline says that a guest hangs, not that the host is busy.
func (v *VM) within(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(v.ctx)
	began, delays := time.Now(), qemu.RunDelays(v.proc.PID())
	go func() {
		t := time.NewTimer(limit)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			left := remaining(limit, time.Since(began), qemu.Starved(delays, qemu.RunDelays(v.proc.PID())))
			if left <= 0 {
				cancel(errDeadline)
				return
			}
			t.Reset(left)
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// remaining is what is left of a limit after a time of which QEMU was starved for a part.
func remaining(limit, passed, starved time.Duration) time.Duration {
	return min(limit-(passed-min(starved, passed)), maxStretch*limit-passed)
}
