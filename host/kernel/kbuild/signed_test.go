package kbuild

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"labctl/host/kernel/internal/synth"
	"labctl/host/outcome"
)

// TestSignedBy holds tarballs against signatures as kernel.org makes them, of the archive
// before its compression, and of files as they are.
func TestSignedBy(t *testing.T) {
	good, other := synth.NewKey(t, &packet.Config{}), synth.NewKey(t, &packet.Config{})
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(key *openpgp.Entity, data []byte, armored bool) []byte {
		t.Helper()
		var b bytes.Buffer
		make := openpgp.DetachSign
		if armored {
			make = openpgp.ArmoredDetachSign
		}
		if err := make(&b, key, bytes.NewReader(data), nil); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	keys := func(name string, key *openpgp.Entity) string {
		t.Helper()
		var b bytes.Buffer
		w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
		if err == nil {
			err = key.Serialize(w)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return write(name, b.Bytes())
	}
	trusted, stranger := keys("good.asc", good), keys("other.asc", other)
	tar := synth.Tar(t, synth.File{Name: "linux-6.12/Makefile", Data: []byte("VERSION = 6\n")})
	gz := synth.Gzip(tar)

	kernelOrg := write("linux-6.12.tar.gz", gz)
	write("linux-6.12.tar.sign", sign(good, tar, true))
	asIs := write("vendor.tar.gz", gz)
	write("vendor.tar.gz.sig", sign(good, gz, false))
	altered := write("altered.tar.gz", synth.Gzip(append(bytes.Clone(tar[:len(tar)-1]), 1)))
	write("altered.tar.sign", sign(good, tar, true))
	short := write("short.tar.gz", gz[:len(gz)-4])
	write("short.tar.sign", sign(good, tar, true))
	bare := write("bare.tar.gz", gz)
	odd := write("odd.tar.gz", gz)
	write("odd.tar.sign", []byte("not a signature"))

	for _, path := range []string{kernelOrg, asIs} {
		by, err := signedBy(path, trusted)
		if err != nil || !strings.HasPrefix(by, "test archive") {
			t.Errorf("%s: got %q, %v; want its signer", path, by, err)
		}
	}
	for _, tt := range []struct{ path, keyring, want string }{
		{kernelOrg, stranger, "it is not signed by a key in " + stranger + ", but by "},
		{altered, trusted, "it is not what "},
		{short, trusted, "cut short"},
		{bare, trusted, "there is no signature beside it"},
		{odd, trusted, "signature "},
		{kernelOrg, filepath.Join(dir, "none.asc"), "no such file"},
		{kernelOrg, odd, "read keyring"},
	} {
		by, err := signedBy(tt.path, tt.keyring)
		if err == nil || !strings.Contains(err.Error(), tt.want) || outcome.Of(err) != outcome.BadInput || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s by %s: got %q, %v (%v); want one line with %q, of bad input", tt.path, tt.keyring, by, err, outcome.Of(err), tt.want)
		}
	}
	if src, err := ParseSource("tar:" + kernelOrg); err != nil || src != (Source{Path: kernelOrg, Signed: true}) {
		t.Errorf("ParseSource: %+v, %v", src, err)
	}
	if _, err := ParseSource("tar:" + dir); err == nil {
		t.Error("a directory is taken for a signed tarball")
	}
	b := &Builder{Say: func(string) {}, sources: t.TempDir()}
	if _, err := b.open(t.Context(), Source{Path: altered, Signed: true, Keyring: trusted}, false); err == nil {
		t.Error("an altered tarball is opened")
	}
	if left, _ := os.ReadDir(b.sources); len(left) > 0 {
		t.Errorf("of a tarball that was refused there is %v", left)
	}
}

// FuzzSigned: no signature, and no keyring, of whatever bytes, is taken for one of a key.
func FuzzSigned(f *testing.F) {
	key := synth.NewKey(f, &packet.Config{})
	var sig bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&sig, key, strings.NewReader("x"), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(sig.Bytes(), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, signature, keyring []byte) {
		dir := t.TempDir()
		tarball, keys := filepath.Join(dir, "x.tar"), filepath.Join(dir, "keys")
		for file, data := range map[string][]byte{tarball: []byte("other"), tarball + ".sign": signature, keys: keyring} {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if by, err := signedBy(tarball, keys); err == nil {
			t.Errorf("signed by %q", by)
		}
	})
}
