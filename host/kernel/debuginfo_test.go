package kernel

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"labctl/host/outcome"
)

// TestSetDebuginfo refuses what is not a vmlinux of the kernel.
func TestSetDebuginfo(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("not ELF"), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // a program, of no kernel
	if err != nil {
		t.Fatal(err)
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	for _, c := range []struct{ path, arch, want string }{
		{filepath.Join(dir, "none"), runtime.GOARCH, "no such file"},
		{dir, runtime.GOARCH, "not a regular file"},
		{plain, runtime.GOARCH, "not an ELF file"},
		{self, other, "not for " + other},
		{self, runtime.GOARCH, "--debuginfo "}, // it has no types, or the kernel no image
	} {
		k := &Kernel{Arch: c.arch, Release: "6.12.0-none"}
		err := k.SetDebuginfo(c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) || outcome.Of(err) != outcome.BadInput || k.TypesFrom() != TypesNone {
			t.Errorf("SetDebuginfo(%s) for %s = %v (%s), want %s", c.path, c.arch, err, outcome.Of(err), c.want)
		}
	}
}
