// Package collect collects the ring-buffer pages of a guest's kernel: it has
// the agent arm a trace instance, keeps the pages that come in files without a
// name, and puts them together with the kernel's own texts as a capture.
package collect

import (
	"context"
	"errors"
	"fmt"
	"io"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/trace/capture"
	"labctl/host/vm/agent"
)

// Collection is a capture under way.
type Collection struct {
	// Armed is what the kernel took of what was asked for, cleaned for a terminal.
	Armed wire.CaptureArmed

	call *agent.Call
	cap  *capturer
	done chan struct{} // the stream has ended
	err  error         // why, when it did not end as it should; after done
}

// Result is a capture that has ended.
type Result struct {
	// Capture reads its pages from files that Close closes.
	Capture *capture.Capture
	Armed   wire.CaptureArmed
	Stopped wire.CaptureStopped
	Hists   []Hist // of events, in the order in which they were asked for

	spools []*spool
}

// Lost is how many events the kernel had no room for.
func (r *Result) Lost() (n int64) {
	for _, c := range r.Stopped.CPUs {
		n += c.Lost()
	}
	return n
}

// Close drops the pages. The Capture cannot be read afterwards.
func (r *Result) Close() error {
	var errs []error
	for _, s := range r.spools {
		errs = append(errs, s.close())
	}
	r.spools = nil
	return errors.Join(errs...)
}

// Start arms a capture and returns when the kernel records. Symbols come from
// the image of k where it has a table that can be read, and else, as when k is
// nil, from the guest, which takes seconds. Stop must follow.
func Start(ctx context.Context, c *agent.Client, k *kernel.Kernel, p wire.CaptureParams) (*Collection, error) {
	return Follow(ctx, c, k, p, nil)
}

// Follower is shown a capture while it is recorded, by the goroutine that takes its bytes:
// one that is slow slows down the guest's reading of its buffers. Pages can be read until
// the method returns.
type Follower interface {
	Begin(c *capture.Capture)                   // what describes the pages, and no pages
	Round(pages []capture.CPU, cmdlines []byte) // see wire.ChunkRound
	End(pages []capture.CPU)                    // the last ones
}

// Follow is Start of a capture that f is shown; nil for nobody.
func Follow(ctx context.Context, c *agent.Client, k *kernel.Kernel, p wire.CaptureParams, f Follower) (*Collection, error) {
	var m image
	if !p.Symbols && k != nil {
		var err error
		if m.table, err = k.Kallsyms(ctx); err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		m.modules = k.Modules
	}
	p.Symbols = m.table == nil
	call, err := c.Start(wire.OpCapture, p)
	if err != nil {
		return nil, err
	}
	r := &Collection{call: call, cap: newCapturer(m, p.Max, f), done: make(chan struct{})}
	armed := make(chan struct{})
	go r.read(call.Extra(), armed)
	select {
	case <-armed:
		r.Armed = *r.cap.armed
		return r, nil
	case <-r.done:
		err = r.call.Wait(ctx, nil)
		if err == nil {
			err = r.err
		}
		if err == nil {
			err = &agent.GuestError{Op: wire.OpCapture, Msg: "it ended before it began"}
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
		go call.Control(wire.Control{Stop: true}) // not waited for: the guest may hang
	}
	go func() {
		<-r.done
		r.cap.close()
	}()
	return nil, fmt.Errorf("capture: %w", err)
}

// read takes chunks until the stream ends. What the host cannot keep is an
// error, but is read all the same: a guest whose bytes are not taken would wait
// for ever.
func (r *Collection) read(stream io.Reader, armed chan<- struct{}) {
	defer close(r.done)
	chunks := wire.NewChunkReader(stream)
	for {
		c, err := chunks.Next()
		if err == nil {
			err = r.cap.take(c)
		}
		if err == io.EOF {
			r.cap.ended()
			return
		}
		if err != nil {
			r.cap.ended()
			r.err = err
			r.call.Control(wire.Control{Stop: true})
			io.Copy(io.Discard, stream)
			return
		}
		if c.Kind == wire.ChunkArmed {
			close(armed)
		}
	}
}

// Stop ends the collection and puts the capture together. With an error there is
// still a Result of what came until then, nil only when nothing can be read of
// it; Result.Close must be called for it.
func (r *Collection) Stop(ctx context.Context) (*Result, error) {
	go r.call.Control(wire.Control{Stop: true}) // a link that hangs must not hold up ctx
	var st wire.CaptureStopped
	err := r.call.Wait(ctx, &st)
	if err == nil || ctx.Err() == nil {
		select {
		case <-r.done:
			err = errors.Join(err, r.err)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		err = fmt.Errorf("capture: %w", err)
	}
	select {
	case <-r.done:
	default: // still being written to: nothing to read from
		go func() {
			<-r.done
			r.cap.close()
		}()
		return nil, err
	}
	capt, cerr := r.cap.capture()
	if cerr != nil {
		r.cap.close()
		return nil, errors.Join(err, cerr)
	}
	return &Result{Capture: capt, Armed: *r.cap.armed, Stopped: r.cap.checked(st), Hists: r.cap.hists, spools: r.cap.spools()}, err
}
