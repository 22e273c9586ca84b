package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// slowMax is the bound of a recording over a serial line, in bytes of pages,
// where nobody has chosen one: deflated they are a fifth, which takes a minute.
const slowMax = 4 << 20

// record records until the host says stop. The instance is removed behind the
// final record's back, as traceStop does; whoever records next waits for it.
func (s *session) record(r *request, p wire.CaptureParams) (any, error) {
	fs, err := s.openFS()
	if err != nil {
		return nil, err
	}
	if err := s.recordings.begin(); err != nil {
		return nil, err
	}
	rec, err := fs.Record(p)
	if err != nil {
		s.recordings.remove(p.Instance, nil)
		return nil, err
	}
	s.recordings.add(p.Instance, rec)
	defer func() { go s.recordings.remove(p.Instance, rec) }()

	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	r.onControl(func(c wire.Control) {
		if c.Stop {
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
	st, err := rec.Run(stop, w, max)
	return st, errors.Join(err, w.Close(), out.Close())
}

// recordings are those of a session.
type recordings struct {
	mu      sync.Mutex
	changed sync.Cond
	running map[string]*tracefs.Recording // by instance
	there   int                           // begun and not removed yet
	leaving int                           // of these, on their way out
	over    bool                          // no more begin
	err     error                         // of removals, for the next to begin
}

func newRecordings() *recordings {
	r := &recordings{running: map[string]*tracefs.Recording{}}
	r.changed.L = &r.mu
	return r
}

// begin waits for recordings on their way out, and reports what went wrong with
// them. remove must follow.
func (r *recordings) begin() error {
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
		return fmt.Errorf("remove the recording before: %w", err)
	}
	r.there++
	return nil
}

func (r *recordings) add(name string, rec *tracefs.Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[name] = rec
}

// remove takes a recording away; rec is nil for one that did not come about.
func (r *recordings) remove(name string, rec *tracefs.Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec != nil {
		delete(r.running, name)
		r.leaving++
		r.mu.Unlock()
		err := rec.Remove()
		r.mu.Lock()
		r.err = errors.Join(r.err, err)
		r.leaving--
	}
	r.there--
	r.changed.Broadcast()
}

// end lets none begin and waits until all are removed.
func (r *recordings) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for r.there > 0 {
		r.changed.Wait()
	}
}

// lists gives the files that a program writes its number to so as to be recorded,
// and leaves a mark in the recording, if it is not empty.
func (r *recordings) lists(name, mark string) ([]*os.File, error) {
	r.mu.Lock()
	rec := r.running[name]
	r.mu.Unlock()
	if rec == nil {
		return nil, fmt.Errorf("no recording %q is under way", clip(name, 60))
	}
	files, err := rec.Lists()
	if err != nil || mark == "" {
		return files, err
	}
	if err := rec.Mark(mark); err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}
