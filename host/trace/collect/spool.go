package collect

import (
	"fmt"
	"os"

	"labctl/host/outcome"
	"labctl/host/scratch"
)

// spool is a file of one CPU's pages. It has no name, so that nothing is left of
// it however labctl ends.
type spool struct {
	file *scratch.File
	size int64
}

func newSpool() (*spool, error) {
	f, err := scratch.Create(os.TempDir())
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("keep pages: %w", err))
	}
	return &spool{file: f}, nil
}

func (s *spool) append(p []byte) error {
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("keep pages in %s: %w", os.TempDir(), err))
	}
	return nil
}

func (s *spool) close() error { return s.file.Close() }
