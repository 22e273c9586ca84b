package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/trace/collect"
	"labctl/host/trace/live"
)

// liveTrace is a trace that is printed as it comes.
type liveTrace struct {
	closed atomic.Bool // nobody reads standard output any more
}

// begin has to's events printed to w. Until end a reader that has left does not end labctl
// but the traced program, so that there is a record.
func (l *liveTrace) begin(w io.Writer, to *session.TraceOptions, asJSON bool) (end func()) {
	// Taken, not ignored: what is ignored QEMU would ignore as well.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	// Only a buffer that loses its oldest events says where they were.
	to.Request.Overwrite = true
	style := to.Style
	to.Live = func(leave func(error)) collect.Follower {
		failed := func(err error) {
			l.closed.Store(true)
			if errors.Is(err, syscall.EPIPE) {
				leave(&outcome.SignalError{Signal: syscall.SIGPIPE})
				return
			}
			leave(outcome.Default(outcome.HostLacks, fmt.Errorf("show the trace: %w", err)))
		}
		if asJSON {
			return live.JSON(w, failed)
		}
		return live.Text(w, style, failed)
	}
	return func() { signal.Stop(pipe) }
}
