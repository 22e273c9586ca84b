package debian

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/rpmpack"

	"labctl/host/kernel/internal/synth"
)

// rpmOf is a package with some files, compressed in one of rpm's ways.
func rpmOf(t testing.TB, compressor string, files ...synth.File) []byte {
	t.Helper()
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "kernel-core", Version: "6.1", Release: "1", Arch: "x86_64", Compressor: compressor})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		r.AddFile(rpmpack.RPMFile{Name: "/" + f.Name, Body: f.Data, Mode: 0o100644, Owner: "root", Group: "root"})
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fedora() []synth.File {
	m := "lib/modules/" + rel + "/"
	return []synth.File{
		{Name: m + "System.map", Data: []byte("no use")},
		{Name: m + "config", Data: []byte("CONFIG_A=y\n")},
		{Name: m + "kernel/a.ko.xz", Data: []byte("module a")},
		{Name: m + "modules.builtin", Data: []byte("kernel/c.ko\n")},
		{Name: m + "vmlinuz", Data: []byte("image")},
	}
}

func TestUnpackRPM(t *testing.T) {
	want := map[string]string{"vmlinuz": "image", "config": "CONFIG_A=y\n", "stored:kernel/a.ko.xz": "module a", "zip:modules.builtin": "kernel/c.ko\n"}
	for _, compressor := range []string{"gzip", "xz", "zstd"} {
		b := rpmOf(t, compressor, fedora()...)
		dir, tree, err := unpack(t, t.Context(), b)
		if err != nil {
			t.Fatalf("%s: %v", compressor, err)
		}
		if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", compressor, diff)
		}
		if *tree != (Tree{rel, 1, 0}) {
			t.Errorf("%s: got %+v", compressor, *tree)
		}
	}
	// Files of the image in one package, modules in another, of another kind even.
	f := fedora()
	dir, _, err := unpack(t, t.Context(), rpmOf(t, "zstd", f[0], f[1], f[4]), synth.Deb(t, f[2], f[3]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Errorf("files of two packages (-want +got):\n%s", diff)
	}
}

func TestUnpackRPMRefuses(t *testing.T) {
	whole := rpmOf(t, "zstd", fedora()...)
	header := bytes.Index(whole, []byte(rpmHeaderMagic))
	for name, tt := range map[string]struct {
		edit func([]byte) []byte
		want string
	}{
		"lead alone":      {func(b []byte) []byte { return b[:50] }, "its lead is cut"},
		"no header":       {func(b []byte) []byte { return b[:rpmLead+4] }, "signatures: unexpected EOF"},
		"another header":  {func(b []byte) []byte { b[header] = 0; return b }, "signatures: it begins with 00"},
		"header of 64 GB": {func(b []byte) []byte { binary.BigEndian.PutUint32(b[header+8:], 1<<32-1); return b }, "67108864 at most"},
		"cut header":      {func(b []byte) []byte { return b[:header+40] }, "signatures: unexpected EOF"},
		"no files":        {func(b []byte) []byte { return b[:bytes.Index(b, []byte("\x28\xb5\x2f\xfd"))] }, "it has no files"},
		"cut files":       {func(b []byte) []byte { return b[:len(b)-20] }, "read RPM"},
		"bzip2": {func(b []byte) []byte {
			copy(b[bytes.Index(b, []byte("\x28\xb5\x2f\xfd")):], "BZh9")
			return b
		}, "known are gzip, xz, zstd"},
		"no kernel": {func([]byte) []byte { return rpmOf(t, "gzip", synth.File{Name: "usr/bin/x", Data: []byte("x")}) }, "no kernel image"},
	} {
		if _, _, err := unpack(t, t.Context(), tt.edit(bytes.Clone(whole))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}
