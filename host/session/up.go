package session

import (
	"context"
	"errors"
	"time"

	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/registry"
)

// UpOptions are a machine that is kept for other commands.
type UpOptions struct {
	Options // Machine is its name, Idle how long it is kept without use
	// Ready is called when other commands can use the machine.
	Ready func(*Session, registry.Info) error
}

// ErrIdle ends a machine that nobody has used.
var ErrIdle = outcome.New(outcome.OK, "idle for as long as it may be")

// Up starts a machine and keeps it until ctx ends, somebody asks for its end, or it has
// been idle for too long, which is ErrIdle.
func Up(ctx context.Context, env Env, o UpOptions) error {
	o.Spec.Commands = true
	o.Waits = true
	o.Before = func(ctx context.Context, _ *machine.Spec) error { return registry.CheckFree(ctx, o.Machine) }
	_, err := Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		if o.Ready != nil {
			if err := o.Ready(s, s.entry.Info()); err != nil {
				return err
			}
		}
		return s.keep(ctx, o.Idle)
	})
	return err
}

// keep waits for a reason to end the machine.
func (s *Session) keep(ctx context.Context, limit time.Duration) error {
	for {
		var late <-chan time.Time
		if limit > 0 {
			left := limit - s.entry.Idle()
			if left <= 0 {
				return ErrIdle
			}
			late = time.After(left)
		}
		select {
		case <-s.entry.Asked():
			return nil
		case <-ctx.Done():
			var signal *outcome.SignalError
			if errors.As(context.Cause(ctx), &signal) {
				return nil // that is how it is ended
			}
			return s.poweredOff(context.Cause(ctx))
		case <-late:
		}
	}
}
