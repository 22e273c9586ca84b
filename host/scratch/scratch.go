// Package scratch creates temporary files and directories that do not outlive their
// process, however it dies, unless they are kept.
//
// A file has no name until it is complete (open(2), O_TMPFILE). A directory has a name,
// and a lock that ends with its process; whoever creates the next such directory
// removes those that are not locked.
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

	"labctl/host/outcome"
)

// File is a file that is deleted when it is closed, unless it is kept.
type File struct {
	*os.File
	dir  *os.File // its final directory
	name string   // temporary name, on file systems without O_TMPFILE
}

// Create creates a file that may be kept in the directory dir.
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

// CreateIn is like Create, for an open directory, of which the file takes ownership.
func CreateIn(dir *os.File) (*File, error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	f := &File{dir: dir}
	fd, err := openat(dir, ".", flags|unix.O_TMPFILE)
	// The errors of file systems and kernels without O_TMPFILE.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		f.name = tempName()
		fd, err = openat(dir, f.name, flags|unix.O_CREAT|unix.O_EXCL)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "create a file in", Path: dir.Name(), Err: err}
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

// Keep closes the file and gives it its name in its directory, atomically replacing an
// existing file. A device, pipe or socket of that name is an error.
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
		if err := replaceable(dir, name); err != nil {
			return err
		}
		// A link cannot replace a file, a rename can.
		temp := tempName()
		if err := unix.Linkat(unix.AT_FDCWD, self, dir, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		f.name = temp
	}
	if err := replaceable(dir, name); err != nil {
		return err
	}
	err := unix.Renameat(dir, f.name, dir, name)
	if err == nil {
		f.name = ""
	}
	return err
}

// replaceable is an error for a device, a pipe or a socket: a rename would take its place,
// and root could lose /dev/null by it.
func replaceable(dir int, name string) error {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // there is none, or the rename says what is wrong
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		return outcome.Inputf("not a regular file; it is not replaced")
	}
	return nil
}

// Close deletes a file that was not kept. It may be called again.
func (f *File) Close() error {
	if f.name != "" {
		unix.Unlinkat(int(f.dir.Fd()), f.name, 0)
		f.name = ""
	}
	err := f.File.Close()
	f.dir.Close()
	return err
}

// Write writes a file atomically.
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

// Folder is a directory that is removed when it is closed, unless it is kept.
type Folder struct {
	Path string
	held *os.File // the directory, locked
}

// MakeFolder creates a directory in parent, which must exist, with a name that starts
// with prefix. Directories with that prefix whose processes died are removed, so
// nothing else may have such names.
func MakeFolder(parent, prefix string) (_ *Folder, err error) {
	// Nobody may find the new one before it is locked.
	all, err := lock(parent)
	if err != nil {
		return nil, fmt.Errorf("create a temporary directory: %w", err)
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
		return nil, fmt.Errorf("create a temporary directory: %w", err)
	}
	return &Folder{path, held}, nil
}

// lock opens a file or directory and waits for its lock (flock(2)).
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

// sweep removes the leftovers of dead processes. What cannot be removed now may be
// removed later.
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

// Keep moves the directory to a path on the same file system and unlocks it. On an
// error the directory must still be closed.
func (f *Folder) Keep(path string) error {
	if err := os.Rename(f.Path, path); err != nil {
		return err
	}
	f.Path = ""
	return f.held.Close()
}

// Close removes a directory that was not kept. It may be called again.
func (f *Folder) Close() error {
	if f.Path == "" {
		return nil
	}
	err := os.RemoveAll(f.Path)
	f.Path = ""
	return errors.Join(err, f.held.Close())
}

// EscapeGlob returns a pattern for filepath.Glob that matches only path.
func EscapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
