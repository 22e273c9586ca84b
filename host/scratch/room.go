package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// NoSpaceError is a directory whose file system is too full for what was to be written.
type NoSpaceError struct {
	Dir        string
	Need, Have int64 // bytes; Need is 0 if it is not known
}

func (e *NoSpaceError) Error() string {
	if e.Need == 0 {
		return fmt.Sprintf("no space in %s (have %d MB)", e.Dir, e.Have>>20)
	}
	return fmt.Sprintf("no space in %s (need %d MB, have %d)", e.Dir, (e.Need+1<<20-1)>>20, e.Have>>20)
}

// Outcome is HostLacks.
func (e *NoSpaceError) Outcome() outcome.Kind { return outcome.HostLacks }

// Unwrap makes it the error of a write that found no room.
func (e *NoSpaceError) Unwrap() error { return syscall.ENOSPC }

// Room returns a *NoSpaceError if the file system of a directory has fewer bytes left than
// are needed. What is sparse or mapped is checked before: a page that finds no room later
// ends its process with SIGBUS.
func Room(dir string, need int64) error {
	have, err := free(dir)
	if err == nil && have < need {
		return &NoSpaceError{dir, need, have}
	}
	return nil // unknown is not known to be too little
}

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Full returns the directory in which a write failed for want of space, nil if err is
// something else.
func Full(err error) *NoSpaceError {
	var known *NoSpaceError
	var at *fs.PathError
	switch {
	case errors.As(err, &known):
		return known
	case !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &at):
		return nil
	}
	path := at.Path
	if st, err := os.Stat(path); err == nil {
		if !st.Mode().IsRegular() { // a device is full by its nature
			return nil
		}
		if real, err := filepath.EvalSymlinks(path); err == nil { // /dev/stdout
			path = real
		}
	}
	dir := filepath.Dir(path)
	have, err := free(dir)
	if err != nil {
		return nil
	}
	return &NoSpaceError{Dir: dir, Have: have}
}
