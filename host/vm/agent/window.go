package agent

import (
	"context"
	"fmt"
	"io"

	"labctl/host/outcome"
)

// Window is memory that the guest can read. An archive that is put there need not
// go through the link, a few kilobytes at a time.
type Window struct {
	mem  io.WriterAt
	size int64
	used chan struct{} // holds one while an archive is in it
}

// SetWindow gives the Client a window of size bytes, of which the guest must have
// said that it sees them. It must be called before the first request.
func (c *Client) SetWindow(mem io.WriterAt, size int64) {
	c.window = &Window{mem: mem, size: size, used: make(chan struct{}, 1)}
}

// take gets hold of the window, unless another has it or there is none.
func (w *Window) take() bool {
	if w == nil {
		return false
	}
	select {
	case w.used <- struct{}{}:
		return true
	default:
		return false
	}
}

// give lets others have it: the guest is done with what is in it.
func (w *Window) give() { <-w.used }

// fill copies r to the window, until either ends. When ctx ends first the copy
// goes on, so that the window is not given.
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
			err = outcome.Default(outcome.HostLacks, fmt.Errorf("put files in the guest's window: %w", err))
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
