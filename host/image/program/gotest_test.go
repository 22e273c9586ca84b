package program

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTests(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		want    []string
		err     string
	}{
		{"labctl/host/usage", []string{"labctl/host/usage"}, ""},
		{"../../vm/agent/...", []string{"labctl/host/vm/agent"}, ""},
		{"../../../guest/cmd/labguest", nil, ""}, // a main without tests
		{"./nowhere", nil, "go list ./nowhere: "},
	} {
		got, err := Tests(t.Context(), tt.pattern, "arm64")
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Tests(%s) = %q, %v; want %q, %q", tt.pattern, got, err, tt.want, tt.err)
		}
	}
}

func TestBuildTest(t *testing.T) {
	p, dir, err := BuildTest(t.Context(), "labctl/host/usage", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want, err := filepath.Abs("../../usage")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Test || p.Argv0 != "/run/labctl/usage.test" || dir != want {
		t.Errorf("BuildTest = %+v in %s; want usage.test in %s", p, dir, want)
	}
	if fi, err := os.Stat(p.File); err != nil || fi.Size() < 1<<20 {
		t.Errorf("its file is %v, %v", fi, err)
	}
	for pkg, want := range map[string]string{"labctl/guest/cmd/labguest": "builds 0 programs", "labctl/nowhere": "go list labctl/nowhere: "} {
		if _, _, err := BuildTest(t.Context(), pkg, "arm64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("BuildTest(%s) = %v; want %q", pkg, err, want)
		}
	}
}
