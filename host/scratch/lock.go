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

// Lock is a lock between processes: a locked file that is removed on release. If the
// holder dies, the file remains, unlocked.
type Lock struct {
	file *os.File
	path string
}

// ErrLocked means that another process or goroutine holds the lock.
var ErrLocked = outcome.New(outcome.HostLacks, "locked by another process")

// TryLock acquires the lock if it is free; else the error is ErrLocked.
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
		// Its holder may have removed the file after it was opened here. Locking an
		// unlinked file would exclude nobody.
		if isFile(f, path) {
			return &Lock{f, path}, nil
		}
		f.Close()
	}
}

// TakeLock waits for the lock and acquires it.
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

// Release removes the file and then releases the lock. Whoever creates the file again
// sees everything that was done under the lock.
func (l *Lock) Release() error {
	return errors.Join(os.Remove(l.path), l.file.Close())
}
