package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/kernel/internal/synth"
	"labctl/host/outcome"
)

// TestPackageKernel: packages of the user's are a kernel, by the file or by the directory.
func TestPackageKernel(t *testing.T) {
	c := openWith(t, t.TempDir(), nil)
	const release = "6.8.0-1-generic"
	img := synth.BzImage(synth.Gzip(synth.ELF(synth.Exec, synth.X86_64,
		synth.Section{Name: ".rodata", Data: synth.Banner(release)}, synth.Section{Name: ".BTF", Data: testBTF(t)})))
	m := "lib/modules/" + release + "/"
	image := synth.File{Name: "./boot/vmlinuz-" + release, Data: img}
	config := synth.File{Name: "./boot/config-" + release, Data: []byte("CONFIG_PVH=y\n")}
	dummy := synth.File{Name: "./" + m + "kernel/drivers/net/dummy.ko", Data: synth.Module("")}
	builtin := synth.File{Name: "./" + m + "modules.builtin", Data: []byte("kernel/fs/ext4/ext4.ko\n")}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("one.deb", synth.Deb(t, image, config, dummy, builtin))
	write("mainline/linux-image-unsigned-6.8.0-1-generic_amd64.deb", synth.Deb(t, image))
	write("mainline/linux-modules-6.8.0-1-generic_amd64.deb", synth.Deb(t, config, dummy, builtin))
	write("mainline/linux-headers-6.8.0-1_all.deb", synth.Deb(t))
	alone := filepath.Join(dir, "mainline/linux-image-unsigned-6.8.0-1-generic_amd64.deb")
	for range 2 { // the second time from the cache
		for _, path := range []string{one, filepath.Join(dir, "mainline")} {
			k, err := c.Get(t.Context(), Ref{Path: path}, "amd64", nil)
			if err != nil {
				t.Fatal(err)
			}
			if k.Arch != "amd64" || k.Release != release || k.Ref.Path != path || !strings.Contains(k.String(), path) {
				t.Errorf("got %s for %s: %v, ref %v", k.Release, k.Arch, k, k.Ref)
			}
			if err := k.VerifyAll(); err != nil {
				t.Error(err)
			}
			if v, ok := k.Option("PVH"); v != "y" || !ok {
				t.Errorf("option of its configuration: %q, %v", v, ok)
			}
			if mods, err := k.Modules("dummy"); err != nil || len(mods) != 1 {
				t.Errorf("Modules(dummy): %d, %v; want it alone", len(mods), err)
			}
		}
	}
	other := write("other/notes_1.deb", synth.Deb(t))
	two := write("two/linux-image-a.deb", synth.Deb(t, image, config))
	write("two/linux-image-b.deb", synth.Deb(t, synth.File{Name: "./boot/vmlinuz-6.9.0", Data: img}))
	for _, tt := range []struct{ path, arch, want string }{
		{one, "arm64", "the image is for amd64, not arm64"},
		{alone, "", "give the directory that has all of its packages"},
		{filepath.Dir(other), "", "no package of a kernel among notes_1.deb"},
		{filepath.Dir(two), "", "belongs to 6.9.0, the rest to " + release},
		{write("bad/linux-image-x.deb", []byte("!<arch>\nno member of one")), "", "read ar: unexpected EOF"},
	} {
		if _, err := c.Get(t.Context(), Ref{Path: tt.path}, tt.arch, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Get %s: got %v, want %q", tt.path, err, tt.want)
		} else if got := outcome.Of(err); got != outcome.BadInput {
			t.Errorf("Get %s: %v is %v; want bad input", tt.path, err, got)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.fileDir(), ".tmp-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
