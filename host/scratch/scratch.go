// Package scratch makes files and folders that do not outlive their maker,
// however it dies, unless it keeps them.
//
// A file has no name until it is whole (open(2), O_TMPFILE). A folder has one,
// and a lock that ends with its maker; the next one to make such a folder
// removes those that nobody holds.
package scratch

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file that is gone once it is closed, unless it is kept.
type File struct {
	*os.File
	dir  *os.File // where it will be
	name string   // on file systems that have no nameless files
}

// Create makes a file that may be kept in the folder dir.
func Create(dir string) (*File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	f, err := CreateIn(d)
	if err != nil {
		d.Close()
	}
	return f, err
}

// CreateIn is Create for a folder that is open. The file owns it from then on.
func CreateIn(dir *os.File) (*File, error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	f := &File{dir: dir}
	fd, err := openat(dir, ".", flags|unix.O_TMPFILE)
	// What a file system without O_TMPFILE says, and a kernel without it.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		f.name = tempName()
		fd, err = openat(dir, f.name, flags|unix.O_CREAT|unix.O_EXCL)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "make a file in", Path: dir.Name(), Err: err}
	}
	f.File = os.NewFile(uintptr(fd), filepath.Join(dir.Name(), "(nameless)"))
	return f, nil
}

func openat(dir *os.File, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(int(dir.Fd()), name, flags, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func tempName() string { return ".labctl-" + rand.Text() }

// Keep closes the file and gives it its name in its folder, in place of what is
// there under it. Until then the name is as it was.
func (f *File) Keep(name string, perm fs.FileMode) error {
	defer f.Close()
	err := f.Chmod(perm)
	if err == nil {
		err = f.link(name)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", filepath.Join(f.dir.Name(), name), err)
	}
	return nil
}

func (f *File) link(name string) error {
	dir := int(f.dir.Fd())
	if f.name == "" {
		self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		err := unix.Linkat(unix.AT_FDCWD, self, dir, name, unix.AT_SYMLINK_FOLLOW)
		if err != unix.EEXIST {
			return err
		}
		// A link replaces nothing, a rename does.
		temp := tempName()
		if err := unix.Linkat(unix.AT_FDCWD, self, dir, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		f.name = temp
	}
	err := unix.Renameat(dir, f.name, dir, name)
	if err == nil {
		f.name = ""
	}
	return err
}

// Close drops a file that was not kept. It may be called again.
func (f *File) Close() error {
	if f.name != "" {
		unix.Unlinkat(int(f.dir.Fd()), f.name, 0)
		f.name = ""
	}
	err := f.File.Close()
	f.dir.Close()
	return err
}

// Write writes a file whole or not at all.
func Write(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(filepath.Dir(path))
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Keep(filepath.Base(path), perm)
}

// Folder is a folder that is gone once it is closed, unless it is kept.
type Folder struct {
	Path string
	held *os.File // the folder, locked
}

// MakeFolder makes a folder in parent, which must be there, whose name begins
// with prefix. Those of that prefix whose makers died are removed: nothing else
// may have such names.
func MakeFolder(parent, prefix string) (_ *Folder, err error) {
	// Nobody may find the new one before its lock is taken.
	all, err := lock(parent)
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer all.Close()
	sweep(parent, prefix)
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	held, err := lock(path)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	return &Folder{path, held}, nil
}

// lock opens a file or folder and waits for its lock (flock(2)).
func lock(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// sweep removes what the dead have left. What cannot be removed now may be
// later.
func sweep(parent, prefix string) {
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		path := filepath.Join(parent, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(path)
		}
		f.Close()
	}
}

// Keep gives the folder another name, on the same file system, and lets it go.
// On an error the folder is still to be closed.
func (f *Folder) Keep(path string) error {
	if err := os.Rename(f.Path, path); err != nil {
		return err
	}
	f.Path = ""
	return f.held.Close()
}

// Close removes a folder that was not kept. It may be called again.
func (f *Folder) Close() error {
	if f.Path == "" {
		return nil
	}
	err := os.RemoveAll(f.Path)
	f.Path = ""
	return errors.Join(err, f.held.Close())
}

// EscapeGlob makes a path a pattern of filepath.Glob that matches the path alone.
func EscapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
