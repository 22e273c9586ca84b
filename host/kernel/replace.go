package kernel

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// replace moves a directory to its final path, in place of an older one, which is what
// is there until the new one is: at no moment is there none.
func replace(dir, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		return os.RemoveAll(dir) // which has the older one now
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS): // a file system without that
		if err := os.RemoveAll(final); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return &os.LinkError{Op: "exchange", Old: dir, New: final, Err: err}
	}
	return os.Rename(dir, final)
}
