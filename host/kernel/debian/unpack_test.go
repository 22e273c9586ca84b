package debian

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"labctl/host/kernel/internal/synth"
)

const rel = "6.12.107+deb13-arm64"

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// unpack writes packages into a directory and unpacks them there.
func unpack(t testing.TB, ctx context.Context, debs ...[]byte) (string, *Tree, error) {
	t.Helper()
	src, dst := t.TempDir(), t.TempDir()
	var files []string
	var pkgs []Package
	for i, b := range debs {
		name := filepath.Join(src, string(rune('a'+i))+".deb")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
		pkgs = append(pkgs, Package{Name: "linux-image-x", Version: "1", SHA256: sum(b), Size: int64(len(b))})
	}
	tree, err := Unpack(ctx, files, pkgs, dst, func(Progress) {})
	return dst, tree, err
}

// contents reads all files in a directory, those in modules.zip as zip:NAME.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel != "modules.zip" {
			b, err := os.ReadFile(p)
			out[rel] = string(b)
			return err
		}
		zr, err := zip.OpenReader(p)
		if err != nil {
			return err
		}
		defer zr.Close()
		zr.RegisterDecompressor(ZipZstd, zstd.ZipDecompressor())
		for _, f := range zr.File {
			r, err := f.Open()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			name := "zip:" + f.Name
			if f.Method == zip.Store {
				name = "stored:" + f.Name
			}
			out[name] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	f := func(name, data string) synth.File { return synth.File{Name: name, Data: []byte(data)} }
	want := map[string]string{
		"vmlinuz": "image", "config": "CONFIG_A=y\n", "dtb/broadcom/bcm2837-rpi-3-b.dtb": "tree",
		"zip:kernel/drivers/a.ko": "module a", "stored:kernel/drivers/b.ko.xz": "module b", "zip:modules.builtin": "kernel/c.ko\n",
	}
	t.Run("one package, as up to 6.12", func(t *testing.T) {
		dir, tree, err := unpack(t, t.Context(), synth.Deb(t,
			f("./boot/vmlinuz-"+rel, "image"),
			f("./boot/config-"+rel, "CONFIG_A=y\n"),
			f("./boot/System.map-"+rel, "no use"),
			f("./usr/lib/linux-image-"+rel+"/broadcom/bcm2837-rpi-3-b.dtb", "tree"),
			f("./lib/modules/"+rel+"/kernel/drivers/a.ko", "module a"),
			f("./usr/lib/modules/"+rel+"/kernel/drivers/b.ko.xz", "module b"),
			f("./lib/modules/"+rel+"/modules.builtin", "kernel/c.ko\n"),
			f("./usr/share/doc/x/copyright", "no use"),
		))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if *tree != (Tree{rel, 2, 1}) {
			t.Errorf("got %+v", *tree)
		}
	})
	t.Run("split, as from 7.x", func(t *testing.T) {
		m := "./usr/lib/modules/" + rel + "/"
		dir, _, err := unpack(t, t.Context(),
			synth.Deb(t), // the image package is empty
			synth.Deb(t, f(m+"config", "CONFIG_A=y\n"), f(m+"modules.builtin", "kernel/c.ko\n"), f(m+"dtb/broadcom/bcm2837-rpi-3-b.dtb", "tree")),
			synth.Deb(t, f(m+"vmlinuz", "image")),
			synth.Deb(t, f(m+"kernel/drivers/a.ko", "module a"), f(m+"kernel/drivers/b.ko.xz", "module b")),
		)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	image, config := synth.File{Name: "boot/vmlinuz-1", Data: []byte("image")}, synth.File{Name: "boot/config-1", Data: []byte("config")}
	dataOf := func(name string, b []byte) []byte {
		return synth.Ar(synth.File{Name: "debian-binary", Data: []byte("2.0\n")}, synth.File{Name: name, Data: b})
	}
	big := bytes.Clone(synth.Tar(t, image))
	// A header that promises 8 GiB, in the octal of ustar, with its checksum.
	copy(big[124:136], "77777777777\x00")
	copy(big[148:156], "        ")
	check := 0
	for _, c := range big[:512] {
		check += int(c)
	}
	copy(big[148:156], []byte{'0' + byte(check>>15&7), '0' + byte(check>>12&7), '0' + byte(check>>9&7), '0' + byte(check>>6&7), '0' + byte(check>>3&7), '0' + byte(check&7), 0, ' '})
	whole := synth.Deb(t, image, config)
	// Header of the first member: its size is at 48, its end mark at 58.
	header := func(at int, text string) []byte {
		b := bytes.Clone(whole)
		copy(b[len(arMagic)+at:], text)
		return b
	}
	tests := []struct {
		name, want string
		deb        []byte
	}{
		{"no ar", "no ar header", []byte("PK\x03\x04")},
		{"empty", "no ar header", nil},
		{"too many members", "no data.tar", synth.Ar(append(make([]synth.File, maxMembers), synth.File{Name: "data.tar", Data: synth.Tar(t, image, config)})...)},
		{"no data", "no data.tar", synth.Ar(synth.File{Name: "debian-binary", Data: []byte("2.0\n")})},
		{"compression", `compression ".lzma"`, dataOf("data.tar.lzma", []byte("x"))},
		{"no size", "invalid ar header", header(48, "          ")},
		{"negative size", "invalid ar header", header(48, "-4        ")},
		{"size beyond any package", "invalid ar header", header(48, "2147483649")},
		{"no end mark", "invalid ar header", header(58, "  ")},
		{"member cut", `member "debian-binary" of 999 bytes: unexpected EOF`, header(48, "999       ")},
		{"header cut", "read ar: unexpected EOF", whole[:len(arMagic)+59]},
		{"cut", "unexpected EOF", whole[:len(whole)-60]},
		{"no image", "no kernel image", synth.Deb(t, config)},
		{"two kernels", "belongs to 2", synth.Deb(t, image, synth.File{Name: "boot/config-2"})},
		{"twice", "more than once", synth.Deb(t, image, image)},
		{"huge file", "too large", dataOf("data.tar.gz", synth.Gzip(big))},
		{"release with dots", `release ".."`, synth.Deb(t, synth.File{Name: "usr/lib/modules/x/../../../boot/vmlinuz-.."})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := unpack(t, t.Context(), tt.deb)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestUnpackChecksSum(t *testing.T) {
	deb := synth.Deb(t, synth.File{Name: "boot/vmlinuz-1"}, synth.File{Name: "boot/config-1"})
	name := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(name, append(deb, "one member more"...), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Unpack(t.Context(), []string{name}, []Package{{SHA256: sum(deb)}}, t.TempDir(), func(Progress) {})
	if err == nil || !strings.Contains(err.Error(), "the index has "+sum(deb)) {
		t.Errorf("got %v, want the two sums", err)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	data := func(name string) synth.File { return synth.File{Name: name, Data: []byte("evil")} }
	dir, _, err := unpack(t, t.Context(), synth.Deb(t,
		data("boot/vmlinuz-1"), data("boot/config-1"),
		data("../../../../tmp/x.dtb"), data("/etc/passwd"),
		data("usr/lib/linux-image-1/../../../../../../escape.dtb"),
		data("usr/lib/modules/1/../../../../../kernel/escape.ko"),
		data("usr/lib/modules/1/dtb/../../2/dtb/escape.dtb"),
		data("usr/lib/modules/1/kernel/./ok.ko"),
	))
	if err == nil || !strings.Contains(err.Error(), "belongs to 2") {
		t.Fatalf("got %v, want the file of release 2 refused", err)
	}
	for name := range contents(t, filepath.Dir(dir)) {
		if strings.Contains(name, "escape") {
			t.Errorf("%s was written", name)
		}
	}
}

func TestUnpackCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := unpack(t, ctx, synth.Deb(t, synth.File{Name: "boot/vmlinuz-1"}))
	if err == nil {
		t.Error("got no error from a cancelled context")
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(synth.Deb(f, synth.File{Name: "boot/vmlinuz-1", Data: []byte("i")}, synth.File{Name: "boot/config-1"}, synth.File{Name: "lib/modules/1/a.ko", Data: []byte("m")}))
	f.Add(synth.Ar(synth.File{Name: "data.tar", Data: synth.Tar(f, synth.File{Name: "boot/vmlinuz-1"})}))
	f.Add(synth.Ar(synth.File{Name: "data.tar.zst", Data: synth.Zstd(synth.Tar(f, synth.File{Name: "usr/lib/modules/1/dtb/a/b.dtb"}))}))
	for _, c := range []string{"gzip", "xz", "zstd"} {
		f.Add(rpmOf(f, c, fedora()...))
	}
	f.Fuzz(func(t *testing.T, deb []byte) {
		// A tar inside an unpacked gzip may be large; keep the fuzzer quick.
		if len(deb) > 1<<16 {
			return
		}
		dir, _, _ := unpack(t, t.Context(), deb)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !slices.Contains([]string{"vmlinuz", "config", "dtb", "modules.zip"}, e.Name()) {
				t.Errorf("%s was written", e.Name())
			}
		}
	})
}
