package agent

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// Window is memory that the guest can read. An archive in it need not be sent over
// the link, a few kilobytes at a time.
type Window struct {
	mem  WindowFile
	size int64
	used chan struct{} // holds one while an archive of this Client's is in it
}

// WindowFile is the memory. Several processes may have it: who has locked it (flock(2))
// may write to it, until the guest has read it. Each has a file of its own, since a
// lock belongs to an open file.
type WindowFile interface {
	io.WriterAt
	Fd() uintptr
}

// SetWindow sets the Client's window, of size bytes. The guest must have reported
// that it can read it. SetWindow must be called before the first request.
func (c *Client) SetWindow(mem WindowFile, size int64) {
	c.window = &Window{mem: mem, size: size, used: make(chan struct{}, 1)}
}

// take acquires the window and reports whether it did: not if it is in use or there
// is none.
func (w *Window) take() bool {
	if w == nil {
		return false
	}
	select {
	case w.used <- struct{}{}:
	default:
		return false
	}
	if unix.Flock(int(w.mem.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return true
	}
	<-w.used
	return false
}

// give releases the window: the guest has read its contents.
func (w *Window) give() {
	unix.Flock(int(w.mem.Fd()), unix.LOCK_UN)
	<-w.used
}

// fill copies r to the window, until either ends. If ctx ends first, the copying
// continues and the window is not released.
func (w *Window) fill(ctx context.Context, r io.Reader) (n int64, rest bool, err error) {
	type end struct {
		n   int64
		err error
	}
	copied := make(chan end, 1)
	go func() {
		in := source{r: r}
		n, err := io.Copy(io.NewOffsetWriter(w.mem, 0), io.LimitReader(&in, w.size))
		if in.err != nil {
			err = outcome.Default(outcome.BadInput, fmt.Errorf("read the files for the guest: %w", in.err))
		} else if err != nil {
			err = outcome.Default(outcome.HostLacks, fmt.Errorf("write files to the guest's window: %w", err))
		}
		copied <- end{n, err}
	}()
	select {
	case e := <-copied:
		return e.n, e.n == w.size, e.err
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
}
