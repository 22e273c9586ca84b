package initramfs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"labctl/host/scratch"
)

// program is the package of the guest's programs, as a directory in the module. The
// file is in the archive under its first name; the other names are links.
const program = "guest/cmd/labguest"

var programNames = []string{"labinit", "labprobe", "sh", "labsh", "modprobe", "ps", "id", "reboot"}

// shellPaths are the paths where scripts and programs expect a shell. They come after
// the base's, and so replace them.
var shellPaths = []string{"usr/bin/sh", "usr/bin/bash"}

// guest returns the archive with the guest's programs. They are built from the sources
// embedded in labctl: after a change labctl must be rebuilt, and the archive's key
// changes then.
func (b *builder) guest(ctx context.Context, arch string) (string, error) {
	k := newKey("guest")
	k.add(arch, b.sourceSum)
	k.add(b.tool.id...)
	p, _, err := b.cache.get(ctx, k.name("guest", arch), func(w io.Writer) error {
		b.say("building the guest's programs for " + arch)
		return b.buildGuest(ctx, w, arch)
	})
	return p, err
}

func (b *builder) buildGuest(ctx context.Context, w io.Writer, arch string) error {
	temp, err := scratch.MakeFolder(b.cache.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer temp.Close()

	src, out := filepath.Join(temp.Path, "src"), filepath.Join(temp.Path, "out")
	err = walkSource(b.source, func(name string, data []byte) error {
		file := filepath.Join(src, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, data, 0o644)
	})
	if err != nil {
		return fmt.Errorf("unpack sources: %w", err)
	}
	if _, err := b.tool.run(ctx, src, arch, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./"+program); err != nil {
		return err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	a := newArchive(w)
	for i, name := range programNames {
		mode := uint64(cpio.S_IFREG | 0o755)
		if i > 0 {
			mode, data = cpio.S_IFLNK|0o777, []byte(programNames[0])
		}
		if err := a.add("labctl/"+name, mode, data); err != nil {
			return err
		}
	}
	for _, path := range shellPaths {
		if err := a.add(path, cpio.S_IFLNK|0o777, []byte("/labctl/"+programNames[0])); err != nil {
			return err
		}
	}
	return a.close()
}

// walkSource calls f for go.mod, go.sum and each file of the guest's packages, sorted
// by name, without tests and their data.
func walkSource(source fs.FS, f func(name string, data []byte) error) error {
	return fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		return f(name, data)
	})
}

func sumTree(source fs.FS) (string, error) {
	k := newKey("source")
	err := walkSource(source, func(name string, data []byte) error {
		k.add(name, string(data))
		return nil
	})
	return k.sum(), err
}
