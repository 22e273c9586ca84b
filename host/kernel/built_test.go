package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel/internal/synth"
)

// fillArm64 writes the output of an arm64 kernel build.
func fillArm64(release string, types []byte) func(dir string) error {
	return func(dir string) error {
		img := make([]byte, 4096)
		copy(img, "MZ")
		copy(img[56:], "ARM\x64")
		img = append(append(img, synth.Banner(release)...), types...)
		return errors.Join(
			os.WriteFile(filepath.Join(dir, imageFile), img, 0o644),
			os.WriteFile(filepath.Join(dir, configFile), []byte("CONFIG_PROC_FS=y\n"), 0o644))
	}
}

func TestPutBuild(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	built := Built{Key: "k1", Source: BuildSource{Kind: "tree", Path: "/linux", Hash: "h", Release: "6.12.107"}, Profile: "lab", Fragments: []string{"base"}, Compiler: "gcc 12", Objects: 7, Seconds: 1.5}
	k, err := c.PutBuild(t.Context(), "lab", "arm64", built, fillArm64("6.12.107-labctl", testBTF(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&built, k.Build); diff != "" {
		t.Error(diff)
	}
	if k.Release != "6.12.107-labctl" || k.Series != "6.12" || k.Ref != (Ref{Build: "lab"}) || k.Source != KindBuild {
		t.Errorf("got %+v", k)
	}
	if k.Files[btfFile].Size == 0 || !k.HasConfig() {
		t.Error("types and configuration of the image were not kept")
	}
	if found := c.FindBuild("lab", "arm64", "k1"); found == nil || found.Dir != k.Dir {
		t.Errorf("FindBuild: got %v, want %v", found, k)
	}
	for _, miss := range [][3]string{{"lab", "arm64", "k2"}, {"lab", "amd64", "k1"}, {"lap", "arm64", "k1"}} {
		if found := c.FindBuild(miss[0], miss[1], miss[2]); found != nil {
			t.Errorf("FindBuild(%q) = %v, want none", miss, found)
		}
	}
	// A second build replaces it; the objects are kept for the next one.
	_, objects := c.BuildDirs()
	if err := os.MkdirAll(filepath.Join(objects, "lab-arm64"), 0o755); err != nil {
		t.Fatal(err)
	}
	built.Key = "k2"
	k, err = c.PutBuild(t.Context(), "lab", "arm64", built, fillArm64("6.12.108-labctl", nil))
	if err != nil || k.Release != "6.12.108-labctl" || k.Build.Key != "k2" {
		t.Errorf("the second: %v, %v", k, err)
	}
	if !isDir(filepath.Join(objects, "lab-arm64")) {
		t.Error("a new build took the objects away")
	}
	// A damaged build is not found.
	if err := os.WriteFile(k.Image(), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := c.FindBuild("lab", "arm64", "k2"); found != nil {
		t.Errorf("a damaged kernel was found: %v", found)
	}
	if err := c.Remove(k); err != nil {
		t.Fatal(err)
	}
	if isDir(filepath.Join(objects, "lab-arm64")) || isDir(k.Dir) {
		t.Error("Remove left the kernel or its objects")
	}
}

func TestPutBuildFails(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	for _, tt := range []struct {
		name, arch string
		fill       func(string) error
		want       string
	}{
		{"nothing", "arm64", func(string) error { return nil }, "no such file"},
		{"no image", "arm64", func(dir string) error { return os.WriteFile(filepath.Join(dir, imageFile), []byte("x"), 0o644) }, "not a kernel image"},
		{"other arch", "amd64", fillArm64("6.12.1", nil), "is for arm64"},
		{"a full disk", "arm64", func(string) error { return errors.New("no space") }, "no space"},
	} {
		if _, err := c.PutBuild(t.Context(), "lab", tt.arch, Built{}, tt.fill); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	left, err := os.ReadDir(c.buildDir())
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSourcePackage(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	root, name, err := c.SourcePackage(Ref{Suite: "trixie"})
	if err != nil || name != "linux-source-6.12" || root.Suite != "trixie" || root.Component != "main" {
		t.Errorf("got %+v, %q, %v", root, name, err)
	}
	if _, _, err := c.SourcePackage(Ref{Suite: "woody"}); err == nil {
		t.Error("a suite that is not in the list has a source package")
	}
}
