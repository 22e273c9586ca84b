package initramfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"labctl/host/cachedir"
)

// The output of go env is cached for as long as nothing that it depends on changes.
func TestAskGo(t *testing.T) {
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	c := cache{dir: t.TempDir()}
	ask := func(path string) goEnv {
		t.Helper()
		env, err := askGo(t.Context(), c, path, c.dir)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	kept := func() []string {
		names, err := filepath.Glob(filepath.Join(c.dir, "goenv-*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	t.Setenv("GOAMD64", "v1")
	first := ask(path)
	if first.GOVERSION == "" || first.GOROOT == "" || first.GOAMD64 != "v1" || len(kept()) != 1 {
		t.Fatalf("first answer %+v, %d kept; want version, root, v1, 1 kept", first, len(kept()))
	}
	// Modify the cached result to check that it is used.
	if err := os.WriteFile(kept()[0], []byte(`{"GOVERSION":"kept","GOROOT":"`+first.GOROOT+`"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ask(path).GOVERSION; got != first.GOVERSION {
		t.Errorf("after somebody else wrote to the kept answer: version %q, want a fresh one, %q", got, first.GOVERSION)
	}
	if err := os.WriteFile(kept()[0], []byte(`{"GOVERSION":"kept","GOROOT":"`+first.GOROOT+`"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cachedir.Seal(kept()[0], ""); err != nil {
		t.Fatal(err)
	}
	if got := ask(path).GOVERSION; got != "kept" {
		t.Errorf("second answer: version %q, want the kept one", got)
	}
	t.Setenv("GOAMD64", "v2")
	if got := ask(path); got.GOVERSION != first.GOVERSION || got.GOAMD64 != "v2" {
		t.Errorf("with GOAMD64=v2: %+v, want a fresh answer", got)
	}
	n := len(kept())
	script := filepath.Join(c.dir, "go")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+path+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := ask(script); got.GOVERSION != first.GOVERSION || len(kept()) != n {
		t.Errorf("a script: %+v with %d kept, want a fresh answer and %d kept", got, len(kept()), n)
	}
}
