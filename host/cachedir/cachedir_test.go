package cachedir

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"labctl/host/outcome"
)

func TestDir(t *testing.T) {
	t.Setenv(Env, "rel")
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Dir(); err != nil || got != filepath.Join(wd, "rel") {
		t.Errorf("Dir() = %q, %v; want it absolute", got, err)
	}
	t.Setenv(Env, "")
	t.Setenv("XDG_CACHE_HOME", "/c")
	if got, err := Dir(); err != nil || got != "/c/labctl" {
		t.Errorf("Dir() = %q, %v; want /c/labctl", got, err)
	}
}

func TestRemember(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	t.Setenv(Env, dir)
	var got map[string]int
	if Recall("x.json", &got) {
		t.Error("Recall of nothing = true, want false")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := Remember("x.json", map[string]int{"a": 1}); err != nil {
					t.Error(err)
				}
				var v map[string]int
				if !Recall("x.json", &v) || v["a"] != 1 {
					t.Errorf("Recall = %v, want a whole note", v)
				}
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%s holds %v, %v; want the note alone", dir, entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if Recall("x.json", &got) {
		t.Error("Recall of half a note = true, want false")
	}
}

// TestMake: a cache that cannot be created is HostLacks, whatever the system's error,
// and the error says what to do.
func TestMake(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/proc/labctl", "/sys/labctl", filepath.Join(file, "x")} {
		err := Make(dir, 0o755)
		if outcome.Of(err) != outcome.HostLacks || !strings.Contains(err.Error(), "set "+Env) {
			t.Errorf("Make(%s) = %v (%s); want %q with a remedy", dir, err, outcome.Of(err), outcome.HostLacks)
		}
	}
	if err := Make(filepath.Join(t.TempDir(), "a", "b"), 0o755); err != nil {
		t.Error(err)
	}
}
