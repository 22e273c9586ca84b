package cachedir

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSeal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(path string) error
		want   bool
	}{
		{"as it was", func(string) error { return nil }, true},
		{"touched", func(p string) error { return os.Chtimes(p, time.Now(), time.Now()) }, true},
		{"copied", func(p string) error {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return os.WriteFile(p, b, 0o600)
		}, true},
		{"another byte", func(p string) error { return os.WriteFile(p, []byte("programx"), 0o600) }, false},
		{"cut", func(p string) error { return os.Truncate(p, 3) }, false},
		{"gone", os.Remove, false},
		{"no seal", func(p string) error { return os.Remove(p + SealSuffix) }, false},
		{"half a seal", func(p string) error { return os.Truncate(p+SealSuffix, 20) }, false},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte("program1"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Seal(path); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path+SealSuffix, old, old); err != nil {
			t.Fatal(err)
		}
		if err := tt.change(path); err != nil {
			t.Fatal(err)
		}
		if got := Sealed(path); got != tt.want {
			t.Errorf("%s: sealed %v, want %v", tt.name, got, tt.want)
		}
		if fi, err := os.Stat(path + SealSuffix); tt.want && (err != nil || time.Since(fi.ModTime()) > time.Minute) {
			t.Errorf("%s: the use is not noted: %v, %v", tt.name, fi, err)
		}
	}
}
