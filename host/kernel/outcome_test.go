package kernel

import (
	"os"
	"path/filepath"
	"testing"

	"labctl/host/outcome"
)

// TestOutcomes: the outcomes of kernels that are not available.
func TestOutcomes(t *testing.T) {
	publish := fileProxy(t)
	publish("v1.0.0", map[string][]byte{"go.mod": []byte("module " + testModule + "\n")})
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	get := func(name, arch string) func(*testing.T) error {
		return func(t *testing.T) error {
			ref, err := ParseRef(name)
			if err == nil {
				_, err = c.Get(t.Context(), ref, arch, nil)
			}
			return err
		}
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T) error
		want outcome.Kind
	}{
		{"no such name", get("6,12", "amd64"), outcome.BadInput},
		{"no such file", get("./nonesuch", "amd64"), outcome.BadInput},
		{"a directory without a kernel", get(t.TempDir(), "amd64"), outcome.BadInput},
		{"a text", get(text, "amd64"), outcome.BadInput},
		{"not cached", get("build:nonesuch", "amd64"), outcome.BadInput},
		{"none for the architecture", get("gomod:"+testModule, "arm"), outcome.BadInput},
		{"no such version of a module", get("gomod:"+testModule+"@v9.9.9", "arm64"), outcome.BadInput},
		{"a module without the image", get("gomod:"+testModule, "arm64"), outcome.HostLacks},
		{"no proxy", func(t *testing.T) error {
			t.Setenv("GOPROXY", "off")
			return get("gomod:"+testModule+"@v9.9.9", "arm64")(t)
		}, outcome.HostLacks},
		{"no go", func(t *testing.T) error {
			t.Setenv("PATH", t.TempDir())
			return get("gomod:"+testModule, "arm64")(t)
		}, outcome.HostLacks},
		{"no apt", func(t *testing.T) error {
			t.Setenv("PATH", t.TempDir())
			return get("6.12", "amd64")(t)
		}, outcome.HostLacks},
		{"a cache that cannot be", func(*testing.T) error {
			_, err := Open("/proc/labctl")
			return err
		}, outcome.HostLacks},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do(t)
			if got := outcome.Of(err); got != tt.want {
				t.Errorf("outcome %q of %v, want %q", got, err, tt.want)
			}
		})
	}
}
