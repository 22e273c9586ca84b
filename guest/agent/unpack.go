package agent

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"labctl/guest/wire"
)

// unpack makes the files of a tar archive below p.Dir. What it holds in memory
// does not grow with the archive; the files themselves are in the guest's.
func unpack(in io.Reader, p wire.UnpackParams) (wire.Unpacked, error) {
	var done wire.Unpacked
	if !filepath.IsAbs(p.Dir) {
		return done, fmt.Errorf("unpack: folder %q: want an absolute path", p.Dir)
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return done, fmt.Errorf("unpack: %w", err)
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return done, fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return done, fmt.Errorf("unpack after %d files: %w", done.Files, err)
		}
		n, err := unpackOne(root, h, r)
		done.Bytes += n
		if err != nil {
			return done, fmt.Errorf("unpack %.200q: %w", h.Name, err)
		}
		if h.Typeflag != tar.TypeDir {
			done.Files++
		}
	}
	// What is behind the archive's end was granted and has to be taken.
	_, err = io.Copy(io.Discard, in)
	return done, err
}

// unpackOne makes one entry. A file or link takes the place of what is there,
// never writes through it: a running program cannot be opened for writing, and
// a link may lead elsewhere.
func unpackOne(root *os.Root, h *tar.Header, content io.Reader) (int64, error) {
	name, err := localName(h.Name)
	if err != nil {
		return 0, err
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	switch h.Typeflag {
	case tar.TypeDir:
		err := root.Mkdir(name, 0o700)
		if err == nil {
			return 0, root.Chmod(name, mode)
		}
		// What is there stays as it is: /tmp is no archive's to close.
		if fi, serr := root.Stat(name); serr == nil && fi.IsDir() {
			return 0, nil
		}
		return 0, err
	case tar.TypeReg:
		if err := removeOld(root, name); err != nil {
			return 0, err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(f, content)
		// Last, and past the umask: a write takes setuid off again.
		return n, errors.Join(err, f.Chmod(mode), f.Close())
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) || !filepath.IsLocal(path.Join(path.Dir(name), h.Linkname)) {
			return 0, fmt.Errorf("symbolic link to %.200q: it leads out of the folder", h.Linkname)
		}
		if err := removeOld(root, name); err != nil {
			return 0, err
		}
		return 0, root.Symlink(h.Linkname, name)
	}
	return 0, fmt.Errorf("entry of type %q: want a file, a folder or a symbolic link", h.Typeflag)
}

// localName is the cleaned name of an entry that stays below its folder.
func localName(name string) (string, error) {
	clean := path.Clean(name)
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", errors.New("no file name")
	case !filepath.IsLocal(clean): // absolute, or above by ".."
		return "", errors.New("the name leads out of the folder")
	}
	return clean, nil
}

func removeOld(root *os.Root, name string) error {
	fi, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.IsDir():
		return errors.New("there is a folder of this name")
	}
	return root.Remove(name)
}
