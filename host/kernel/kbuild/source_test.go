package kbuild

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labctl/host/kernel"
)

func TestParseSource(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"linux.tar.xz": "", "notes.txt": ""})
	for _, tt := range []struct {
		in   string
		want Source
	}{
		{"debian:6.12", Source{Debian: kernel.Ref{Suite: "trixie", Series: "6.12"}}},
		{"debian:trixie", Source{Debian: kernel.Ref{Suite: "trixie"}}},
		{dir, Source{Path: dir}},
		{filepath.Join(dir, "linux.tar.xz"), Source{Path: filepath.Join(dir, "linux.tar.xz")}},
	} {
		if got, err := ParseSource(tt.in); err != nil || got != tt.want {
			t.Errorf("ParseSource(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"6.12", "for Debian's source use --source debian:6.12"},
		{"debian:6.13", "is not known"},
		{"debian:6.12.107+deb13-amd64", "is not known"},
		{filepath.Join(dir, "gone"), "no such file"},
		{filepath.Join(dir, "notes.txt"), "or a tarball (.tar, .tar.xz"},
	} {
		if got, err := ParseSource(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseSource(%q) = %+v, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestCheckTree(t *testing.T) {
	good := map[string]string{"Makefile": "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 107\nEXTRAVERSION =\n", "Kconfig": "", "scripts/kconfig/merge_config.sh": "", "init/main.c": ""}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"good", good, ""},
		{"empty", nil, "not a kernel tree: no file Makefile"},
		{"built in place", with(good, ".config", ""), "clean it first: make -C "},
	} {
		dir := t.TempDir()
		writeTree(t, dir, tt.files)
		err := checkTree(dir)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		good["Makefile"]: "6.12.107",
		"VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc4\nNAME = x\n": "7.3.0-rc4",
		"VERSION = $(shell rm)\nPATCHLEVEL = 1\n":                                    "",
		"all:\n": "",
	} {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"Makefile": text})
		got, err := releaseOf(dir)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestHashTree(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1", "b/c": "2", ".git/index": "3"})
	sum := func() string {
		s, err := hashTree(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := sum()
	writeTree(t, dir, map[string]string{".git/index": "other"})
	if sum() != first {
		t.Error("what git keeps for itself changes the hash")
	}
	if err := os.Chtimes(filepath.Join(dir, "b/c"), time.Now(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	second := sum()
	if second == first {
		t.Error("a file that was written anew does not change the hash")
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	if sum() == second {
		t.Error("a file of another name does not change the hash")
	}
}

func TestUntar(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, text := range map[string]string{"linux-1/Makefile": "VERSION = 6\nPATCHLEVEL = 1\n", "linux-1/Kconfig": "", "linux-1/scripts/kconfig/merge_config.sh": "", "linux-1/init/main.c": ""} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"good.tar": buf.String(), "short.tar": buf.String()[:700], "not.tar": strings.Repeat("x", 4096)})
	b := newBuilder(t, t.TempDir())
	for range 2 { // the second finds it unpacked
		tr, err := b.open(t.Context(), Source{Path: filepath.Join(dir, "good.tar")}, false)
		if err != nil {
			t.Fatal(err)
		}
		if tr.source.Kind != "tarball" || tr.source.Release != "6.1" || len(tr.source.Hash) != 64 {
			t.Errorf("got %+v", tr.source)
		}
	}
	for _, bad := range []string{"short.tar", "not.tar"} {
		if _, err := b.open(t.Context(), Source{Path: filepath.Join(dir, bad)}, false); err == nil {
			t.Errorf("%s was taken for a kernel", bad)
		}
	}
	left, err := filepath.Glob(filepath.Join(b.sources, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestPipe(t *testing.T) {
	for _, tt := range []struct {
		cmds []*exec.Cmd
		want string
	}{
		{[]*exec.Cmd{exec.Command("sh", "-c", "echo x"), exec.Command("grep", "-q", "x")}, ""},
		{[]*exec.Cmd{exec.Command("sh", "-c", "echo broken >&2; exit 3"), exec.Command("cat")}, "sh: exit status 3: broken"},
		{[]*exec.Cmd{exec.Command("sh", "-c", "echo 'write: No space left on device' >&2; exit 1")}, "sh: no space left on device"},
		{[]*exec.Cmd{exec.Command("true"), exec.Command("no-such-program")}, "not found"},
	} {
		err := pipe(t.Context(), tt.cmds...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %q", tt.cmds, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if err := pipe(ctx, exec.Command("sleep", "1000")); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}
