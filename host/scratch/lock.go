package scratch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// Lock is a lock among processes, by a file that goes when it is released. Of a
// holder that died the file stays, without a lock.
type Lock struct {
	file *os.File
	path string
}

// ErrLocked says that another holds the lock.
var ErrLocked = outcome.New(outcome.HostLacks, "another holds the lock")

// TryLock takes the lock if nobody has it; else the error is ErrLocked.
func TryLock(path string) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == unix.EWOULDBLOCK:
			f.Close()
			return nil, ErrLocked
		case err != nil:
			f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		// Its holder may have removed the file after it was opened here. The lock
		// of a file without that name keeps nobody out.
		if isFile(f, path) {
			return &Lock{f, path}, nil
		}
		f.Close()
	}
}

// TakeLock waits for the lock.
func TakeLock(ctx context.Context, path string) (*Lock, error) {
	for {
		l, err := TryLock(path)
		if err != ErrLocked {
			return l, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		}
	}
}

func isFile(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}

// Release removes the file and lets the lock go, in that order: whoever makes
// the file anew finds all done that was to be done under the lock.
func (l *Lock) Release() error {
	return errors.Join(os.Remove(l.path), l.file.Close())
}
