package session

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/outcome"
	"labctl/host/vm/agent"
)

// Relay passes one signal to labctl on to the program in the guest, while there is
// one. Every other ends the context that it came with.
type Relay struct {
	ch  chan os.Signal
	end context.CancelCauseFunc

	mu   sync.Mutex
	call *agent.Call // that gets the next signal
}

// NewRelay takes SIGINT, SIGTERM, SIGHUP and SIGQUIT over until Stop. The context
// outlives ctx, whose own handling of signals it replaces.
func NewRelay(ctx context.Context) (context.Context, *Relay) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &Relay{ch: make(chan os.Signal, 4), end: cancel}
	signal.Notify(r.ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for s := range r.ch {
			r.take(s.(syscall.Signal))
		}
	}()
	return ctx, r
}

func (r *Relay) take(sig syscall.Signal) {
	r.mu.Lock()
	call := r.call
	r.call = nil
	r.mu.Unlock()
	if call == nil {
		r.end(&outcome.SignalError{Signal: sig})
		return
	}
	// In the background: a guest that hangs takes nothing from the link.
	go call.Control(wire.Control{Signal: int(sig)})
}

// to names the program that gets the next signal, nil for none.
func (r *Relay) to(call *agent.Call) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.call = call
	r.mu.Unlock()
}

// Stop gives signals their usual effect again.
func (r *Relay) Stop() {
	signal.Stop(r.ch)
	close(r.ch)
	r.end(nil)
}
