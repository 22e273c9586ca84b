package agent

import (
	"archive/tar"
	"bytes"
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
// Its first bytes are in window, if p says so, the others come from in.
func (k *kept) unpack(window []byte, in io.Reader, p wire.UnpackParams) (wire.Unpacked, error) {
	var done wire.Unpacked
	if p.Window < 0 || p.Window > int64(len(window)) {
		return done, fmt.Errorf("unpack: %d bytes in a window of %d", p.Window, len(window))
	}
	if p.Window > 0 && !p.Rest {
		in = strings.NewReader("")
	}
	near := &near{mem: window[:p.Window], rest: in}
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
	for r := tar.NewReader(near); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return done, fmt.Errorf("unpack after %d files: %w", done.Files, err)
		}
		if key, ok := strings.CutPrefix(h.Linkname, wire.KeepPrefix); ok && h.Typeflag == tar.TypeLink {
			err = k.unpackKept(root, p.Dir, h, key, &done)
			if err != nil {
				return done, fmt.Errorf("unpack %.200q: %w", h.Name, err)
			}
			continue
		}
		n, err := unpackOne(root, h, near.content(h, r))
		done.Bytes += n
		if key := h.PAXRecords[wire.KeepRecord]; err == nil && key != "" && h.Typeflag == tar.TypeReg {
			err = k.keep(root, p.Dir, path.Clean(h.Name), key)
		}
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

// UnpackFile makes the files of a tar archive below a directory, and removes the archive.
// That there is none is no error.
func UnpackFile(archive, dir string) error {
	f, err := os.Open(archive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := new(kept).unpack(nil, f, wire.UnpackParams{Dir: dir}); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	return os.Remove(archive)
}

// unpackKept makes the file of an entry that stands for a kept one.
func (k *kept) unpackKept(root *os.Root, dir string, h *tar.Header, key string, done *wire.Unpacked) error {
	name, err := prepare(root, h.Name)
	if err != nil {
		return err
	}
	if err := removeOld(root, name); err != nil {
		return err
	}
	ok, err := k.link(root, dir, name, key)
	switch {
	case err != nil:
		return err
	case ok:
		done.Files++
	case len(done.Missing) == wire.MaxMissing:
		return errors.New("too many files that are not kept")
	default:
		done.Missing = append(done.Missing, key)
	}
	return nil
}

// near reads memory and then what comes after it.
type near struct {
	mem  []byte
	at   int // bytes of mem that were read
	rest io.Reader
}

func (n *near) Read(p []byte) (int, error) {
	if n.at == len(n.mem) {
		return n.rest.Read(p)
	}
	c := copy(p, n.mem[n.at:])
	n.at += c
	return c, nil
}

// content is what the entry that r has come to holds. Where all of it is in
// memory it is written from there, in one piece, and need not pass through r's
// buffers. Sparse files, which PAX records may report, do.
func (n *near) content(h *tar.Header, r *tar.Reader) io.Reader {
	if h.Typeflag != tar.TypeReg || sparse(h.PAXRecords) || h.Size > int64(len(n.mem)-n.at) {
		return r
	}
	return bytes.NewReader(n.mem[n.at:][:h.Size])
}

// sparse reports whether PAX records may say that a file is sparse.
func sparse(records map[string]string) bool {
	_, keep := records[wire.KeepRecord]
	return len(records) > 1 || len(records) == 1 && !keep
}

// Seek lets a tar.Reader pass over what content has given. It goes on from where
// it is alone, and no further than the memory: a tar.Reader reads what is left.
func (n *near) Seek(off int64, whence int) (int64, error) {
	left := int64(len(n.mem) - n.at)
	if whence != io.SeekCurrent || off < 0 || left == 0 {
		return -1, errors.ErrUnsupported
	}
	n.at += int(min(off, left))
	return int64(n.at), nil
}

// unpackOne makes one entry. A file or link takes the place of what is there,
// never writes through it: a running program cannot be opened for writing, and
// a link may lead elsewhere.
func unpackOne(root *os.Root, h *tar.Header, content io.Reader) (int64, error) {
	name, err := prepare(root, h.Name)
	if err != nil {
		return 0, err
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

// prepare returns the cleaned name of an entry, whose directory is there afterwards.
func prepare(root *os.Root, entry string) (name string, err error) {
	if name, err = localName(entry); err != nil {
		return "", err
	}
	if dir := path.Dir(name); dir != "." {
		err = root.MkdirAll(dir, 0o755)
	}
	return name, err
}

// localName is the cleaned name of an entry that stays below its directory.
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
