package compile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"labctl/host/cachedir"
)

func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

// mine is what a learner hands in.
func mine(pairs ...string) Source {
	return Source{FS: files(pairs...), Shown: "sub/mine", Name: "exercise"}
}

func cacheIn(t *testing.T) string {
	t.Helper()
	cache := t.TempDir()
	t.Setenv("LABCTL_CACHE", cache)
	return filepath.Join(cache, "programs")
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), cachedir.SealSuffix) {
			out = append(out, e.Name())
		}
	}
	return out
}

// output runs a program of this host's architecture.
func output(t *testing.T, b Built) string {
	t.Helper()
	if b.Err != nil {
		t.Fatal(b.Err)
	}
	out, err := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd())).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestGo(t *testing.T) {
	dir := cacheIn(t)
	src := mine("main.go", "package main\n\nfunc main() { println(1) }\n", "main_test.go", "not Go", "go.mod", "module evil\nreplace x => /etc\n", "notes", "x")
	b := Go(t.Context(), src, runtime.GOARCH)
	defer b.Close()
	if got := output(t, b); got != "1\n" || b.Argv0 != "/run/labctl/exercise" {
		t.Errorf("program %+v says %q", b.Program, got)
	}
	if kept := names(t, dir); len(kept) != 1 {
		t.Errorf("%s holds %v; want one program", dir, kept)
	}

	// It is there without a compiler, and only as long as its source is the same.
	t.Setenv("GOROOT", os.Getenv("GOROOT"))
	t.Setenv("GOCACHE", "off") // go build ends with an error
	again := Go(t.Context(), src, runtime.GOARCH)
	defer again.Close()
	if got := output(t, again); got != "1\n" {
		t.Errorf("the program that was kept says %q", got)
	}
	src.FS.(fstest.MapFS)["more.go"] = &fstest.MapFile{Data: []byte("package main\n")}
	if other := Go(t.Context(), src, runtime.GOARCH); other.Err == nil {
		t.Error("another source is the same program")
		other.Close()
	}

	// Whoever has it open keeps it.
	shrink(dir, 0)
	if kept := names(t, dir); len(kept) != 0 {
		t.Errorf("%s holds %v; want nothing", dir, kept)
	}
	if got := output(t, b); got != "1\n" {
		t.Errorf("the program that was removed says %q", got)
	}
}

// TestMany: one that does not compile spoils no other, and the words are its own.
func TestMany(t *testing.T) {
	dir := cacheIn(t)
	say := func(what string) string { return "package main\n\nfunc main() { println(" + what + ") }\n" }
	all := []Source{mine("main.go", say("1")), mine("main.go", say("2")), mine("main.go", say("x")), mine("a", "b"), mine("main.go", "package x\n")}
	all[1].Name = "2/exercise"
	out := Many(t.Context(), all[:2], runtime.GOARCH)
	for i, b := range out {
		defer b.Close()
		if got, want := output(t, b), fmt.Sprintln(i+1); got != want {
			t.Errorf("program %d says %q; want %q", i, got, want)
		}
	}
	if out[1].Argv0 != "/run/labctl/2/exercise" {
		t.Errorf("program 2 is %s", out[1].Argv0)
	}
	shrink(dir, 0)
	for i, b := range Many(t.Context(), all, runtime.GOARCH) {
		defer b.Close()
		want := []string{"", "", "sub/mine/main.go:3:23: ", "there is no Go source in it", "want package main"}[i]
		if want == "" && b.Err != nil || want != "" && (b.Err == nil || !strings.Contains(b.Err.Error(), want)) {
			t.Errorf("program %d: %v; want %q", i, b.Err, want)
		}
	}
	if kept := names(t, dir); len(kept) != 2 {
		t.Errorf("%s holds %v; want two programs", dir, kept)
	}
}

// TestShrink: the least recently used go first.
func TestShrink(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"old", "new", "middle"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
			t.Fatal(err)
		}
		age := []time.Duration{3, 1, 2}[i] * time.Hour
		if err := os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	shrink(dir, 250)
	if got := strings.Join(names(t, dir), " "); got != "middle new" {
		t.Errorf("left are %s; want middle new", got)
	}
}

func TestErrors(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	cache := cacheIn(t)
	t.Setenv("GOFLAGS", "-mod=mod -modcacherw")
	for _, tt := range []struct {
		name string
		src  fstest.MapFS
		want []string
	}{
		{"type error", files("main.go", "package main\n\nfunc main() { undefined() }\n"), []string{"sub/mine does not compile", "sub/mine/main.go:3:15: "}},
		{"syntax", files("a b.go", "package main\n", "main.go", "package main\nfunc main( {\n"), []string{"sub/mine/main.go:2"}},
		{"module", files("main.go", "package main\n\nimport _ \"example.com/x\"\n\nfunc main() {}\n"), []string{"sub/mine/main.go:3", "example.com/x"}},
		{"no main", files("x.go", "package x\n"), []string{"want package main"}},
		{"none", files("readme", "x"), []string{"sub/mine: there is no Go source in it"}},
		{"cgo", files("main.go", "package main\n\nimport \"C\"\n\nfunc main() {}\n"), []string{"sub/mine"}},
		{"embedded file", files("main.go", "package main\n\nimport _ \"embed\"\n\n//go:embed /etc/passwd\nvar s string\n\nfunc main() { println(s) }\n"), []string{"sub/mine/main.go:5"}},
		{"too much", files("main.go", "package main\n//"+strings.Repeat("x", maxBytes)), []string{"more than"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Go(t.Context(), Source{tt.src, "sub/mine", "exercise"}, runtime.GOARCH).Err
			if err == nil {
				t.Fatal("Go = nil; want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Go = %v; want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), temp) || strings.Contains(err.Error(), cache) {
				t.Errorf("Go = %v; it names a temporary folder", err)
			}
		})
	}
	if left := append(names(t, temp), names(t, cache)...); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
