package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// slowMax is the bound of a capture over a serial line, in bytes of pages,
// where nobody has chosen one: deflated they are a fifth, which takes a minute.
const slowMax = 4 << 20

// capture ships ring-buffer pages until the host says stop. The instance is removed
// behind the final record's back: under emulation removing takes as long as all the
// rest, and the host waits for the record alone. The next capture waits for the
// removal, and reports its failure.
func (s *session) capture(r *request, p wire.CaptureParams) (any, error) {
	fs, err := s.openFS()
	if err != nil {
		return nil, err
	}
	if err := s.captures.begin(); err != nil {
		return nil, err
	}
	c, err := fs.Arm(p)
	if err != nil {
		s.captures.remove(p.Instance, nil)
		return nil, err
	}
	s.captures.add(p.Instance, c)
	defer func() { go s.captures.remove(p.Instance, c) }()

	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	r.onControl(func(ctl wire.Control) {
		if ctl.Stop {
			end()
		}
	})
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-r.over:
			end()
		case <-ended:
		}
	}()
	slow := s.guest.Chunk > 0
	max := p.Max
	if max == 0 {
		max = wire.MaxPages
		if slow {
			max = slowMax
		}
	}
	out := r.senders[wire.Extra]
	w := wire.NewChunkWriter(out, s.chunk(), slow)
	st, err := c.Run(stop, w, max)
	return st, errors.Join(err, w.Close(), out.Close())
}

// captures are those of a session.
type captures struct {
	mu      sync.Mutex
	changed sync.Cond
	running map[string]*tracefs.Capture // by instance
	there   int                         // begun and not removed yet
	leaving int                         // of these, on their way out
	over    bool                        // no more begin
	err     error                       // of removals, for the next to begin
}

func newCaptures() *captures {
	r := &captures{running: map[string]*tracefs.Capture{}}
	r.changed.L = &r.mu
	return r
}

// begin waits for captures on their way out, and reports what went wrong with
// them. remove must follow.
func (r *captures) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.leaving > 0 {
		r.changed.Wait()
	}
	if r.over {
		return errors.New("session is over")
	}
	if err := r.err; err != nil {
		r.err = nil
		return fmt.Errorf("remove the capture before: %w", err)
	}
	r.there++
	return nil
}

func (r *captures) add(name string, c *tracefs.Capture) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[name] = c
}

// remove takes a capture away; c is nil for one that did not come about.
func (r *captures) remove(name string, c *tracefs.Capture) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c != nil {
		delete(r.running, name)
		r.leaving++
		r.mu.Unlock()
		err := c.Remove()
		r.mu.Lock()
		r.err = errors.Join(r.err, err)
		r.leaving--
	}
	r.there--
	r.changed.Broadcast()
}

// end lets none begin and waits until all are removed.
func (r *captures) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for r.there > 0 {
		r.changed.Wait()
	}
}

// find finds a capture that is under way.
func (r *captures) find(name string) (*tracefs.Capture, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.running[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no capture %q is under way", clip(name, 60))
}

// lists returns the files that a program writes its number to so as to be recorded,
// and leaves a mark in the capture, if it is not empty.
func (r *captures) lists(name, mark string) ([]*os.File, error) {
	c, err := r.find(name)
	if err != nil {
		return nil, err
	}
	files, err := c.Lists()
	if err != nil || mark == "" {
		return files, err
	}
	if err := c.Mark(mark); err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}
