package tracefs

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// livePause is between two rounds of a live capture.
const livePause = 100 * time.Millisecond

// startLive makes the reader of a live capture, which waits for begun.
func (s *shipment) startLive() {
	for _, c := range s.cpus {
		c.page = make([]byte, s.r.layout.page)
		if err := unix.SetNonblock(c.raw, true); err != nil {
			s.fail(err)
			return
		}
	}
	s.readers.Go(func() {
		select {
		case <-s.begun:
		case <-s.quit:
			return
		}
		l := live{shipment: s, named: map[string]string{}}
		tick := time.NewTicker(livePause)
		defer tick.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-s.end:
				return
			case <-tick.C:
			}
			if !l.round() {
				return
			}
		}
	})
}

// live ships rounds: whatever all CPUs have.
type live struct {
	*shipment
	named map[string]string // by number of the task: names that were sent
}

// round ships what is in the buffers when it begins, and more of what comes meanwhile, but
// no more than a buffer holds: a CPU that records without end does not keep the others
// waiting. It reports whether there may be another.
func (l *live) round() bool {
	most := max(l.r.armed.BufferKB<<10/l.r.layout.page, 1) + 1
	some := false
	for _, c := range l.cpus {
		if c.buf == nil {
			c.buf = make([]byte, 0, batchBytes/l.r.layout.page*l.r.layout.page)
		}
		for range most {
			if c.page == nil {
				c.page = make([]byte, l.r.layout.page)
			}
			if l.next(c); c.page == nil {
				break
			}
			some = true
			if c.buf = append(c.buf, c.page...); len(c.buf) == cap(c.buf) {
				if !l.send(c, c.buf) {
					return false
				}
				c.buf = c.buf[:0]
			}
		}
		if len(c.buf) > 0 && !l.send(c, c.buf) {
			return false
		}
		c.buf = c.buf[:0]
	}
	var names []byte
	if some {
		names = l.names()
	}
	if err := errors.Join(l.w.Write(wire.ChunkRound, 0, names), l.w.Flush()); err != nil {
		l.fail(err)
		return false
	}
	return true
}

// names are the lines of saved_cmdlines that were not sent yet.
func (l *live) names() (fresh []byte) {
	text, err := readHead(filepath.Join(l.r.fs.root, "saved_cmdlines"), wire.MaxChunk/2)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		pid, name, _ := strings.Cut(line, " ")
		if old, known := l.named[pid]; known && old == name {
			continue
		}
		if len(l.named) >= wantCmdlines*4 {
			clear(l.named)
		}
		l.named[pid] = name
		fresh = append(fresh, line...)
	}
	return fresh
}
