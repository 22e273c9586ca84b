package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
)

// maxImage is the size of a container image that is taken for a kernel's, compressed.
// Those of cilium's little-vm-helper have 100 to 300 MB.
const maxImage = 2 << 30

// maxLayers is how many layers such an image has at most.
const maxLayers = 128

// parseImage parses what follows "oci:" in s: a reference to a container image, by tag or
// digest.
func parseImage(s, ref string) (Ref, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Ref{}, fmt.Errorf("kernel %q: %s; want oci:REGISTRY/REPOSITORY:TAG, or …@sha256:DIGEST", s, text.Line(err.Error(), 200))
	}
	return Ref{Container: parsed.Name()}, nil
}

// pinned is the reference that always finds this container image.
func (k *Kernel) pinned() string {
	if i := strings.IndexByte(k.Container, '@'); i >= 0 {
		return k.Container
	}
	return k.Container[:strings.LastIndexByte(k.Container, ':')] + "@" + k.Sum
}

// pullImage takes a kernel out of a container image, in the layout of cilium's
// little-vm-helper: data/kernels/NAME/boot and data/kernels/NAME/lib/modules, as the
// kernel's own make tar-pkg has them; boot and lib/modules at the top will do. The digest
// of the manifest is kept, and every layer is held against its own before it is read.
func (c *Cache) pullImage(ctx context.Context, src *Source, ref Ref, arch string, report func(Progress), verify func(*Kernel) error) (*Kernel, error) {
	report(Progress{Stage: debian.StageIndex})
	parsed, err := name.ParseReference(src.Container)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	desc, err := remote.Get(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
	if err != nil {
		return nil, registryError(ctx, err)
	}
	img, err := desc.Image() // of an index the one for the platform
	if err != nil {
		return nil, registryError(ctx, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, registryError(ctx, err)
	}
	dir := filepath.Join(c.imageDir(), fmt.Sprintf("%s-%s-%s", src.key(), arch, digest.Hex[:12]))
	if k, err := load(dir); err == nil && k.Sum == digest.String() && verify(k) == nil {
		return k, nil
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, registryError(ctx, err)
	}
	if len(layers) > maxLayers {
		return nil, outcome.Inputf("the image has %d layers: not one of a kernel", len(layers))
	}
	var total int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return nil, registryError(ctx, err)
		}
		if total += n; n < 0 || total > maxImage {
			return nil, outcome.Inputf("the image has more than %d MB: not one of a kernel", maxImage>>20)
		}
	}
	if err := scratch.Room(c.imageDir(), 3*total); err != nil {
		return nil, err
	}
	tmp, err := c.makeTemp(src, arch)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	files, err := downloadLayers(ctx, layers, tmp, total, report)
	if err != nil {
		return nil, registryError(ctx, err)
	}
	tree, err := debian.UnpackLayers(ctx, files, tmp, report)
	if errors.Is(err, debian.ErrNoImage) {
		return nil, outcome.Errorf(outcome.BadInput, "the image has no boot/vmlinuz-RELEASE with its boot/config-RELEASE and modules, at the top or below data/kernels/NAME: it is not one of a kernel")
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return nil, err
		}
	}
	k := &Kernel{Dir: tmp, Source: KindImage, Container: src.Container, Version: digest.Hex[:12], Sum: digest.String(), Series: seriesOf(tree.Release), Release: tree.Release, Arch: arch}
	return k.install(ctx, dir, report)
}

// downloadLayers writes the layers of an image, as they are, to dir. Reading one to its
// end is what verifies it.
func downloadLayers(ctx context.Context, layers []v1.Layer, dir string, total int64, report func(Progress)) (files []string, err error) {
	done := int64(0)
	for i, l := range layers {
		file := filepath.Join(dir, fmt.Sprintf(".layer-%d", i))
		files = append(files, file)
		if err := downloadLayer(ctx, l, file, func(n int64) {
			done += n
			report(Progress{Stage: debian.StageDownload, Done: done, Total: total})
		}); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func downloadLayer(ctx context.Context, l v1.Layer, file string, count func(int64)) (err error) {
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if _, werr := f.Write(buf[:n]); werr != nil {
			return werr
		}
		count(int64(n))
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// registryError is what a registry said, in a line. What it refuses or does not have is
// the user's to mend.
func registryError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var said *transport.Error
	switch {
	case !errors.As(err, &said):
		return err
	case said.StatusCode >= 400 && said.StatusCode < 500 && said.StatusCode != http.StatusTooManyRequests:
		return outcome.Inputf("the registry answers %d: %s", said.StatusCode, text.Line(err.Error(), 300))
	}
	return outcome.Hostf("the registry answers %d: %s", said.StatusCode, text.Line(err.Error(), 300))
}
