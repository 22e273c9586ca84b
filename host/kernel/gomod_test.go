package kernel

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/kernel/internal/synth"
	"labctl/host/outcome"
)

const testModule = "github.com/gokrazy/kernel.rpi"

// fileProxy serves a directory as a Go module proxy (https://go.dev/ref/mod#goproxy-protocol)
// and makes the go command use it, with the test's own module cache.
func fileProxy(t *testing.T) (publish func(version string, files map[string][]byte)) {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, testModule, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOPROXY", "file://"+dir)
	t.Setenv("GOSUMDB", "off")
	t.Setenv("GONOSUMDB", "")
	t.Setenv("GOFLAGS", "-modcacherw") // so that the test's directories can be removed
	t.Setenv("GOMODCACHE", t.TempDir())
	var list string
	return func(version string, files map[string][]byte) {
		t.Helper()
		var b bytes.Buffer
		zw := zip.NewWriter(&b)
		for name, data := range files {
			w, err := zw.Create(testModule + "@" + version + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		list += version + "\n"
		for name, data := range map[string]string{
			"list": list, version + ".info": fmt.Sprintf("{\"Version\":%q}", version),
			version + ".mod": "module " + testModule + "\n", version + ".zip": b.String(),
		} {
			if err := os.WriteFile(filepath.Join(at, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// moduleFiles is a module such as kernel.rpi.
func moduleFiles(release string) map[string][]byte {
	img := make([]byte, 4096)
	copy(img, "MZ")
	copy(img[56:], "ARM\x64")
	img = append(img, synth.Banner(release)...)
	img = append(img, "IKCFG_ST"...)
	img = append(append(img, synth.Gzip([]byte("CONFIG_IKCONFIG=y\nCONFIG_VIRTIO=m\n"))...), "IKCFG_ED"...)
	m := "lib/modules/" + release + "/"
	return map[string][]byte{
		"go.mod":                        []byte("module " + testModule + "\n"),
		"vmlinuz":                       img,
		"bcm2837-rpi-3-b.dtb":           []byte("tree"),
		"overlays/none.dtb":             []byte("not a tree"),
		m + "modules.builtin":           []byte("kernel/drivers/pci/pci-hole.ko\n"),
		m + "modules.dep":               []byte("left out"),
		m + "kernel/virtio.ko":          synth.Module("virtio_ring"),
		m + "kernel/sub/virtio_ring.ko": synth.Module(""),
	}
}

func TestPullModule(t *testing.T) {
	publish := fileProxy(t)
	publish("v0.1.0", moduleFiles("6.12.47-v8"))
	c := openWith(t, t.TempDir(), nil)
	ref := Ref{Module: testModule}
	if _, err := c.Find(ref, "arm64"); !errors.Is(err, ErrNotCached) || !strings.Contains(err.Error(), "labctl kernel pull gomod:"+testModule) {
		t.Errorf("Find in an empty cache: %v", err)
	}
	var stages []Stage
	k, err := c.Get(t.Context(), ref, "arm64", func(p Progress) { stages = append(stages, p.Stage) })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(stages), "[download unpack inspect done]"; got != want {
		t.Errorf("stages: got %s, want %s", got, want)
	}
	if k.Source != KindModule || k.Release != "6.12.47-v8" || k.Series != "6.12" || k.Version != "v0.1.0" || !strings.HasPrefix(k.Sum, "h1:") ||
		filepath.Base(k.Dir) != "github.com+gokrazy+kernel.rpi-arm64-v0.1.0" || k.String() != "6.12.47-v8 (gomod:"+testModule+"@v0.1.0)" {
		t.Errorf("got %+v, %s", k, k)
	}
	if got, _ := k.Option("IKCONFIG"); got != "y" {
		t.Errorf("CONFIG_IKCONFIG=%q", got)
	}
	// Only Debian has a vendor directory; this module has none.
	if p, err := k.DTB("broadcom/bcm2837-rpi-3-b.dtb"); err != nil || p != filepath.Join(k.Dir, "dtb", "bcm2837-rpi-3-b.dtb") {
		t.Errorf("DTB: %s, %v", p, err)
	}
	if p, err := k.DTB("none"); err == nil {
		t.Errorf("an overlay was taken for a device tree: %s", p)
	}
	mods, err := k.Modules("virtio", "pci-hole")
	if err != nil || len(mods) != 3 || mods[0].Name != "virtio_ring" || mods[1].Name != "virtio" || !mods[2].BuiltIn {
		t.Errorf("Modules: %+v, %v", mods, err)
	}
	if got, err := c.ArchOf(ref); err != nil || got != "arm64" {
		t.Errorf("ArchOf: %q, %v", got, err)
	}
	if _, err := c.Get(t.Context(), ref, "amd64", nil); err == nil || !strings.Contains(err.Error(), "not available for amd64, only for arm64") {
		t.Errorf("Get for amd64: %v", err)
	}

	// A new version is seen by Pull; modules of another release are left behind.
	odd := moduleFiles("6.13.0-v8")
	odd["vmlinuz"] = moduleFiles("6.13.1-v8")["vmlinuz"]
	publish("v0.2.0", odd)
	if again, err := c.Get(t.Context(), ref, "arm64", nil); err != nil || again.Version != "v0.1.0" {
		t.Errorf("Get of a cached kernel: %v, %v", again, err)
	}
	k2, err := c.Pull(t.Context(), ref, "arm64", nil)
	if err != nil || k2.Version != "v0.2.0" || k2.Release != "6.13.1-v8" {
		t.Fatalf("Pull: %v, %v", k2, err)
	}
	if _, err := k2.Modules("virtio"); !errors.Is(err, ErrNoModule) {
		t.Errorf("modules of another release: %v", err)
	}
	for _, want := range []*Kernel{k, k2} {
		if got, err := c.Get(t.Context(), want.Ref, "arm64", nil); err != nil || got.Dir != want.Dir {
			t.Errorf("Get %s: %v, %v", want.Ref, got, err)
		}
	}
	flipByte(t, k.Image())
	if got, err := c.Get(t.Context(), k.Ref, "arm64", nil); err != nil || got.Verify() != nil {
		t.Errorf("Get of a damaged kernel: %v, %v", got, err)
	}
	if err := c.Remove(k); err != nil {
		t.Error(err)
	}
	if list, err := c.List(); err != nil || len(list) != 1 {
		t.Errorf("List after Remove: %v, %v", list, err)
	}
}

func TestPullModuleRefuses(t *testing.T) {
	publish := fileProxy(t)
	ref := func(version string) Ref { return Ref{Module: testModule, Version: version} }
	without := moduleFiles("6.12.47-v8")
	delete(without, "vmlinuz")
	publish("v0.1.0", without)
	noKernel := moduleFiles("6.12.47-v8")
	noKernel["vmlinuz"] = []byte("text")
	publish("v0.2.0", noKernel)
	other := moduleFiles("6.12.47-v8")
	other["vmlinuz"] = append(synth.BzImage(synth.Gzip(append(synth.ELF(synth.Exec, synth.X86_64), synth.Banner("6.12.47-v8")...))), 0)
	publish("v0.3.0", other)
	c := openWith(t, t.TempDir(), nil)
	for _, tt := range []struct {
		version, want string
		is            error
	}{
		{"v0.1.0", "@v0.1.0: image vmlinuz: ", os.ErrNotExist},
		{"v0.2.0", "not a kernel image", ErrNotKernel},
		{"v0.3.0", "the image is for ", nil},
		{"v0.9.0", "go mod download: ", nil},
	} {
		_, err := c.Get(t.Context(), ref(tt.version), "arm64", nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", tt.version, err, tt.want)
		}
	}
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close() // nobody is there now
	t.Setenv("GOPROXY", srv.URL)
	if _, err := c.Get(t.Context(), ref(""), "arm64", nil); outcome.Of(err) != outcome.HostLacks {
		t.Errorf("a proxy that is not there: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := c.Get(t.Context(), ref(""), "arm64", nil); outcome.Of(err) != outcome.HostLacks || !strings.Contains(err.Error(), "install Go") {
		t.Errorf("without go: %v", err)
	}
	entries, err := os.ReadDir(c.moduleDir())
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), ".lock-") {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
