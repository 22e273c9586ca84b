// Package initramfs builds the archive that a guest boots from: concatenated
// uncompressed newc cpio archives, which the kernel unpacks in order
// (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	skeleton directories and files of a system; first, so that the others fill them
//	base     u-root's commands in one binary, /bbin/bb; 15 to 30 s to build, once
//	busybox  Debian's, in /usr/bin, where the host can have it
//	guest    /labctl/labinit, labprobe and the shell, from the sources in labctl itself
//	overlay  device nodes, directories, kernel modules and files of this boot
//
// Each part, and the whole, is cached under a name with the hash of all its inputs, so
// nothing is ever stale and several processes may share the cache. The archive is not
// compressed, because decompression is the slow part of a boot under emulation.
package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"labctl"
	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/images"
)

// Options are the contents of an image.
type Options struct {
	Arch    string   // GOARCH of the guest
	Base    bool     // with u-root's and busybox's commands
	Modules []Module // loaded by labinit in this order
	Files   []File   // added last, so they may replace other files

	Dir      string                // the cache; empty means DefaultDir
	Progress func(line string)     // called before each slow step; may be nil
	Pull     func(debian.Progress) // called while busybox is downloaded; may be nil
}

// Module is an uncompressed kernel module. Exactly one of Data and Src is set.
type Module struct {
	Name string // "virtio_console"
	Data []byte
	Src  string // a file on the host
}

// File is an additional file for the guest. For a regular file exactly one of Data and
// Src is set; a symbolic link (Mode has fs.ModeSymlink) has its target in Data; a
// directory (fs.ModeDir) has neither. Parent directories are created.
type File struct {
	Path string // in the guest, with or without a leading slash
	Mode fs.FileMode
	Data []byte
	Src  string // a file on the host, read immediately
}

// Image is an archive on disk, ready for QEMU's -initrd.
type Image struct {
	Path   string
	Cached bool // found in the cache
}

// Build returns the image for opts, from the cache if possible. An image is kept for
// at least ten minutes after the Build that returned it, then until the cache exceeds
// 1 GiB.
//
// If ctx ends while the base is being built, Build returns immediately, and the base is
// completed in the cache if the process runs long enough.
func Build(ctx context.Context, opts Options) (*Image, error) {
	if _, ok := arch.Find(opts.Arch); !ok {
		return nil, fmt.Errorf("build initramfs: architecture %q is not one of %v", opts.Arch, arch.Names())
	}
	dir := opts.Dir
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return nil, err
		}
	}
	if opts.Pull == nil {
		opts.Pull = func(debian.Progress) {}
	}
	b, err := newBuilder(ctx, cache{dir: dir, limit: cacheLimit, grace: cacheGrace}, labctl.Source, opts.Progress)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build initramfs: %w", err))
	}
	return b.image(ctx, opts)
}

// format is part of every key. Increment it when the same inputs result in other
// bytes.
const format = "1"

// builder has what the parts share.
type builder struct {
	cache     cache
	source    fs.FS // go.mod, go.sum, guest
	sourceSum string
	tool      *goTool
	say       func(string)
}

func newBuilder(ctx context.Context, c cache, source fs.FS, progress func(string)) (*builder, error) {
	b := &builder{cache: c, source: source, say: progress}
	if b.say == nil {
		b.say = func(string) {}
	}
	if err := cachedir.Make(c.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if b.sourceSum, err = sumTree(source); err != nil {
		return nil, err
	}
	if b.tool, err = findGo(ctx, c, source); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *builder) image(ctx context.Context, opts Options) (*Image, error) {
	overlay, err := overlay(opts.Modules, opts.Files)
	if err != nil {
		return nil, fmt.Errorf("build initramfs overlay: %w", err)
	}
	r, err := parseRecipe(images.Initramfs, images.URootMod)
	if err != nil {
		return nil, err
	}
	first, err := b.skeleton(r)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build initramfs: %w", err))
	}
	var parts []string
	if opts.Base {
		base, err := b.base(ctx, r, opts.Arch)
		if err != nil {
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build u-root base for %s: %w", opts.Arch, err))
		}
		parts = append(parts, base)
		box, err := b.busybox(ctx, r, opts.Arch, opts.Pull)
		if err != nil {
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("get busybox for %s: %w", opts.Arch, err))
		}
		if box != "" {
			parts = append(parts, box)
		}
	}
	guest, err := b.guest(ctx, opts.Arch)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build guest programs for %s: %w", opts.Arch, err))
	}
	parts = append(parts, guest)

	// The parts' names contain the hashes of their inputs.
	k := newKey("image")
	for _, p := range parts {
		k.add(filepath.Base(p))
	}
	k.add(string(first), string(overlay))
	name := k.name("image", opts.Arch)
	path, hit, err := b.cache.get(ctx, name, func(w io.Writer) error {
		return concat(w, first, parts, overlay)
	})
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("write initramfs: %w", err))
	}
	return &Image{Path: path, Cached: hit}, nil
}

// concat writes the skeleton, the parts and the overlay, each at a multiple of four
// bytes, the only offsets where the kernel looks for the next archive's header.
func concat(w io.Writer, skeleton []byte, parts []string, overlay []byte) error {
	if _, err := w.Write(skeleton); err != nil {
		return err
	}
	if err := pad4(w, int64(len(skeleton))); err != nil {
		return err
	}
	for _, p := range parts {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		n, err := io.Copy(w, f)
		f.Close()
		if err != nil {
			return err
		}
		if err := pad4(w, n); err != nil {
			return err
		}
	}
	_, err := w.Write(overlay)
	return err
}

func pad4(w io.Writer, n int64) error {
	_, err := w.Write(make([]byte, -n&3))
	return err
}

// MissingGoError reports that the host has no Go toolchain that can build for the
// guest. Its text includes the remedy.
type MissingGoError struct {
	Reason string
	Err    error
}

func (e *MissingGoError) Error() string {
	return "no usable go command: " + e.Reason + ": install Go 1.26 or newer and add its bin directory to PATH"
}

func (e *MissingGoError) Unwrap() error { return e.Err }

// Outcome is HostLacks.
func (e *MissingGoError) Outcome() outcome.Kind { return outcome.HostLacks }

var errCancelled = errors.New("canceled while waiting for a build")
