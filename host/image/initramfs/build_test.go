package initramfs

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/modfile"

	"labctl"
	"labctl/guest/wire"
	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/images"
)

// TestBuild builds a real image for the host's architecture and runs the commands of
// its base on the host. The base comes from the user's cache, since it takes long to
// build and its name includes the hash of all its inputs.
func TestBuild(t *testing.T) {
	if _, ok := arch.Find(runtime.GOARCH); !ok {
		t.Skipf("no guest has the host's architecture, %s", runtime.GOARCH)
	}
	opts := Options{
		Arch:     runtime.GOARCH,
		Base:     true,
		Modules:  []Module{{Name: "dummy", Data: []byte("\x7fELF")}},
		Files:    []File{{Path: "work/hello", Mode: 0o644, Data: []byte(t.TempDir())}}, // never cached
		Progress: func(s string) { t.Log(s) },
	}
	img, err := Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if img.Cached {
		t.Error("a new file in the overlay gave a cached image")
	}
	again, err := Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Cached || again.Path != img.Path {
		t.Errorf("the same build again = %s, cached %v; want %s, cached", again.Path, again.Cached, img.Path)
	}

	data, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	archives, err := readNewc(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(archives) == 5 { // this host can have busybox
		if !slices.ContainsFunc(archives[2], func(e entry) bool { return e.name == "usr/bin/vi" && string(e.data) == "busybox" }) {
			t.Error("the archive of busybox lacks usr/bin/vi, a link to it")
		}
		for _, e := range archives[2] {
			if name := path.Base(e.name); name == "sh" || name == "ps" || name == "poweroff" {
				t.Errorf("the archive of busybox has %s, which the guest has from elsewhere", e.name)
			}
		}
		archives = slices.Delete(archives, 2, 3)
	}
	if len(archives) != 4 {
		t.Fatalf("image has %d archives; want skeleton, base, guest and overlay", len(archives))
	}
	for i, want := range [][]string{
		{"bin", "boot", "etc/passwd", "etc/hosts", "home", "usr/bin", "usr/lib/go/lib/time/zoneinfo.zip", "var/tmp"},
		{"bbin/bb", "bbin/ls", "usr/bin/ls"},
		{"labctl/labinit", "labctl/labprobe", "labctl/sh", "usr/bin/sh", "usr/bin/bash"},
		{"dev/console", "init", "labctl/modules.d/dummy.ko", "work/hello"},
	} {
		for _, name := range want {
			if !slices.ContainsFunc(archives[i], func(e entry) bool { return e.name == name }) {
				t.Errorf("archive %d lacks %s", i, name)
			}
		}
	}
	root := t.TempDir()
	for _, a := range archives[:3] {
		unpack(t, root, a)
	}
	t.Run("commands", func(t *testing.T) { testCommands(t, root) })
	t.Run("zones", func(t *testing.T) { testZones(t, filepath.Join(root, wire.Zones)) })
}

func unpack(t *testing.T, root string, entries []entry) {
	t.Helper()
	for _, e := range entries {
		file := filepath.Join(root, e.name)
		var err error
		switch e.mode &^ 0o7777 {
		case 0o040000:
			err = os.MkdirAll(file, 0o755)
		case 0o100000:
			err = os.WriteFile(file, e.data, fs.FileMode(e.mode&0o777))
		case 0o120000:
			err = os.Symlink(string(e.data), file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testCommands calls commands and the shell as their users do: by a bare name
// looked up in PATH, so that argv[0] is "sh", and by path.
func testCommands(t *testing.T, root string) {
	for _, tt := range []struct {
		argv   []string
		stdin  string
		stdout string
		code   int
	}{
		{argv: []string{"echo", "a", "b"}, stdout: "a b\n"},
		{argv: []string{"sh", "-c", "cat /proc/version | wc -l"}, stdout: "1\n"},
		{argv: []string{"labsh", "-c", "exit 7"}, code: 7},
		{argv: []string{root + "/labctl/sh", "-c", "echo $((6*7))"}, stdout: "42\n"},
		{argv: []string{"sh", "-c", "false || echo or; true && echo and"}, stdout: "or\nand\n"},
		{argv: []string{"sh", "-c", "echo hi >$F; echo ho >>$F; cat <$F | tr '[:lower:]' '[:upper:]'"}, stdout: "HI\nHO\n"},
		{argv: []string{"sh", "-c", "for i in $(seq 3); do echo $i; done | sort -r | head -n 1"}, stdout: "3\n"},
		{argv: []string{"sh", "-c", "sh -c 'exit 3'"}, code: 3},
		{argv: []string{"sh", "-c", "nosuchcommand"}, code: 127},
		{argv: []string{"sh"}, stdin: "echo from stdin\nexit 4\n", stdout: "from stdin\n", code: 4},
		{argv: []string{"sh", "-c", "echo to stderr >&2"}},
	} {
		t.Run(strings.Join(tt.argv, " "), func(t *testing.T) {
			t.Setenv("PATH", filepath.Join(root, "labctl")+":"+filepath.Join(root, "bbin"))
			t.Setenv("F", filepath.Join(t.TempDir(), "f"))
			cmd := exec.CommandContext(t.Context(), tt.argv[0], tt.argv[1:]...)
			cmd.Stdin = strings.NewReader(tt.stdin)
			out, err := cmd.Output()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.code || string(out) != tt.stdout {
				t.Errorf("printed %q, exit status %d; want %q, %d", out, got, tt.stdout, tt.code)
			}
		})
	}
}

// testZones reads a time zone of the guest's archive of them.
func testZones(t *testing.T, file string) {
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	data, err := fs.ReadFile(z, "Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.LoadLocationFromTZData("Asia/Seoul", data)
	if err != nil {
		t.Fatal(err)
	}
	if _, offset := time.Unix(0, 0).In(at).Zone(); offset != 9*3600 {
		t.Errorf("offset of Asia/Seoul = %d s, want 9 h", offset)
	}
}

// TestNoBusybox: without a mirror there is one line, and an image without busybox.
func TestNoBusybox(t *testing.T) {
	t.Setenv(cachedir.Env, t.TempDir())
	t.Setenv("LABCTL_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
	b := testBuilder(t, t.TempDir(), smallSource(t, "x"))
	var said []string
	b.say = func(line string) { said = append(said, line) }
	r, err := parseRecipe(images.Initramfs, images.URootMod)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if part, err := b.busybox(t.Context(), r, "amd64", func(debian.Progress) {}); part != "" || err != nil {
			t.Fatalf("busybox = %q, %v; want none", part, err)
		}
	}
	if len(said) != 2 || strings.Contains(said[0], "\n") || !strings.Contains(said[1], "tried at") || !strings.HasSuffix(said[0], "u-root's commands alone") {
		t.Errorf("said %q", said)
	}
}

// smallSource is a module like labctl's with guest programs that print text.
func smallSource(t *testing.T, text string) fstest.MapFS {
	t.Helper()
	source := fstest.MapFS{}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := labctl.Source.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source[name] = &fstest.MapFile{Data: data}
	}
	source[program+"/main.go"] = &fstest.MapFile{Data: fmt.Appendf(nil, "package main\n\nfunc main() { println(%q) }\n", text)}
	source[program+"/main_test.go"] = &fstest.MapFile{Data: []byte("not Go at all")}
	source[program+"/testdata/x.go"] = &fstest.MapFile{Data: []byte("nor this")}
	return source
}

func testBuilder(t *testing.T, dir string, source fs.FS) *builder {
	t.Helper()
	b, err := newBuilder(t.Context(), cache{dir: dir, limit: cacheLimit, grace: cacheGrace}, source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGuestIsRebuiltWhenItsSourceChanges(t *testing.T) {
	dir := t.TempDir()
	build := func(source fs.FS) *Image {
		t.Helper()
		img, err := testBuilder(t, dir, source).image(t.Context(), Options{Arch: "arm64"})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	first := build(smallSource(t, "one"))
	if same := build(smallSource(t, "one")); !same.Cached || same.Path != first.Path {
		t.Errorf("no change: %s, cached %v; want %s, cached", same.Path, same.Cached, first.Path)
	}
	edited := smallSource(t, "one")
	edited[program+"/main_test.go"].Data = []byte("a test alone")
	if same := build(edited); !same.Cached {
		t.Error("a change in a test file rebuilt the guest")
	}
	if other := build(smallSource(t, "two")); other.Cached || other.Path == first.Path {
		t.Errorf("after an edit: %s, cached %v; want another image", other.Path, other.Cached)
	}
}

func TestGuestDoesNotCompile(t *testing.T) {
	source := smallSource(t, "one")
	source["guest/cmd/labguest/main.go"].Data = []byte("package main\n\nfunc main() { nosuch() }\n")
	dir := t.TempDir()
	_, err := testBuilder(t, dir, source).image(t.Context(), Options{Arch: "amd64"})
	if err == nil || !strings.Contains(err.Error(), "main.go:3:15: ") || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("image = %v; want the compiler's words", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTwoBuildsAtOnce(t *testing.T) {
	dir := t.TempDir()
	var (
		wg   sync.WaitGroup
		imgs [2]*Image
		errs [2]error
	)
	for i := range imgs {
		b := testBuilder(t, dir, smallSource(t, "at once"))
		wg.Go(func() { imgs[i], errs[i] = b.image(t.Context(), Options{Arch: "amd64"}) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if imgs[0].Path != imgs[1].Path || imgs[0].Cached == imgs[1].Cached {
		t.Errorf("images %s (cached %v), %s (cached %v); want one image, written once",
			imgs[0].Path, imgs[0].Cached, imgs[1].Path, imgs[1].Cached)
	}
}

// TestBelow: u-root's builds have their temporary files where they are swept.
func TestBelow(t *testing.T) {
	for _, before := range []string{"", "/before"} {
		t.Setenv("GOTMPDIR", before)
		if before == "" {
			os.Unsetenv("GOTMPDIR")
		}
		dir, failed := t.TempDir(), errors.New("failed")
		err := below(dir, func() error {
			if got := os.Getenv("GOTMPDIR"); got != dir {
				t.Errorf("GOTMPDIR is %q, want %q", got, dir)
			}
			return failed
		})
		got, set := os.LookupEnv("GOTMPDIR")
		if err != failed || got != before || set != (before != "") {
			t.Errorf("below gave %v, and left GOTMPDIR %q, %v; want %v, %q", err, got, set, failed, before)
		}
	}
}

func TestBuildRefusesArch(t *testing.T) {
	if _, err := Build(t.Context(), Options{Arch: "riscv64"}); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("Build = %v; want an error that names riscv64", err)
	}
}

func TestNoGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), Options{Arch: "amd64", Dir: t.TempDir()})
	var missing *MissingGoError
	if !errors.As(err, &missing) {
		t.Errorf("Build without go on PATH = %v; want a MissingGoError", err)
	}
}

func TestForeignWorkspace(t *testing.T) {
	work := filepath.Join(t.TempDir(), "go.work")
	if err := os.WriteFile(work, []byte("go 1.26\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOWORK", work)
	_, err := Build(t.Context(), Options{Arch: "amd64", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "GOWORK=off") {
		t.Errorf("Build in a workspace = %v; want the remedy GOWORK=off", err)
	}
}

func TestAwaitLetsGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	finish := make(chan struct{})
	defer close(finish)
	err := await(ctx, func() error { <-finish; return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("await = %v; want a deadline", err)
	}
}

func TestRecipe(t *testing.T) {
	if _, err := parseRecipe(images.Initramfs, images.URootMod); err != nil {
		t.Error(err)
	}
	const mod = "module m\n\ngo 1.26\n\ntool example.org/cmds/ls\n"
	for _, tt := range []struct{ name, yaml, mod, want string }{
		{"no commands", "", "module m\n", "no tool directives"},
		{"not a go.mod", "", "modul m\n", "uroot.mod"},
		{"unknown field", "folder: [x]\n", mod, "folder"},
		{"link to nothing", "links: {bin/sh: sh}\n", mod, `no command "sh"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseRecipe([]byte(tt.yaml), []byte(tt.mod)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parseRecipe = %v; want an error with %q", err, tt.want)
			}
		})
	}
}

// TestBuilders checks that a new gobusybox or mkuimage causes a rebuild of the base.
func TestBuilders(t *testing.T) {
	mod, err := labctl.Source.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	versions, err := builders(mod)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(versions, " ")
	for _, want := range []string{"github.com/u-root/gobusybox/src@v", "github.com/u-root/mkuimage@v"} {
		if !strings.Contains(got, want) {
			t.Errorf("builders = %s; want %s among them", got, want)
		}
	}
}

// TestURootVersions checks that labctl's go.mod and that of u-root's commands require
// the same Go version and the same versions of common dependencies.
func TestURootVersions(t *testing.T) {
	data, err := labctl.Source.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := modfile.Parse("images/uroot.mod", images.URootMod, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := theirs.Go.Version, ours.Go.Version; got != want {
		t.Errorf("images/uroot.mod wants Go %s, go.mod Go %s", got, want)
	}
	version := map[string]string{}
	for _, r := range ours.Require {
		version[r.Mod.Path] = r.Mod.Version
	}
	shared := 0
	for _, r := range theirs.Require {
		want, ok := version[r.Mod.Path]
		if !ok {
			continue
		}
		shared++
		if got := r.Mod.Version; got != want {
			t.Errorf("images/uroot.mod has %s %s, go.mod %s: go get -modfile=images/uroot.mod %[1]s@%[3]s", r.Mod.Path, got, want)
		}
	}
	if shared == 0 {
		t.Error("the two share no module; want u-root at least")
	}
}
