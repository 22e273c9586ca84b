package cachedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSeal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(path string) error
		want   error
	}{
		{"as it was", func(string) error { return nil }, nil},
		{"touched", func(p string) error { return os.Chtimes(p, time.Now(), time.Now()) }, nil},
		{"copied", func(p string) error {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return os.WriteFile(p, b, 0o600)
		}, nil},
		{"another byte", func(p string) error { return os.WriteFile(p, []byte("programx"), 0o600) }, ErrChanged},
		{"cut", func(p string) error { return os.Truncate(p, 3) }, ErrChanged},
		{"gone", os.Remove, ErrNoSeal},
		{"no seal", func(p string) error { return os.Remove(p + SealSuffix) }, ErrNoSeal},
		{"half a seal", func(p string) error { return os.Truncate(p+SealSuffix, 20) }, ErrNoSeal},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte("program1"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Seal(path, "image"); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path+SealSuffix, old, old); err != nil {
			t.Fatal(err)
		}
		if err := tt.change(path); err != nil {
			t.Fatal(err)
		}
		if err := Check(path, "image"); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err := Check(path, "another"); !errors.Is(err, ErrNoSeal) {
			t.Errorf("%s, made from something else: %v, want %v", tt.name, err, ErrNoSeal)
		}
		if fi, err := os.Stat(path + SealSuffix); tt.want == nil && (err != nil || time.Since(fi.ModTime()) > time.Minute) {
			t.Errorf("%s: the use is not noted: %v, %v", tt.name, fi, err)
		}
	}
}

// FuzzSeal puts anything in place of a seal: a file passes only with its own checksum.
func FuzzSeal(f *testing.F) {
	name := filepath.Join(f.TempDir(), "file")
	if err := os.WriteFile(name, []byte("contents"), 0o600); err != nil {
		f.Fatal(err)
	}
	if err := Seal(name, "x"); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(name + SealSuffix)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"from":"x","sha256":"d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8","size":8}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, seal []byte) {
		dir := t.TempDir()
		at := filepath.Join(dir, "file")
		for name, b := range map[string][]byte{at: []byte("other contents"), at + SealSuffix: seal} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256([]byte("other contents"))
		if err := Check(at, "x"); err == nil && !strings.Contains(strings.ToLower(string(seal)), hex.EncodeToString(sum[:])) {
			t.Errorf("passes with the seal %q", seal)
		}
		if _, err := CheckSealed(dir); err != nil {
			t.Error(err)
		}
	})
}
