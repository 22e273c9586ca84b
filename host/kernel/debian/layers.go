package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"labctl/host/outcome"
)

// kernelsDir is where an image of cilium's little-vm-helper has its kernel.
var kernelsDir = regexp.MustCompile(`^data/kernels/[^/]+/`)

// UnpackLayers reads the kernel in the layers of a container image (OCI image layer
// specification), the lowest first, and writes to dir what Unpack does. The layers were
// verified.
func UnpackLayers(ctx context.Context, layers []string, dir string, report func(Progress)) (_ *Tree, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	u := &unpacker{ctx: ctx, dir: dir, report: report, haveFile: map[string]bool{}}
	for _, l := range layers {
		info, err := os.Stat(l)
		if err != nil {
			return nil, err
		}
		u.total += info.Size()
	}
	return u.into(func() error {
		hidden := map[string]bool{} // files and directories that a layer above has, or has removed
		for i := len(layers) - 1; i >= 0; i-- {
			if err := u.layer(layers[i], hidden); err != nil {
				return fmt.Errorf("unpack layer %d: %w", i+1, err)
			}
		}
		return nil
	})
}

// whiteout and opaque are how a layer removes a file of those below it, and all that a
// directory has there.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// layer unpacks what no layer above hides.
func (u *unpacker) layer(name string, hidden map[string]bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(&source{u: u, r: f, sum: noSum{}}, 1<<20)
	head, err := r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	compression := ""
	for _, form := range []struct{ magic, suffix string }{{"\x1f\x8b", ".gz"}, {"\x28\xb5\x2f\xfd", ".zst"}, {"\xfd7zXZ\x00", ".xz"}} {
		if bytes.HasPrefix(head, []byte(form.magic)) {
			compression = form.suffix
		}
	}
	data, err := decompressor(compression, r)
	if err != nil {
		return err
	}
	defer data.Close()
	own := map[string]bool{}
	err = u.entries(data, func(h *tar.Header, r io.Reader) error {
		name := path.Clean("/" + h.Name)[1:]
		base := path.Base(name)
		switch {
		case base == opaque:
			own[path.Dir(name)+"/"] = true
			return nil
		case strings.HasPrefix(base, whiteout):
			own[path.Join(path.Dir(name), strings.TrimPrefix(base, whiteout))] = true
			return nil
		case hides(hidden, name):
			return nil
		case h.Typeflag != tar.TypeReg:
			return nil
		}
		own[name] = true
		return u.file(kernelsDir.ReplaceAllString(name, ""), h.Size, r)
	})
	for name := range own { // for those below, not for this one
		hidden[name] = true
	}
	return err
}

// hides reports whether a file, or a directory above it, is hidden.
func hides(hidden map[string]bool, name string) bool {
	if hidden[name] {
		return true
	}
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if hidden[dir] || hidden[dir+"/"] {
			return true
		}
		if dir == "." {
			return false
		}
	}
}

// noSum is the sum of what was verified already.
type noSum struct{}

func (noSum) Write(p []byte) (int, error) { return len(p), nil }
func (noSum) Sum(b []byte) []byte         { return b }
func (noSum) Reset()                      {}
func (noSum) Size() int                   { return 0 }
func (noSum) BlockSize() int              { return 1 }
