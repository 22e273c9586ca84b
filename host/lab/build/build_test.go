package build

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
)

func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

func TestGo(t *testing.T) {
	src := files("main.go", "package main\n\nfunc main() {}\n", "main_test.go", "not Go", "go.mod", "module evil\nreplace x => /etc\n", "notes", "x")
	p, remove, err := Go(t.Context(), src, "mine", "exercise", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.File); err != nil || p.Argv0 != "/run/labctl/exercise" {
		t.Errorf("program %+v, %v", p, err)
	}
	remove()
	if _, err := os.Stat(filepath.Dir(filepath.Dir(p.File))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", p.File, err)
	}
}

func TestErrors(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("GOFLAGS", "-mod=mod -modcacherw")
	for _, tt := range []struct {
		name string
		src  fstest.MapFS
		want []string
	}{
		{"type error", files("main.go", "package main\n\nfunc main() { undefined() }\n"), []string{"sub/mine does not compile", "sub/mine/main.go:3:15: undefined: undefined"}},
		{"syntax", files("a b.go", "package main\n", "main.go", "package main\nfunc main( {\n"), []string{"sub/mine/main.go:2"}},
		{"module", files("main.go", "package main\n\nimport _ \"example.com/x\"\n\nfunc main() {}\n"), []string{"sub/mine/main.go:3", "example.com/x"}},
		{"no main", files("x.go", "package x\n"), []string{"want package main"}},
		{"none", files("readme", "x"), []string{"sub/mine: there is no Go source in it"}},
		{"cgo", files("main.go", "package main\n\nimport \"C\"\n\nfunc main() {}\n"), []string{"sub/mine"}},
		{"embedded file", files("main.go", "package main\n\nimport _ \"embed\"\n\n//go:embed /etc/passwd\nvar s string\n\nfunc main() { println(s) }\n"), []string{"sub/mine/main.go:5"}},
		{"too much", files("main.go", "package main\n//"+strings.Repeat("x", maxBytes)), []string{"more than"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Go(t.Context(), tt.src, "sub/mine", "exercise", runtime.GOARCH)
			if err == nil {
				t.Fatal("Go = nil; want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Go = %v; want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), temp) {
				t.Errorf("Go = %v; it names a temporary folder", err)
			}
		})
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
