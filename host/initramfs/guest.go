package initramfs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// programs are the packages of the guest's own programs, as folders of the
// module. Each is put under /labctl by its last name.
var programs = []string{"guest/cmd/labinit", "guest/cmd/labprobe"}

// guest returns the archive with labinit and labprobe. They are built from the
// sources that labctl carries: changing one means building labctl anew, and
// then this notices by itself.
func (b *builder) guest(ctx context.Context, arch string) (string, error) {
	k := newKey("guest")
	k.add(arch, b.sourceSum)
	k.add(b.tool.id...)
	p, _, err := b.cache.get(ctx, k.name("guest", arch), func(w io.Writer) error {
		b.say("building labinit and labprobe for " + arch)
		return b.buildGuest(ctx, w, arch)
	})
	return p, err
}

func (b *builder) buildGuest(ctx context.Context, w io.Writer, arch string) error {
	temp, err := os.MkdirTemp(b.cache.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	src, out := filepath.Join(temp, "src"), filepath.Join(temp, "out")
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
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out + "/"}
	for _, p := range programs {
		args = append(args, "./"+p)
	}
	if _, err := b.tool.run(ctx, src, arch, args...); err != nil {
		return err
	}
	a := newArchive(w)
	for _, p := range programs {
		data, err := os.ReadFile(filepath.Join(out, path.Base(p)))
		if err != nil {
			return err
		}
		if err := a.add("labctl/"+path.Base(p), cpio.S_IFREG|0o755, data); err != nil {
			return err
		}
	}
	return a.close()
}

// walkSource calls f for go.mod, go.sum and each file of the guest's packages
// in the order of their names; tests and their data are left out.
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
