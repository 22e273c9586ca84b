package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/targets"
)

// TestBareHost examines a host without QEMU, go and apt.
func TestBareHost(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cache := filepath.Join(t.TempDir(), "cache")
	t.Setenv("LABCTL_CACHE", cache)
	found := map[string]Finding{}
	for _, f := range Examine(t.Context(), true) {
		if _, twice := found[f.What]; twice || f.Seen == "" {
			t.Errorf("%+v: it is there twice, or says nothing", f)
		}
		found[f.What] = f
	}
	for _, m := range targets.All {
		if f := found[m.Binary]; f.OK || f.Seen != "not found" || !strings.HasSuffix(f.Remedy, "apt-get install "+m.Package) {
			t.Errorf("%s: %+v; want it lacking, with Debian's package", m.Binary, f)
		}
	}
	for what, ok := range map[string]bool{"go": false, "kernel downloads": false, "cached kernels": true} {
		if f := found[what]; f.What != what || f.OK != ok || !ok && f.Remedy == "" {
			t.Errorf("%s: %+v; want ok %t, and a remedy when it is not", what, f, ok)
		}
	}
	if f, tried := found["acceleration"]; tried {
		t.Errorf("acceleration without a QEMU: %+v", f)
	}
	if !strings.Contains(found["disk"].Seen, cache) {
		t.Errorf("disk: %q; want the cache's, %s", found["disk"].Seen, cache)
	}
}

// TestNoCache: what the cache is examined for is one finding when there is none.
func TestNoCache(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("LABCTL_CACHE", "/proc/self/nothing")
	all := Examine(t.Context(), false)
	if last := all[len(all)-1]; last.What != "cache" || last.OK || last.Seen == "" {
		t.Errorf("the last finding is %+v; want a cache that cannot be opened", last)
	}
}
