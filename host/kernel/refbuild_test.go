package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// putBuild stores a kernel as a build does.
func putBuild(t *testing.T, c *Cache, name, arch, release string) {
	t.Helper()
	dir := filepath.Join(c.buildDir(), name+"-"+arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, imageFile), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	sum, err := hashFile(filepath.Join(dir, imageFile))
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{Source: KindBuild, Arch: arch, Release: release, Series: seriesOf(release), Files: map[string]File{imageFile: sum}}
	if err := writeJSON(filepath.Join(dir, metaFile), k); err != nil {
		t.Fatal(err)
	}
}

func TestBuildRefs(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	lab := Ref{Build: "lab"}
	if _, err := c.Get(t.Context(), lab, "arm64", nil); !errors.Is(err, ErrNotCached) || !strings.Contains(err.Error(), "labctl kernel build") {
		t.Errorf("Get of a build that is not there: %v", err)
	}
	putBuild(t, c, "lab", "arm64", "6.12.107")
	putBuild(t, c, "lab", "amd64", "6.12.107")
	putBuild(t, c, "lab-arm64", "amd64", "6.12.107")
	for _, arch := range []string{"arm64", "amd64"} {
		k, err := c.Get(t.Context(), lab, arch, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k.Ref != lab || k.Arch != arch || k.String() != "6.12.107 (build:lab)" {
			t.Errorf("Get for %s: %+v, %s", arch, k, k)
		}
	}
	// Neither is confused with a pulled one of its series.
	if _, err := c.Find(trixie, "arm64"); !errors.Is(err, ErrNotCached) {
		t.Errorf("Find %v among builds: %v", trixie, err)
	}
	if _, err := c.Get(t.Context(), trixie, "arm64", nil); err != nil {
		t.Fatal(err)
	}
	if list, err := c.List(); err != nil || len(list) != 4 {
		t.Errorf("List: %v, %v; want 4", list, err)
	}
	rows, err := c.Sources("arm64")
	if last := rows[len(rows)-1]; err != nil || last.Name != "build:lab" || last.Kernel == nil || last.Kernel.Arch != "arm64" {
		t.Errorf("last row of Sources: %+v, %v", last, err)
	}
	if k, err := c.Pull(t.Context(), lab, "arm64", nil); err != nil || k.Ref != lab {
		t.Errorf("Pull of a cached build: %v, %v", k, err)
	}
	k, err := c.Find(lab, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	flipByte(t, k.Image())
	var damaged *CorruptError
	if _, err := c.Get(t.Context(), lab, "arm64", nil); !errors.As(err, &damaged) {
		t.Errorf("Get of a damaged build: %v", err)
	}
	if err := c.Remove(k); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Find(lab, "arm64"); !errors.Is(err, ErrNotCached) {
		t.Errorf("Find after Remove: %v", err)
	}
}
