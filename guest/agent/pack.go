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

	"labctl/guest/wire"
)

// packHead is how much of a file is read before its header is written. Files of
// proc and sysfs do not know their size; those that fit are taken as they are.
const packHead = 64 << 10

// maxLies bounds a file that is longer than its size says, in bytes: kallsyms and the
// like.
const maxLies = 32 << 20

// maxLeftOut and maxLeftName bound what is told of files that were left out.
const (
	maxLeftOut  = 5
	maxLeftName = 200
)

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
		// Links, devices and sockets inside a directory stay.
		if k.done.Left++; len(k.done.LeftOut) < maxLeftOut && len(p) <= maxLeftName {
			k.done.LeftOut = append(k.done.LeftOut, p)
		}
		return nil
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
	case !whole && fi.Size() < size: // of proc
		all, err := io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(k.head), f), maxLies+1))
		if err != nil {
			return err
		}
		if len(all) > maxLies {
			return fmt.Errorf("%s is longer than its size of %d bytes, and than %d", path.Base(name), fi.Size(), maxLies)
		}
		return k.write(name, fi, all, nil, int64(len(all)))
	case !whole:
		size = fi.Size()
	}
	return k.write(name, fi, k.head[:n], f, size)
}

// write adds a file to the archive: its head, and what follows.
func (k *packer) write(name string, fi fs.FileInfo, head []byte, f io.Reader, size int64) error {
	if size > k.params.Max-k.done.Bytes {
		return fmt.Errorf("all files together have more than %d bytes", k.params.Max)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime()}
	if err := k.tar.WriteHeader(h); err != nil {
		return err
	}
	if _, err := k.tar.Write(head); err != nil {
		return err
	}
	// A file that grows is taken at the size it had.
	var rest int64
	var err error
	if n := int64(len(head)); n < size {
		rest, err = io.CopyN(k.tar, f, size-n)
	}
	k.done.Bytes += int64(len(head)) + rest
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", path.Base(name))
	}
	if err != nil {
		return err
	}
	k.done.Files++
	return nil
}
