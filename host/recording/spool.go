package recording

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// spool is a file of one CPU's pages. It has no name, so that nothing is left of
// it however labctl ends.
type spool struct {
	file *os.File
	size int64
}

func newSpool() (*spool, error) {
	f, err := nameless(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("keep pages in %s: %w", os.TempDir(), err)
	}
	return &spool{file: f}, nil
}

// nameless opens a file in dir that never had a name, or, where the file system
// cannot do that, has lost it.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "pages"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "labctl-pages-*")
	if err != nil {
		return nil, err
	}
	return f, errors.Join(os.Remove(f.Name()))
}

func (s *spool) append(p []byte) error {
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	if err != nil {
		return fmt.Errorf("keep pages in %s: %w", os.TempDir(), errors.Unwrap(err))
	}
	return nil
}

func (s *spool) close() error { return s.file.Close() }
