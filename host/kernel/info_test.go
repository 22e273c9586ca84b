package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/kernel/internal/synth"
	"labctl/host/outcome"
)

func TestInfo(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	k, err := c.Get(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := k.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Source != "debian:trixie" || info.Release != testRelease || info.Version != "6.12.107-1" || len(info.Packages) != 1 ||
		info.Kind != image.Arm64Image || info.Compression != "" || info.Size != info.Unpacked || info.SHA256 != k.Files[imageFile].SHA256 ||
		!strings.HasPrefix(info.Banner, "Linux version "+testRelease) || info.PVH || info.ORC != 0 {
		t.Errorf("got %+v", info)
	}
	// Three integers, a structure in a union in a structure, and so on: what
	// testBTF is made of.
	if info.BTF == nil || info.BTF.Bytes != len(testBTF(t)) || info.BTF.Types < 10 || info.BTF.Types > 30 {
		t.Errorf("BTF: %+v", info.BTF)
	}
	if info.Kallsyms != nil || !strings.Contains(info.NoKallsyms, "no kallsyms table") {
		t.Errorf("kallsyms: %+v, %q", info.Kallsyms, info.NoKallsyms)
	}
	missing := map[string][]string{}
	for _, f := range info.Features {
		missing[f.Name] = f.Missing
	}
	if got, want := missing["pvh"], []string{"CONFIG_PVH is not set, want y"}; !slices.Equal(got, want) {
		t.Errorf("pvh: got %q, want %q", got, want)
	}
	if got := missing["virtio-serial"]; !slices.Contains(got, "CONFIG_VIRTIO_CONSOLE is not set, want y or m") || len(got) != 3 {
		t.Errorf("virtio-serial: got %q", got)
	}

	// An x86 image has ORC and PVH in its ELF file; without a configuration
	// features are not reported.
	dir := t.TempDir()
	elf := synth.ELF(synth.Exec, synth.X86_64,
		synth.Section{Name: ".orc_unwind_ip", Data: make([]byte, 40)}, synth.Section{Name: ".rodata", Data: synth.Banner("6.1.0-x")})
	path := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(path, synth.BzImage(synth.Gzip(elf)), 0o644); err != nil {
		t.Fatal(err)
	}
	if k, err = c.Get(t.Context(), Ref{Path: path}, "", nil); err != nil {
		t.Fatal(err)
	}
	if info, err = k.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info.ORC != 10 || info.Compression != "gzip" || info.Kind != image.BzImage || info.Source != KindFile || info.HasConfig || info.Features != nil || info.BTF != nil {
		t.Errorf("got %+v", info)
	}
}

func TestReadKallsyms(t *testing.T) {
	got := readKallsyms([]byte(`ffff800080000000 T _text
ffff800080001000 t copy_process.isra.0
ffff800080001800 T kernel_clone
ffff800080002000 T __do_sys_clone
ffff800080002100 T __arm64_sys_clone
ffff800080002100 T __arm64_sys_clone
ffff800080003000 d kernel_thread
broken
`))
	want := &KallsymsInfo{Bytes: got.Bytes, Symbols: 7, Creation: map[string][]string{
		"creation": {"kernel_clone"}, "copy": {"copy_process.isra.0"}, "clone": {"__arm64_sys_clone", "__do_sys_clone"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestOffers(t *testing.T) {
	publish := fileProxy(t)
	publish("v0.1.0", moduleFiles("6.12.47-v8"))
	publish("v0.3.0", moduleFiles("6.12.48-v8"))
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	if _, err := c.Get(t.Context(), trixie, "arm64", nil); err != nil {
		t.Fatal(err)
	}
	told := make(chan Offer, 100)
	offers, err := c.Offers(t.Context(), "", time.Minute, func(o Offer) { told <- o })
	if err != nil || len(told) != len(offers) {
		t.Fatalf("Offers: %d told, %d given, %v", len(told), len(offers), err)
	}
	seen := map[string]Offer{}
	for _, o := range offers {
		seen[o.Name+" "+o.Arch] = o
	}
	for name, want := range map[string]string{
		"6.12 arm64":                     "6.12.107-1 linux-image-" + testRelease + " true",
		"6.12 amd64":                     "6.12.107-1 linux-image-" + testRelease + " false",
		"6.12-cloud arm64":               "6.12.107-1 linux-image-" + testRelease + " false",
		"gomod:" + testModule + " arm64": "v0.3.0 " + testModule + " false",
	} {
		o := seen[name]
		if got := fmt.Sprintf("%s %s %v", o.Version, o.Package, o.Cached); got != want || o.Err != nil {
			t.Errorf("%s: got %s, %v; want %s", name, got, o.Err, want)
		}
	}
	// The proxy lacks this module: its row has the error, the others are complete.
	if o := seen["gomod:github.com/gokrazy/kernel.amd64 amd64"]; o.Err == nil || o.Error != o.Err.Error() || o.Version != "" || strings.Contains(o.Error, "\n") {
		t.Errorf("a source that is gone: %+v", o)
	}
	if left, err := os.ReadDir(filepath.Join(c.Dir(), "apt")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPullReplaced publishes a point release between the index and the download: the
// pull gets the new one.
func TestPullReplaced(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		c := openWith(t, t.TempDir(), nil)
		if c, err = Open(c.Dir()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), trixie, "arm64", nil); !errors.Is(err, ErrHostLacks) {
			t.Errorf("without apt: %v", err)
		}
		return
	}
	packages := func(v, release string) []synth.Package {
		return []synth.Package{
			{Name: "linux-image-arm64", Version: v, Depends: "linux-image-" + release + " (= " + v + ")", Deb: []byte("meta")},
			{Name: "linux-image-" + release, Version: v, Depends: "kmod", Deb: testDeb(t, release)},
		}
	}
	const newer = "6.12.108+deb13-arm64"
	for _, tt := range []struct {
		name    string
		publish bool
		times   int // that "another" is in the old file, which is left in place
		want    string
	}{
		{"replaced", true, 0, ""},
		{"changed in place", true, 1, ""},
		{"grown in place", true, 1 << 16, ""},
		{"gone for good", false, 0, "download linux-image-" + testRelease + ": "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			repo := synth.NewRepo(t, "trixie", "arm64", packages("6.12.107-1", testRelease)...)
			repo.Before(func(path string) {
				if !strings.HasSuffix(path, "6.12.107-1_arm64.deb") {
					return
				}
				if err := os.RemoveAll(repo.Path("pool")); err != nil {
					t.Error(err)
				}
				if tt.publish {
					repo.Publish(packages("6.12.108-1", newer)...)
				}
				if tt.times > 0 {
					if err := os.WriteFile(repo.Path("pool", "linux-image-"+testRelease+"_6.12.107-1_arm64.deb"), bytes.Repeat([]byte("another"), tt.times), 0o644); err != nil {
						t.Error(err)
					}
				}
			})
			c, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			k, err := c.Get(t.Context(), trixie, "arm64", nil)
			switch {
			case tt.want == "" && (err != nil || k.Release != newer):
				t.Errorf("got %v, %v; want %s", k, err, newer)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
			list, err := c.List()
			if err != nil || (len(list) == 1) != (tt.want == "") {
				t.Errorf("List: %v, %v", list, err)
			}
		})
	}
}

func TestKernelTree(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	tree := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img := make([]byte, 4096)
	copy(img, "MZ")
	copy(img[56:], "ARM\x64")
	put("arch/arm64/boot/Image", append(img, synth.Banner("6.12.0")...))
	put("arch/arm64/boot/dts/broadcom/bcm2837-rpi-3-b.dtb", []byte("tree"))
	put(".config", []byte("CONFIG_VIRTIO=y\n"))
	ref := Ref{Path: tree}
	k, err := c.Get(t.Context(), ref, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := k.Option("VIRTIO"); k.Arch != "arm64" || k.Release != "6.12.0" || v != "y" {
		t.Errorf("got %+v, VIRTIO=%q", k, v)
	}
	if p, err := k.DTB("broadcom/bcm2837-rpi-3-b.dtb"); err != nil || p != filepath.Join(tree, "arch/arm64/boot/dts/broadcom/bcm2837-rpi-3-b.dtb") {
		t.Errorf("DTB: %s, %v", p, err)
	}
	if _, err := c.Get(t.Context(), ref, "amd64", nil); err == nil || !strings.Contains(err.Error(), "the tree has an image for arm64, not amd64") {
		t.Errorf("another architecture: %v", err)
	}
	put("arch/x86/boot/bzImage", synth.BzImage(synth.Gzip(append(synth.ELF(synth.Exec, synth.X86_64), synth.Banner("6.12.0")...))))
	if _, err := c.Get(t.Context(), ref, "", nil); err == nil || !strings.Contains(err.Error(), "images for amd64 and arm64: choose with --arch") {
		t.Errorf("two images: %v", err)
	}
	if k, err = c.Get(t.Context(), ref, "amd64", nil); err != nil || k.Arch != "amd64" {
		t.Errorf("one of two: %v, %v", k, err)
	}
	// An image without device trees beside it borrows one.
	put("alone/Image", append(img, synth.Banner("6.12.1")...))
	if k, err = c.Get(t.Context(), Ref{Path: filepath.Join(tree, "alone/Image")}, "", nil); err != nil {
		t.Fatal(err)
	}
	if p, from, err := c.LentDTB(k, "broadcom/bcm2837-rpi-3-b.dtb"); err == nil {
		t.Errorf("LentDTB of an empty cache: %s, %v", p, from)
	}
	deb, err := c.Get(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, from, err := c.LentDTB(k, "broadcom/bcm2837-rpi-3-b.dtb"); err != nil || from.Dir != deb.Dir || !isFile(p) {
		t.Errorf("LentDTB: %s, %v, %v", p, from, err)
	}
}

// TestOffersSilent has an archive that takes a connection and never answers: its rows
// say so after a time.
func TestOffersSilent(t *testing.T) {
	fileProxy(t)("v0.1.0", moduleFiles("6.12.47-v8"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := openWith(t, t.TempDir(), silent{l.Addr().String()})
	told := 0
	offers, err := c.Offers(t.Context(), "arm64", 200*time.Millisecond, func(Offer) { told++ })
	if err != nil || told != len(offers) {
		t.Fatalf("Offers: %d rows, %d told, %v", len(offers), told, err)
	}
	for _, o := range offers {
		if strings.HasPrefix(o.From, "debian:") && (o.Error != o.From+" for arm64: no answer within 200ms" || outcome.Of(o.Err) != outcome.HostLacks) {
			t.Errorf("%s: %q; want no answer within 200ms", o.From, o.Error)
		}
	}
}

// silent is an archive at an address that does not answer.
type silent struct{ addr string }

func (s silent) Resolve(ctx context.Context, _ string, _ func(Progress)) ([]debian.Package, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err = conn.Read(make([]byte, 1)); ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

func (silent) Lookup(context.Context, string, string, func(Progress)) (debian.Package, error) {
	panic("not asked for a package")
}

func (silent) Download(context.Context, []debian.Package, func(Progress)) ([]string, error) {
	return nil, errors.New("nothing was offered")
}

func (silent) Drop() error { return nil }

func TestUnwinder(t *testing.T) {
	for _, tt := range []struct {
		name, arch      string
		config          string
		frames, guesses bool
	}{
		{"tables", "amd64", "CONFIG_UNWINDER_ORC=y\n", false, false},
		{"tables, as 4.14 calls them", "amd64", "CONFIG_ORC_UNWINDER=y\nCONFIG_FRAME_POINTER=y\n", false, false},
		{"frame pointers", "amd64", "CONFIG_FRAME_POINTER=y\nCONFIG_UNWINDER_FRAME_POINTER=y\n", true, false},
		{"frame pointers, before there was a choice", "amd64", "CONFIG_FRAME_POINTER=y\n", true, false},
		{"neither", "amd64", "CONFIG_UNWINDER_GUESS=y\n", false, true},
		{"arm64", "arm64", "CONFIG_FRAME_POINTER=y\n", true, false},
		{"arm's tables", "arm", "CONFIG_ARM_UNWIND=y\n", false, false},
		{"arm with neither", "arm", "CONFIG_SMP=y\n", false, true},
		{"not known", "amd64", "", false, false},
	} {
		k := &Kernel{Arch: tt.arch, config: func() (map[string]string, error) { return parseConfig([]byte(tt.config)), nil }}
		if got := [2]bool{k.WalksFrames(), k.GuessesStacks()}; got != [2]bool{tt.frames, tt.guesses} {
			t.Errorf("%s: walks frames, guesses = %v; want %t, %t", tt.name, got, tt.frames, tt.guesses)
		}
	}
}
