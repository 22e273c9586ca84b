// Package initramfs makes the archive that a guest boots from: raw newc cpio
// archives, one after the other, which the kernel unpacks in order
// (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	base     u-root's commands in one binary, /bbin/bb; 15 to 30 s to build, once
//	guest    /labctl/labinit, labprobe and the shell, from the sources in labctl itself
//	overlay  device nodes, folders, kernel modules and files of this boot
//
// Each part, and the whole, is cached under a name made from the hash of all
// that went into it, so nothing is ever stale and two processes may share the
// cache. The archive is not compressed: unpacking is the slow part of a boot
// under emulation.
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
	"labctl/host/outcome"
)

// Options says what goes into an image.
type Options struct {
	Arch    string   // GOARCH of the guest
	Base    bool     // with u-root's shell and commands
	Modules []Module // loaded by labinit in this order
	Files   []File   // later than everything else, so they may replace it

	Dir      string            // the cache; empty means DefaultDir
	Progress func(line string) // told before each slow step; may be nil
}

// Module is a kernel module, not compressed. Exactly one of Data and Src is set.
type Module struct {
	Name string // "virtio_console"
	Data []byte
	Src  string // a file of the host
}

// File is one more file for the guest. For a regular file exactly one of Data
// and Src is set; a symbolic link (Mode has fs.ModeSymlink) has its target in
// Data; a folder (fs.ModeDir) has neither. Folders on the way to it are made.
type File struct {
	Path string // in the guest; a leading slash may be there or not
	Mode fs.FileMode
	Data []byte
	Src  string // a file of the host, read at once
}

// Image is an archive on disk, ready for QEMU's -initrd.
type Image struct {
	Path   string
	Cached bool // nothing had to be written
}

// Build returns the image for opts, from the cache where it is there. An image
// stays for at least ten minutes after the Build that returned it, then until
// the cache outgrows 1 GiB.
//
// When ctx ends while the base is being built, Build returns at once and the
// base is finished into the cache if the process lives long enough.
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
	b, err := newBuilder(ctx, cache{dir: dir, limit: cacheLimit, grace: cacheGrace}, labctl.Source, opts.Progress)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build initramfs: %w", err))
	}
	return b.image(ctx, opts)
}

// format is part of every key. It is raised when the same inputs are to give
// other bytes.
const format = "1"

// builder has what the parts have in common.
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
	var parts []string
	if opts.Base {
		base, err := b.base(ctx, opts.Arch)
		if err != nil {
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build u-root base for %s: %w", opts.Arch, err))
		}
		parts = append(parts, base)
	}
	guest, err := b.guest(ctx, opts.Arch)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("build guest programs for %s: %w", opts.Arch, err))
	}
	parts = append(parts, guest)

	// The parts' names hold the hashes of their contents' inputs.
	k := newKey("image")
	for _, p := range parts {
		k.add(filepath.Base(p))
	}
	k.add(string(overlay))
	name := k.name("image", opts.Arch)
	path, hit, err := b.cache.get(ctx, name, func(w io.Writer) error {
		return concat(w, parts, overlay)
	})
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("write initramfs: %w", err))
	}
	return &Image{Path: path, Cached: hit}, nil
}

// concat writes the parts and then the overlay, each at a multiple of four
// bytes: the kernel looks for the next archive's header nowhere else.
func concat(w io.Writer, parts []string, overlay []byte) error {
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

// MissingGoError says that the host has no Go toolchain that can build for the
// guest. Its text names the remedy.
type MissingGoError struct {
	Reason string
	Err    error
}

func (e *MissingGoError) Error() string {
	return "no usable go command: " + e.Reason + ": install Go 1.26 or newer and put its bin folder on PATH"
}

func (e *MissingGoError) Unwrap() error { return e.Err }

// Outcome is HostLacks.
func (e *MissingGoError) Outcome() outcome.Kind { return outcome.HostLacks }

var errCancelled = errors.New("given up while waiting for a build")
