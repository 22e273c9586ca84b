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

	"labctl/guest/wire"
)

// packHead is how much of a file is read before its header is written. Files of
// proc and sysfs do not know their size; those that fit are taken as they are.
const packHead = 64 << 10

// pack writes a tar archive of p.Paths, each below p.Dir.
func pack(out io.Writer, p wire.PackParams) (wire.Packed, error) {
	k := packer{params: p, tar: tar.NewWriter(out), head: make([]byte, packHead)}
	if !filepath.IsAbs(p.Dir) {
		return k.done, fmt.Errorf("pack: folder %q: want an absolute path", p.Dir)
	}
	if p.Max < 0 {
		return k.done, fmt.Errorf("pack: max is %d, want 0 or more", p.Max)
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return k.done, fmt.Errorf("pack: %w", err)
	}
	defer root.Close()
	k.root = root
	for _, name := range p.Paths {
		clean, err := localName(name)
		if err == nil {
			err = k.add(clean)
		}
		if err != nil {
			return k.done, fmt.Errorf("pack %.200q: %w", name, err)
		}
	}
	return k.done, k.tar.Close()
}

type packer struct {
	params wire.PackParams
	root   *os.Root
	tar    *tar.Writer
	head   []byte
	done   wire.Packed
}

// add takes what a path names, through symbolic links that stay below Dir.
func (k *packer) add(name string) error {
	fi, err := k.root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.done.Missing++
		return nil
	case err != nil:
		return err
	case fi.Mode().IsRegular():
		return k.file(name)
	case !fi.IsDir():
		return fmt.Errorf("%s: neither a file nor a folder", fi.Mode().Type())
	}
	return fs.WalkDir(k.root.FS(), name, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p != name { // gone since it was listed
			return nil
		}
		if err != nil {
			return err
		}
		// WalkDir hands out a link at its own start as what it is.
		switch {
		case d.IsDir() || p == name:
			fi, err := k.root.Stat(p)
			if err != nil {
				return err
			}
			return k.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: p + "/", Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime()})
		case d.Type().IsRegular():
			return k.file(p)
		}
		return nil // links, devices, sockets inside a directory stay
	})
}

func (k *packer) file(name string) error {
	f, err := k.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	n, err := io.ReadFull(f, k.head)
	size, whole := int64(n), errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case err != nil && !whole:
		return err
	case !whole && fi.Size() < size:
		return fmt.Errorf("%s is longer than its size of %d bytes", path.Base(name), fi.Size())
	case !whole:
		size = fi.Size()
	}
	if size > k.params.Max-k.done.Bytes {
		return fmt.Errorf("all files together have more than %d bytes", k.params.Max)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime()}
	if err := k.tar.WriteHeader(h); err != nil {
		return err
	}
	if _, err := k.tar.Write(k.head[:n]); err != nil {
		return err
	}
	// A file that grows is taken at the size it had.
	rest, err := io.CopyN(k.tar, f, size-int64(n))
	k.done.Bytes += int64(n) + rest
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", path.Base(name))
	}
	if err != nil {
		return err
	}
	k.done.Files++
	return nil
}
