package program

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/cachedir"
	"labctl/host/outcome"
)

// elfFile returns a small 64-bit ELF file with one program header.
func elfFile(machine elf.Machine, kind elf.Type, prog elf.ProgType, content string) []byte {
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(kind), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	p := elf.Prog64{Type: uint32(prog), Off: 64 + 56, Filesz: uint64(len(content)), Memsz: uint64(len(content))}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, p)
	b.WriteString(content)
	return b.Bytes()
}

var elfs = []struct {
	name string
	file []byte
	err  string // for an arm64 guest
}{
	{"static", elfFile(elf.EM_AARCH64, elf.ET_EXEC, elf.PT_LOAD, "x"), ""},
	{"static pie", elfFile(elf.EM_AARCH64, elf.ET_DYN, elf.PT_DYNAMIC, ""), ""},
	{"dynamic", elfFile(elf.EM_AARCH64, elf.ET_DYN, elf.PT_INTERP, "/lib/ld\x1b[2J.so\x00"), "a dynamically linked program, but the guest has no /lib/ld\ufffd[2J.so; build it with CGO_ENABLED=0 or -static"},
	{"amd64", elfFile(elf.EM_X86_64, elf.ET_EXEC, elf.PT_LOAD, "x"), "a program for amd64, but the guest is arm64; build it with GOARCH=arm64, or use --arch amd64"},
	{"other", elfFile(elf.EM_SPARCV9, elf.ET_EXEC, elf.PT_LOAD, "x"), "a program for EM_SPARCV9, but the guest is arm64; build it with GOARCH=arm64"},
	{"object", elfFile(elf.EM_AARCH64, elf.ET_REL, elf.PT_LOAD, "x"), "an ELF file of type ET_REL, not a program"},
	{"script", []byte("#!/bin/sh\necho\n"), "not an ELF program (want one, or a Go package)"},
	{"empty", nil, "not an ELF program (want one, or a Go package)"},
	{"cut", elfFile(elf.EM_AARCH64, elf.ET_EXEC, elf.PT_LOAD, "x")[:70], "not an ELF program (want one, or a Go package)"},
}

func TestCheckELF(t *testing.T) {
	for _, tt := range elfs {
		got := ""
		if err := checkELF(bytes.NewReader(tt.file), "arm64"); err != nil {
			got = err.Error()
		}
		if got != tt.err {
			t.Errorf("%s: checkELF = %q, want %q", tt.name, got, tt.err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := Arch(self); got == "" {
		t.Errorf("Arch(this test) = %q, want a GOARCH", got)
	}
	if got := Arch("program_test.go"); got != "" {
		t.Errorf("Arch(a text) = %q, want none", got)
	}
}

func FuzzCheckELF(f *testing.F) {
	for _, e := range elfs {
		f.Add(e.file)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkELF(bytes.NewReader(b), "arm64"); err != nil && (len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\x1b\n\x00")) {
			t.Errorf("unclean error %q", err)
		}
	})
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(body, "-> "); link {
			err = os.Symlink(to, p)
		} else {
			err = os.WriteFile(p, []byte(body), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	dir, cache := t.TempDir(), t.TempDir()
	t.Setenv(cachedir.Env, cache)
	t.Chdir(dir)
	write(t, dir, map[string]string{
		"go.mod": "module m\n", "cmd/x/main.go": "package main\nfunc main() {}\n", "lib/lib.go": "package lib\n",
		"one.go": "package main\nfunc main() {}\n", "prog": string(elfs[0].file), "pkg.test": string(elfs[0].file),
	})
	for _, tt := range []struct {
		name, argv0, err string
		test             bool
	}{
		{name: "ls", argv0: "ls"},
		{name: "./prog", argv0: "/run/labctl/prog"},
		{name: dir + "/pkg.test", argv0: "/run/labctl/pkg.test", test: true},
		{name: "./cmd/x", argv0: "/run/labctl/x"},
		{name: "cmd/x", argv0: "/run/labctl/x"},
		{name: "m/cmd/x", argv0: "/run/labctl/x"},
		{name: "./one.go", argv0: "/run/labctl/one"},
		{name: "./lib", err: "go build ./lib"},
		{name: "m/none", err: "go build m/none for arm64: "},
		{name: "/bin/no-such", err: "bare name"},
		{name: "./go.mod", err: "./go.mod: not an ELF program"},
		{name: "/dev/null", err: "/dev/null: neither a file nor a directory"},
		{name: "", err: "empty"},
	} {
		p, err := Find(t.Context(), tt.name, "arm64")
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Find(%q) = %v, want %q", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		if p.Argv0 != tt.argv0 || p.Test != tt.test {
			t.Errorf("Find(%q) = %+v, want %q, %v", tt.name, p, tt.argv0, tt.test)
		}
		if p.File != "" && Arch(p.File) != "arm64" {
			t.Errorf("Find(%q) is for %s, want arm64", tt.name, Arch(p.File))
		}
		if left, _ := os.ReadDir(filepath.Join(cache, "build")); len(left) > 0 {
			t.Errorf("Find(%q): %v is left", tt.name, left)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTestOutputs(t *testing.T) {
	dir := t.TempDir()
	file := func(flag, base, host string) Output {
		return Output{Flag: "-test." + flag, Guest: "/labctl/out/" + flag + "/" + base, Host: host, File: true}
	}
	for _, tt := range []struct {
		args, guest string
		want        []Output
	}{
		{"-test.v -test.run=X -x", "", nil},
		{"-test.coverprofile=/tmp/b001/c.out", "-test.coverprofile=/labctl/out/coverprofile/c.out", []Output{file("coverprofile", "c.out", "/tmp/b001/c.out")}},
		{"--test.cpuprofile cpu -test.outputdir " + dir, "--test.cpuprofile /labctl/out/cpuprofile/cpu -test.outputdir /labctl/out", []Output{file("cpuprofile", "cpu", dir+"/cpu")}},
		{"-test.memprofile=m -test.v -test.trace=../t", "-test.memprofile=/labctl/out/memprofile/m -test.v -test.trace=/labctl/out/trace/t",
			[]Output{file("memprofile", "m", dir+"/m"), file("trace", "t", filepath.Dir(dir)+"/t")}},
		{"-test.outputdir=/o -test.testlogfile=log -test.blockprofile=b", "-test.outputdir=/labctl/out -test.testlogfile=/labctl/out/testlogfile/log -test.blockprofile=/labctl/out/blockprofile/b",
			[]Output{file("testlogfile", "log", dir+"/log"), file("blockprofile", "b", "/o/b")}},
		{"-test.gocoverdir=/tmp/cov", "-test.gocoverdir=/labctl/out/gocoverdir", []Output{{Flag: "-test.gocoverdir", Guest: "/labctl/out/gocoverdir", Host: "/tmp/cov", Folder: true}}},
		{"-test.fuzz=Fuzz -test.fuzzcachedir=/c/fuzz/m", "-test.fuzz=Fuzz -test.fuzzcachedir=/labctl/out/fuzzcachedir", []Output{
			{Flag: "-test.fuzzcachedir", Guest: "/labctl/out/fuzzcachedir", Host: "/c/fuzz/m", Folder: true, Corpus: true},
			{Flag: "-test.fuzz", Guest: "/g/testdata/fuzz", Host: dir + "/testdata/fuzz", Folder: true, Corpus: true},
		}},
		{"-test.coverprofile=/dev/null -test.trace= -test.fuzz=", "", nil},
		{"-- -test.coverprofile=/x", "", nil},
		{"test.coverprofile=/x ---test.coverprofile=/x -test.coverprofile", "", nil},
	} {
		args := strings.Fields(tt.args)
		outs, guest := TestOutputs(args, dir, "/g", "")
		if diff := cmp.Diff(tt.want, outs); diff != "" {
			t.Errorf("TestOutputs(%s) (-want +got):\n%s", tt.args, diff)
		}
		want := tt.guest
		if want == "" {
			want = tt.args
		}
		if strings.Join(guest, " ") != want {
			t.Errorf("TestOutputs(%s) gives the guest %q, want %q", tt.args, guest, want)
		}
		if strings.Join(args, " ") != tt.args {
			t.Errorf("TestOutputs changed its arguments to %q", args)
		}
	}
}

// names lists an archive: names, link targets, modes of executables.
func names(t *testing.T, b *Bundle) (out []string) {
	t.Helper()
	var a bytes.Buffer
	if err := writeArchive(&a, b.entries, false); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&a); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		line := h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		} else if h.Typeflag == tar.TypeReg && h.Mode&0o111 != 0 {
			line += "*"
		}
		out = append(out, line)
	}
}

func TestBundle(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a/f": "1", "a/in": "-> f", "a/sub/up": "-> ../f", "a/out": "-> ../b", "a/far": "-> /etc", "a/gone": "-> /no/such", "b": "22",
		"link": "-> a",
	})
	var b Bundle
	b.AddFolder("/made")
	for host, guest := range map[string]string{"link": "/x/a"} {
		if err := b.Add(filepath.Join(dir, host), guest); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.AddProgram(&Program{File: filepath.Join(dir, "b"), Argv0: "/run/b"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"made/", "x/a/", "x/a/f", "x/a/in -> f", "x/a/out", "x/a/sub/", "x/a/sub/up -> ../f", "run/b*"}
	if diff := cmp.Diff(want, names(t, &b)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	if b.Files != 3 || b.Bytes != 5 {
		t.Errorf("%d files of %d bytes, want 3 of 5", b.Files, b.Bytes)
	}
	if err := b.Add("/dev/null", "/n"); err == nil {
		t.Error("Add of a device gave no error")
	}
	// The file shrinks after its size was taken.
	if err := os.Truncate(filepath.Join(dir, "b"), 1); err != nil {
		t.Fatal(err)
	}
	if err := writeArchive(io.Discard, b.entries, false); err == nil || !strings.Contains(err.Error(), "shrank") {
		t.Errorf("Write of a shorter file = %v", err)
	}
}

func TestAddAbove(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"testdata/r": "1", "x/testdata/x": "22", "x/y/testdata/own": "y", "x/x.go": "x", "go.mod": "m", "z/testdata/z": "z",
	})
	dir := filepath.Join(root, "x", "y")
	if got := ModuleRoot(dir); got != root {
		t.Errorf("ModuleRoot(%s) = %s, want %s", dir, got, root)
	}
	if got := ModuleRoot("/proc/self"); got != "/proc/self" {
		t.Errorf("ModuleRoot outside of modules = %s, want the directory itself", got)
	}
	for _, tt := range []struct {
		max  int64
		want []string
	}{
		{100, []string{"w/x/testdata/", "w/x/testdata/x", "w/testdata/", "w/testdata/r", "w/go.mod"}},
		{3, []string{"w/x/testdata/", "w/x/testdata/x", "w/testdata/", "w/testdata/r"}},
		{1, []string{"w/testdata/", "w/testdata/r"}},
	} {
		var b Bundle
		if err := b.AddAbove(root, dir, "/w", tt.max); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, names(t, &b)); diff != "" {
			t.Errorf("archive of at most %d bytes (-want +got):\n%s", tt.max, diff)
		}
	}
	var b Bundle
	if err := b.AddAbove(root, root, "/w", 100); err != nil || len(b.entries) > 0 {
		t.Errorf("AddAbove of the root itself = %v, with %d entries", err, len(b.entries))
	}
	if err := b.AddAbove(dir, root, "/w", 100); err == nil {
		t.Error("AddAbove of a root below the directory gave no error")
	}
}

func TestAddTestDir(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"x_test.go": "t", "note.txt": "n", ".git/config": "g", "vendor/v/v": "v", "data/d.json": "d", "data/deep/e": "e",
		"sub/sub.go": "s", "sub/testdata/s": "s", "shared/in": "i", "testdata": "-> shared", "testdata2/.hidden": "h",
	})
	var b Bundle
	if err := b.AddTestDir(dir, dir, "/p", 100); err != nil {
		t.Fatal(err)
	}
	want := []string{"p/", "p/", "p/data/", "p/data/d.json", "p/data/deep/", "p/data/deep/e", "p/note.txt", "p/shared/", "p/shared/in", "p/sub/", "p/testdata -> shared", "p/testdata2/", "p/testdata2/.hidden", "p/x_test.go"}
	if diff := cmp.Diff(want, names(t, &b)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	if err := new(Bundle).AddTestDir(dir, dir, "/p", 5); err == nil || !strings.Contains(err.Error(), "use --dir") {
		t.Errorf("AddTestDir over its bound = %v", err)
	}
	// A testdata that is a link is replaced with its target.
	other := t.TempDir()
	write(t, other, map[string]string{"x.go": "x", "testdata": "-> " + filepath.Join(dir, "data")})
	b = Bundle{}
	if err := b.AddTestDir(other, other, "/p", 100); err != nil {
		t.Fatal(err)
	}
	want = []string{"p/", "p/", "p/x.go", "p/testdata/", "p/testdata/d.json", "p/testdata/deep/", "p/testdata/deep/e"}
	if diff := cmp.Diff(want, names(t, &b)); diff != "" {
		t.Errorf("archive with a testdata from elsewhere (-want +got):\n%s", diff)
	}
}

// TestLinkedDirectories: links to directories of the module are followed, others are
// named, and one that leads back to where it is does not go round.
func TestLinkedDirectories(t *testing.T) {
	module, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, map[string]string{"far/f": "f"})
	write(t, module, map[string]string{
		"go.mod": "module m", "shared/s": "s", "shared/back": "-> ../p/testdata",
		"p/p_test.go": "t", "p/testdata/in": "-> ../../shared", "p/testdata/all": "-> ../..", "p/testdata/far": "-> " + filepath.Join(elsewhere, "far"),
	})
	var b Bundle
	if err := b.AddTestDir(module, filepath.Join(module, "p"), "/p", 100); err != nil {
		t.Fatal(err)
	}
	want := []string{"p/", "p/", "p/p_test.go", "p/testdata/", "p/testdata/in/", "p/testdata/in/s"}
	if diff := cmp.Diff(want, names(t, &b)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	left := []string{"p/testdata/all", "p/testdata/far", "shared/back"}
	for i := range left {
		left[i] = filepath.Join(module, left[i])
	}
	if diff := cmp.Diff(left, b.Left); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
}

// TestStandardLibrary: tests of the standard library run below the Go installation, where
// those of time look for zones.
func TestStandardLibrary(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"src/go.mod": "module std", "src/time/x_test.go": "x", "lib/time/zoneinfo.zip": "z"})
	j, err := NewJob(&Program{Argv0: "/run/time.test", Test: true}, []string{"time.test"}, JobOptions{Cwd: filepath.Join(root, "src", "time")})
	if err != nil {
		t.Fatal(err)
	}
	if want := WorkDir + "/src/time"; j.Params.Dir != want {
		t.Errorf("directory = %s, want %s", j.Params.Dir, want)
	}
	if got, want := names(t, &j.Bundle), WorkDir[1:]+"/lib/time/zoneinfo.zip"; !slices.Contains(got, want) {
		t.Errorf("archive has %q, want %s in it", got, want)
	}
}

// TestCorpus: fuzz inputs on the host are sent to the guest, and new ones copied back.
func TestCorpus(t *testing.T) {
	dir := t.TempDir()
	const known, found = "FuzzX/0123456789abcdef", "FuzzÖ/fedcba9876543210"
	outs := []Output{
		{Flag: "-test.fuzzcachedir", Guest: "/labctl/out/fuzzcachedir", Host: filepath.Join(dir, "cache"), Folder: true, Corpus: true},
		{Flag: fuzzFlag, Guest: "/labctl/work/testdata/fuzz", Host: filepath.Join(dir, "testdata/fuzz"), Folder: true, Corpus: true},
	}
	write(t, dir, map[string]string{"cache/" + known: "k", "cache/other": "o", "cache/FuzzX/deep/x": "d", "testdata/fuzz/FuzzX/mine": "m"})
	var b Bundle
	if err := b.AddOutputs(outs, 100); err != nil {
		t.Fatal(err)
	}
	want := []string{"labctl/out/fuzzcachedir/", "labctl/out/fuzzcachedir/", "labctl/out/fuzzcachedir/FuzzX/", "labctl/out/fuzzcachedir/" + known}
	if diff := cmp.Diff(want, names(t, &b)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	large, none := Bundle{}, Bundle{}
	if err := large.AddOutputs(outs, 0); err != nil || large.Files != 0 {
		t.Errorf("AddOutputs over its bound = %v, with %d files", err, large.Files)
	}
	if err := none.AddOutputs([]Output{{Guest: "/x", Host: filepath.Join(dir, "none"), Corpus: true}}, 100); err != nil || none.Files != 0 {
		t.Errorf("AddOutputs of no corpus = %v", err)
	}

	const work = "labctl/work/testdata/fuzz/"
	in := archive(t, folder("labctl/out/fuzzcachedir/"), reg("labctl/out/fuzzcachedir/"+known), reg("labctl/out/fuzzcachedir/"+found),
		folder(work), folder(work+"FuzzX/"), reg(work+"FuzzX/mine"), reg(work+"FuzzX/other"), reg(work+known), reg(work+"x_test.go"),
		reg(work+"FuzzX/0123456789abcdef/x"), reg(work+"fuzz/0123456789abcdef"))
	if err := receive(bytes.NewReader(in), outs, 10000); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cache/" + known: "k", "cache/" + found: "labctl/out/fuzzcachedir/" + found, "testdata/fuzz/FuzzX/mine": "m", "testdata/fuzz/" + known: work + known} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	var files []string
	for _, f := range tree(t, dir) {
		if strings.HasPrefix(f, "-") {
			files = append(files, strings.Fields(f)[1])
		}
	}
	wantFiles := []string{"cache/FuzzX/0123456789abcdef", "cache/FuzzX/deep/x", "cache/FuzzÖ/fedcba9876543210", "cache/other", "testdata/fuzz/FuzzX/0123456789abcdef", "testdata/fuzz/FuzzX/mine"}
	if diff := cmp.Diff(wantFiles, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func archive(tb testing.TB, entries ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg && h.Size == 0 {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		io.WriteString(w, fmt.Sprintf("%-*s", h.Size, h.Name)[:h.Size])
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func reg(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640} }
func folder(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o500}
}

// outputsIn are the same for good and hostile archives.
func outputsIn(dir string) []Output {
	return []Output{
		{Flag: "-test.coverprofile", Guest: "/tmp/c.out", Host: filepath.Join(dir, "c.out"), File: true},
		{Flag: "--get", Guest: "/var/d", Host: filepath.Join(dir, "d"), File: true, Folder: true, Must: true},
		{Flag: fuzzFlag, Guest: "/w/fuzz", Host: filepath.Join(dir, "d/fuzz"), Folder: true, Corpus: true},
	}
}

func tree(tb testing.TB, dir string) (out []string) {
	tb.Helper()
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			tb.Fatal(err)
		}
		if fi, err := d.Info(); err == nil && p != dir {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, fmt.Sprintf("%v %s", fi.Mode(), rel))
		}
		return nil
	})
	return out
}

func TestReceive(t *testing.T) {
	dir := t.TempDir()
	in := archive(t, reg("tmp/c.out"), folder("var/d/"), reg("var/d/f"), folder("var/d/e/"), reg("var/d/e/g"), reg("var/d/late/h"))
	for range 2 { // the second replaces the first
		if err := receive(bytes.NewReader(in), outputsIn(dir), 100); err != nil {
			t.Fatal(err)
		}
		want := []string{"-rw-r----- c.out", "drwx------ d", "drwx------ d/e", "-rw-r----- d/e/g", "-rw-r----- d/f", "drwxr-xr-x d/late", "-rw-r----- d/late/h"}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("tree (-want +got):\n%s", diff)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "d/e/g")); string(b) != "var/d/e/g" {
		t.Errorf("d/e/g = %q, %v", b, err)
	}
	// A file where a directory would also be allowed.
	dir = t.TempDir()
	if err := receive(bytes.NewReader(archive(t, reg("var/d"))), outputsIn(dir), 100); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"-rw-r----- d"}, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

var hostile = []struct {
	name    string
	entries []tar.Header
	err     string
}{
	{"another name", []tar.Header{reg("tmp/x")}, "not requested"},
	{"a longer name", []tar.Header{reg("tmp/c.outer")}, "not requested"},
	{"absolute", []tar.Header{reg("/tmp/c.out")}, "not requested"},
	{"above", []tar.Header{reg("var/d/../../x")}, "not requested"},
	{"above by name", []tar.Header{reg("../x")}, "not requested"},
	{"unclean", []tar.Header{reg("var/d/./x")}, "not requested"},
	{"directory for a file", []tar.Header{folder("tmp/c.out/")}, "not requested"},
	{"below a file", []tar.Header{reg("tmp/c.out/x")}, "not requested"},
	{"symbolic link", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "tmp/c.out", Linkname: "/etc/passwd"}}, "not requested"},
	{"hard link", []tar.Header{{Typeflag: tar.TypeLink, Name: "var/d/x", Linkname: "/etc/passwd"}}, "not requested"},
	{"device", []tar.Header{{Typeflag: tar.TypeChar, Name: "var/d/x"}}, "not requested"},
	{"out by a link that is here", []tar.Header{reg("var/d/link/x")}, "escapes"},
	{"over a directory", []tar.Header{folder("var/d/"), folder("var/d/e/"), reg("var/d/e")}, "is a directory"},
	{"escapes in a name", []tar.Header{folder("var/d/"), folder("var/d/\x1b[2J/"), reg("var/d/\x1b[2J")}, "is a directory"},
	{"too much", []tar.Header{{Typeflag: tar.TypeReg, Name: "tmp/c.out", Size: 101}}, "more than 100 bytes"},
	{"too much together", []tar.Header{{Typeflag: tar.TypeReg, Name: "tmp/c.out", Size: 60}, {Typeflag: tar.TypeReg, Name: "var/d", Size: 60}}, "more than 100 bytes"},
	{"a link among fuzz inputs", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "w/fuzz/FuzzX/0123456789abcdef", Linkname: "/etc/passwd"}}, "not requested"},
	{"above fuzz inputs", []tar.Header{reg("w/fuzz/FuzzX/../../x")}, "not requested"},
	{"nothing", nil, "--get /var/d: no such file in the guest"},
}

func TestReceiveHostile(t *testing.T) {
	cut := archive(t, reg("tmp/c.out"))
	if err := receive(bytes.NewReader(cut[:514]), outputsIn(t.TempDir()), 100); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("receive of a cut archive = %v", err)
	}
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in")
			write(t, dir, map[string]string{"d/link": "-> ../.."})
			err := receive(bytes.NewReader(archive(t, tt.entries...)), outputsIn(dir), 100)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("receive = %v, want %q in it", err, tt.err)
			} else if strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("unclean error %q", err)
			}
			for _, f := range tree(t, outer) {
				if name := strings.Fields(f)[1]; name != "in" && name != "in/c.out" && !strings.HasPrefix(name, "in/d") {
					t.Errorf("left behind: %s", f)
				}
			}
		})
	}
}

// FuzzReceive checks that any archive only creates files that outputs name.
func FuzzReceive(f *testing.F) {
	for _, h := range hostile {
		f.Add(archive(f, h.entries...))
	}
	f.Add(archive(f, reg("tmp/c.out"), folder("var/d/"), reg("var/d/f")))
	f.Fuzz(func(t *testing.T, in []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		write(t, dir, map[string]string{"d/link": "-> ../.."})
		receive(bytes.NewReader(in), outputsIn(dir), 1000)
		for _, f := range tree(t, outer) {
			_, name, _ := strings.Cut(f, " ")
			if name != "in" && name != "in/c.out" && name != "in/d" && !strings.HasPrefix(name, "in/d/") {
				t.Errorf("left behind: %s", f)
			}
		}
	})
}

func TestIsCorpusFile(t *testing.T) {
	const hash = "/0123456789abcdef"
	for name, want := range map[string]bool{
		"FuzzX" + hash: true, "Fuzz" + hash: true, "FuzzÖ_9" + hash: true,
		"Fuzz" + strings.Repeat("x", maxTestName-4) + hash: true,
		"Fuzz" + strings.Repeat("x", maxTestName-3) + hash: false,
		"X" + hash: false, "fuzzX" + hash: false, "FuzzX": false, "Fuzz-X" + hash: false, "Fuzz\xff" + hash: false,
		"FuzzX/0123456789abcde": false, "FuzzX/0123456789abcdefa": false, "FuzzX/0123456789ABCDEF": false,
		"FuzzX/../../0123456789": false, "FuzzX/a" + hash: false,
	} {
		if got := isCorpusFile(name); got != want {
			t.Errorf("isCorpusFile(%q) = %v", name, got)
		}
	}
}

// TestOutcomes: the outcomes of programs that cannot be built or found.
func TestOutcomes(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := put("good.go", "package main\n\nfunc main() {}\n")
	far := put("far/main.go", "package main\n\nimport _ \"example.com/x\"\n\nfunc main() {}\n")
	put("far/go.mod", "module far\n\ngo 1.24\n\nrequire example.com/x v1.0.0\n")
	put("far/go.sum", "example.com/x v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nexample.com/x v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	for _, tt := range []struct {
		name, arg string
		env       map[string]string
		want      outcome.Kind
		text      string
	}{
		{"empty", "", nil, outcome.BadInput, "empty"},
		{"no such file", "./nonesuch", nil, outcome.BadInput, "no such file"},
		{"a device", "/dev/null", nil, outcome.BadInput, "neither a file"},
		{"a text", put("text", "x"), nil, outcome.BadInput, "not an ELF program"},
		{"does not compile", put("bad.go", "package main\n\nfunc main() { x() }\n"), nil, outcome.BadInput, "undefined: x"},
		{"no go", good, map[string]string{"PATH": dir}, outcome.HostLacks, "install Go"},
		{"no such module available", filepath.Dir(far), map[string]string{"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOMODCACHE": filepath.Join(dir, "mod")}, outcome.HostLacks, "GOPROXY=off"},
		{"no cache", good, map[string]string{"LABCTL_CACHE": "/proc/labctl"}, outcome.HostLacks, "set LABCTL_CACHE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("LABCTL_CACHE", t.TempDir())
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			p, err := Find(t.Context(), tt.arg, runtime.GOARCH)
			if err == nil {
				p.Close()
			}
			if got := outcome.Of(err); got != tt.want || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("outcome %q of %v; want %q with %q", got, err, tt.want, tt.text)
			}
		})
	}
}

// TestReceiveFiles: names that a terminal would act on are cleaned, zeros become holes, and
// the umask holds.
func TestReceiveFiles(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	big := make([]byte, 8<<20)
	copy(big[5<<20:], "data")
	for _, f := range []struct {
		name string
		data []byte
	}{{"var/d/a\x1b[2J\u202eb", []byte("x")}, {"var/d/sparse", big}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o666}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := receive(&b, outputsIn(dir), 100<<20); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "d/a_[2J_b")); err != nil || string(b) != "x" {
		t.Errorf("the file with a cleaned name: %q, %v", b, err)
	}
	name := filepath.Join(dir, "d/sparse")
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the sparse file: %d bytes, %v; want the %d sent", len(got), err, len(big))
	}
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if took := fi.Sys().(*syscall.Stat_t).Blocks * 512; took > 1<<20 {
		t.Errorf("the sparse file takes %d bytes", took)
	}
	made := filepath.Join(dir, "made")
	if err := os.WriteFile(made, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(made)
	if err != nil || fi.Mode() != want.Mode() {
		t.Errorf("mode %v, want that of a file made here, %v, %v", fi.Mode(), want.Mode(), err)
	}
}
