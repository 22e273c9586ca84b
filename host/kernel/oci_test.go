package kernel

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"labctl/host/kernel/internal/synth"
	"labctl/host/outcome"
)

// containers is a registry on loopback.
type containers struct {
	host string
	flip atomic.Bool // a byte of each layer
	down atomic.Bool // it answers 503, in words of its own
}

func newContainers(t *testing.T) *containers {
	c := &containers{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[2Jb\\nc\"}]}")
			return
		}
		if !c.flip.Load() || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			inner.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		b := rec.Body.Bytes()
		if bytes.HasPrefix(b, []byte("\x1f\x8b")) { // a layer, not the image's configuration
			b[len(b)/2] ^= 1
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(b)
	}))
	t.Cleanup(srv.Close)
	c.host = strings.TrimPrefix(srv.URL, "http://")
	return c
}

func (c *containers) name(t *testing.T, ref string) name.Reference {
	t.Helper()
	n, err := name.ParseReference(c.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// container is an image of layers, the lowest first.
func container(t *testing.T, arch string, layers ...[]byte) v1.Image {
	t.Helper()
	img := empty.Image
	for _, tar := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// kernelFiles are those of a kernel below a directory.
func kernelFiles(t *testing.T, below, release string) []synth.File {
	img := synth.BzImage(synth.Gzip(synth.ELF(synth.Exec, synth.X86_64,
		synth.Section{Name: ".rodata", Data: synth.Banner(release)}, synth.Section{Name: ".BTF", Data: testBTF(t)})))
	return []synth.File{
		{Name: below + "boot/vmlinuz-" + release, Data: img},
		{Name: below + "boot/config-" + release, Data: []byte("CONFIG_PVH=y\n")},
		{Name: below + "lib/modules/" + release + "/kernel/drivers/net/dummy.ko", Data: synth.Module("")},
	}
}

// TestContainerKernel pulls kernels out of container images.
func TestContainerKernel(t *testing.T) {
	reg := newContainers(t)
	push := func(tag string, img v1.Image) {
		t.Helper()
		if err := remote.Write(reg.name(t, tag), img); err != nil {
			t.Fatal(err)
		}
	}
	const lvh = "data/kernels/6.6/"
	push("kernels:6.6-main", container(t, "amd64", synth.Tar(t, kernelFiles(t, lvh, "6.6.30")...)))
	c := openWith(t, t.TempDir(), nil)
	get := func(ref string) *Kernel {
		t.Helper()
		parsed, err := ParseRef("oci:" + reg.host + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		k, err := c.Get(t.Context(), parsed, "amd64", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.VerifyAll(); err != nil {
			t.Error(err)
		}
		return k
	}
	k := get("kernels:6.6-main")
	if k.Release != "6.6.30" || k.Arch != "amd64" || !strings.HasPrefix(k.Sum, "sha256:") || k.From() != "oci:"+reg.host+"/kernels:6.6-main" {
		t.Errorf("got %s for %s from %s, sum %s", k.Release, k.Arch, k.From(), k.Sum)
	}
	if v, ok := k.Option("PVH"); v != "y" || !ok {
		t.Errorf("option of its configuration: %q, %v", v, ok)
	}
	if mods, err := k.Modules("dummy"); err != nil || len(mods) != 1 {
		t.Errorf("Modules(dummy): %d, %v; want it alone", len(mods), err)
	}
	if again := get("kernels@" + k.Sum); again.Dir != k.Dir || again.Ref != k.Ref {
		t.Errorf("by its digest it is %v in %s; want %v in %s", again.Ref, again.Dir, k.Ref, k.Dir)
	}

	// A tag that has moved: what is cached serves until it is pulled again.
	push("kernels:6.6-main", container(t, "amd64", synth.Tar(t, kernelFiles(t, lvh, "6.6.31")...)))
	if again := get("kernels:6.6-main"); again.Release != "6.6.30" {
		t.Errorf("without a pull the tag is %s now", again.Release)
	}
	parsed, _ := ParseRef("oci:" + reg.host + "/kernels:6.6-main")
	if k, err := c.Pull(t.Context(), parsed, "amd64", nil); err != nil || k.Release != "6.6.31" {
		t.Errorf("pulled again: %v, %v; want 6.6.31", k, err)
	}
	if now := get("kernels:6.6-main"); now.Release != "6.6.31" {
		t.Errorf("after a pull the tag is %s; want 6.6.31", now.Release)
	}
	if old := get("kernels@" + k.Sum); old.Release != "6.6.30" {
		t.Errorf("by the old digest it is %s; want 6.6.30", old.Release)
	}

	// Layers: what one above has, or has removed, is not taken from below.
	old := kernelFiles(t, "", "6.1.0")
	push("layers:1", container(t, "amd64",
		synth.Tar(t, old...),
		synth.Tar(t, append(kernelFiles(t, "", "6.1.9"), synth.File{Name: "boot/.wh.vmlinuz-6.1.0"}, synth.File{Name: "boot/.wh.config-6.1.0"}, synth.File{Name: "lib/modules/.wh.6.1.0"})...)))
	push("opaque:1", container(t, "amd64",
		synth.Tar(t, old...),
		synth.Tar(t, append(kernelFiles(t, "", "6.1.9"), synth.File{Name: "boot/.wh..wh..opq"}, synth.File{Name: "lib/modules/.wh..wh..opq"})...)))
	for _, ref := range []string{"layers:1", "opaque:1"} {
		if k := get(ref); k.Release != "6.1.9" {
			t.Errorf("%s: got %s, want 6.1.9", ref, k.Release)
		}
	}

	// An index of two platforms.
	arm := container(t, "arm64", synth.Tar(t, synth.File{Name: "x", Data: []byte("x")}))
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: container(t, "amd64", synth.Tar(t, kernelFiles(t, lvh, "6.12.3")...)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	if err := remote.WriteIndex(reg.name(t, "both:1"), idx); err != nil {
		t.Fatal(err)
	}
	if k := get("both:1"); k.Release != "6.12.3" {
		t.Errorf("of an index: got %s, want 6.12.3", k.Release)
	}
	if rows, err := c.Sources("amd64"); err != nil || !strings.Contains(fmt.Sprint(rows), k.Ref.String()) {
		t.Errorf("the list has no row %s, %v", k.Ref, err)
	}

	for _, tt := range []struct{ ref, arch, want string }{
		{"both:1", "arm64", "it is not one of a kernel"},
		{"both:1", "arm", "no child with platform linux/arm"},
		{"none:1", "amd64", "the registry answers 404"},
		{"kernels:6.6-main", "arm64", "the image is for amd64, not arm64"},
	} {
		parsed, err := ParseRef("oci:" + reg.host + "/" + tt.ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), parsed, tt.arch, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s for %s: got %v, want %q", tt.ref, tt.arch, err, tt.want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s for %s: %q is more than a line", tt.ref, tt.arch, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.imageDir(), ".tmp-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := c.Remove(k); err != nil {
		t.Error(err)
	}
	if _, err := load(k.Dir); err == nil {
		t.Errorf("%s is there after its removal", k.Dir)
	}
}

// TestContainerFlipped: a layer that is not what the manifest has is refused, and nothing
// of it is kept.
func TestContainerFlipped(t *testing.T) {
	reg := newContainers(t)
	if err := remote.Write(reg.name(t, "one:1"), container(t, "amd64", synth.Tar(t, kernelFiles(t, "", "6.6.30")...))); err != nil {
		t.Fatal(err)
	}
	reg.flip.Store(true)
	c := openWith(t, t.TempDir(), nil)
	_, err := c.Get(t.Context(), Ref{Container: reg.host + "/one:1"}, "amd64", nil)
	if err == nil || !strings.Contains(err.Error(), "verifying sha256") || outcome.Of(err) != outcome.HostLacks {
		t.Errorf("got %v, %v; want a checksum that does not match, of the host's", err, outcome.Of(err))
	}
	if left, _ := filepath.Glob(filepath.Join(c.imageDir(), "[^.]*")); len(left) != 0 {
		t.Errorf("kept: %v", left)
	}
}

// TestContainerDown: what a registry says of its troubles is one clean line.
func TestContainerDown(t *testing.T) {
	reg := newContainers(t)
	reg.down.Store(true)
	c := openWith(t, t.TempDir(), nil)
	_, err := c.Get(t.Context(), Ref{Container: reg.host + "/one:1"}, "amd64", nil)
	if err == nil || outcome.Of(err) != outcome.HostLacks || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("got %q, %v; want one clean line, of the host's", err, outcome.Of(err))
	}
}

func TestParseContainer(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"oci:registry.example/lvh-images/kernel-images:6.6-main", "oci:registry.example/lvh-images/kernel-images:6.6-main"},
		{"oci:registry.example/lvh-images/kernel-images", "oci:registry.example/lvh-images/kernel-images:latest"},
	} {
		if ref, err := ParseRef(tt.in); err != nil || ref.String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", tt.in, ref, err, tt.want)
		}
	}
	for _, in := range []string{"oci:", "oci:UPPER/x", "oci:a b", "oci:x@sha256:12"} {
		if ref, err := ParseRef(in); err == nil || outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "oci:REGISTRY/REPOSITORY:TAG") {
			t.Errorf("%s: got %v, %v; want bad input", in, ref, err)
		}
	}
}
