package busybox

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"labctl/host/arch"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
)

func TestApplets(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		want          []string
		err           string
	}{
		{"table", "\x7fELF junk\x82[\x00[[\x00ash\x00cat\x00vi\x00\x00more", []string{"[", "[[", "ash", "cat", "vi"}, ""},
		{"table after something like one", "[\x00[[\x00Not a name\x00..[\x00[[\x00cat\x00\x00", []string{"[", "[[", "cat"}, ""},
		{"none", "\x7fELF\x00cat\x00", nil, "no table"},
		{"not sorted", "[\x00[[\x00vi\x00cat\x00\x00", nil, "no table"},
		{"no end", "[\x00[[\x00cat", nil, "no table"},
		{"a path", "[\x00[[\x00a/../../b\x00\x00", nil, "no table"},
		{"a long name", "[\x00[[\x00" + strings.Repeat("a", 100) + "\x00\x00", nil, "no table"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Applets([]byte(tt.program))
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Applets = %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzApplets(f *testing.F) {
	f.Add([]byte("[\x00[[\x00ash\x00cat\x00\x00"))
	f.Add([]byte("[\x00[[\x00[\x00[[\x00"))
	f.Fuzz(func(t *testing.T, program []byte) {
		names, err := Applets(program)
		if (err == nil) != (len(names) > 2) || !slices.IsSorted(names) {
			t.Errorf("Applets = %q, %v", names, err)
		}
		for _, name := range names {
			if strings.ContainsAny(name, "/\x00\n ") || name == "." || name == ".." {
				t.Errorf("name %q", name)
			}
		}
	})
}

// archive is a package archive with one package, or with none.
type archive struct {
	file   string
	pkg    debian.Package
	err    error
	lookup int
	drops  int
}

func (a *archive) Lookup(context.Context, string, string, func(debian.Progress)) (debian.Package, error) {
	a.lookup++
	return a.pkg, a.err
}

func (a *archive) Download(context.Context, []debian.Package, func(debian.Progress)) ([]string, error) {
	return []string{a.file}, nil
}

func (a *archive) Drop() error { a.drops++; return nil }

func open(t *testing.T, from repository) *Store {
	return &Store{dir: filepath.Join(t.TempDir(), "busybox"), root: func(Source, arch.Arch) repository { return from }}
}

var from = Source{Suite: "trixie", Component: "main", Package: "busybox-static", File: "usr/bin/busybox"}

// TestRefused: a host without a way to busybox is not asked again for a while, unless it
// is given another mirror.
func TestRefused(t *testing.T) {
	t.Setenv("LABCTL_DEBIAN_MIRROR", "")
	a := &archive{err: errors.New("no mirror")}
	s := open(t, a)
	for i := range 2 {
		_, err := s.Get(t.Context(), from, "amd64", func(debian.Progress) {})
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.HasSuffix(err.Error(), []string{"no busybox for amd64: no mirror", ": no mirror"}[i]) || strings.Count(err.Error(), "no busybox") != 1 || outcome.Of(err) != outcome.HostLacks {
			t.Fatalf("Get = %v (%s); want a RefusedError", err, outcome.Of(err))
		}
	}
	if a.lookup != 1 {
		t.Errorf("asked %d times; want 1", a.lookup)
	}
	t.Setenv("LABCTL_DEBIAN_MIRROR", "http://mirror.example/debian")
	if _, err := s.Get(t.Context(), from, "amd64", func(debian.Progress) {}); err == nil || a.lookup != 2 {
		t.Errorf("Get with another mirror = %v, asked %d times; want 2", err, a.lookup)
	}
}

// TestGet gets the real one from the host's mirror, if it is not in the cache, and
// compares its table with what it says itself.
func TestGet(t *testing.T) {
	if _, ok := arch.Find(runtime.GOARCH); !ok {
		t.Skipf("no guest has the host's architecture, %s", runtime.GOARCH)
	}
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	box, err := s.Get(t.Context(), from, runtime.GOARCH, func(p debian.Progress) { t.Log(p) })
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(box.Path)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Applets(data)
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), box.Path, "--list")
	list.Args[0] = "busybox" // which it looks at
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields(string(out)); !slices.Equal(names, want) {
		t.Errorf("Applets = %q; want %q", names, want)
	}
	// One that was changed is not used.
	moved := open(t, &archive{err: errors.New("no mirror")})
	if err := os.CopyFS(moved.dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	a, _ := arch.Find(runtime.GOARCH)
	path := moved.program(a, box.Package)
	if b := moved.cached(from, a); b == nil || b.Path != path {
		t.Fatalf("a copy of the store has %v; want %s", b, path)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Second)
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	if _, err := moved.Get(t.Context(), from, a.Name, func(debian.Progress) {}); err == nil || !strings.Contains(err.Error(), "no mirror") {
		t.Errorf("Get of a changed program = %v; want it to be fetched again", err)
	}
}

func TestCheck(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	native, _ := arch.Find(runtime.GOARCH)
	other := arch.All[0]
	if other.Machine == native.Machine {
		other = arch.All[1]
	}
	for _, tt := range []struct {
		name string
		data []byte
		arch arch.Arch
		want string
	}{
		{"not ELF", []byte("#!/bin/sh\n"), native, "read the program"},
		{"another architecture", self, other, "the program is for " + elf.Machine(native.Machine).String()},
		{"too large", make([]byte, maxProgram+1), native, "too large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := check(tt.data, tt.arch); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check = %v; want an error with %q", err, tt.want)
			}
		})
	}
}
