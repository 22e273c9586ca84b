package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"labctl/host/scratch"
)

// What a Spool keeps of a log: the start, where the guest boots, and the end.
const (
	maxHead = 1 << 20 // bytes
	maxRest = 4 << 20
)

// Spool keeps logs in memory until it is known whether they are needed, so that a
// run that succeeds, or is killed, leaves no files.
type Spool struct {
	mu   sync.Mutex
	logs []*spooled
}

// create returns a new log, which replaces an earlier one for the same path.
func (s *Spool) create(path string) *spooled {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = slices.DeleteFunc(s.logs, func(l *spooled) bool { return l.path == path })
	l := &spooled{path: path}
	s.logs = append(s.logs, l)
	return l
}

// Save writes the logs to files, readable by their owner only, and creates their
// directories.
func (s *Spool) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.logs {
		if err := l.save(); err != nil {
			errs = append(errs, &LogError{l.path, err})
		}
	}
	return errors.Join(errs...)
}

// spooled is one log: its start, and the end of what follows.
type spooled struct {
	path string

	mu         sync.Mutex
	head, rest []byte
	lost       int64 // bytes between the two
}

// Write never fails.
func (l *spooled) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(p), maxHead-len(l.head))
	l.head = append(l.head, p[:n]...)
	l.rest = append(l.rest, p[n:]...)
	if len(l.rest) > 2*maxRest { // rarely, so that not every write copies all
		over := len(l.rest) - maxRest
		l.lost += int64(over)
		l.rest = append(l.rest[:0], l.rest[over:]...)
	}
	return len(p), nil
}

func (l *spooled) Close() error { return nil }

func (l *spooled) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := ""
	if l.lost > 0 {
		gap = fmt.Sprintf("\n[labctl: %d bytes dropped]\n", l.lost)
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	return scratch.Write(l.path, slices.Concat(l.head, []byte(gap), l.rest), 0o600)
}

// createLog creates one of the logs named in cfg.
func (cfg Config) createLog(path string) (io.WriteCloser, error) {
	if cfg.Spool != nil {
		return cfg.Spool.create(path), nil
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
}

func (cfg Config) writeLog(path, text string) error {
	w, err := cfg.createLog(path)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return errors.Join(err, w.Close())
}
