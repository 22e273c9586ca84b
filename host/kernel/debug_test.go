package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/kernel/internal/synth"
	"labctl/host/kernel/symtab"
	"labctl/host/outcome"
)

// debugRelease is of the kernels of these tests, which are for the host's architecture,
// so that its compiler makes them.
const debugRelease = "6.12.107+deb13-test"

// compiled returns a program with DWARF that has a kernel's banner and a structure, and
// the same without DWARF. Programs of different seeds have different build-ids.
func compiled(t *testing.T, seed int) (debug, stripped []byte) {
	t.Helper()
	dir := t.TempDir()
	src := fmt.Sprintf("const char banner[] = \"Linux version %s (build@host) (gcc) #%d SMP\\n\";\nstruct task_struct { long state; int pid; char comm[16]; } init_task;\nint _start(void) { return init_task.pid; }\n", debugRelease, seed)
	if err := os.WriteFile(filepath.Join(dir, "x.c"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"gcc", "-g", "-o", "debug", "-static", "-nostdlib", "-Wl,--build-id=sha1", "x.c"},
		{"strip", "-o", "stripped", "debug"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return read("debug"), read("stripped")
}

// debugArchive is an archive with a kernel without BTF; its debug package has these files.
func debugArchive(t *testing.T, img []byte, files ...synth.File) (_ *synth.Repo, debug string) {
	t.Helper()
	row, ok := arch.Find(runtime.GOARCH)
	if !ok {
		t.Fatalf("labctl does not know %s", runtime.GOARCH)
	}
	name := "linux-image-" + debugRelease
	pkgs := []synth.Package{
		{Name: "linux-image-" + runtime.GOARCH, Version: "6.12.107-1", Depends: name + " (= 6.12.107-1)", Deb: []byte("meta")},
		{Name: name, Version: "6.12.107-1", Deb: synth.Deb(t,
			synth.File{Name: "./boot/vmlinuz-" + debugRelease, Data: img},
			synth.File{Name: "./boot/config-" + debugRelease, Data: []byte("CONFIG_X=y\n")},
		)},
	}
	if len(files) > 0 {
		pkgs = append(pkgs, synth.Package{Name: name + "-dbg", Version: "6.12.107-1", Deb: synth.Deb(t, files...)})
	}
	return synth.NewRepo(t, "trixie", row.Debian, pkgs...), name + "-dbg_6.12.107-1_" + row.Debian + ".deb"
}

// pullForDebug pulls the kernel of a debugArchive into an empty cache in dir.
func pullForDebug(t *testing.T, dir string) (*Cache, *Kernel) {
	t.Helper()
	t.Setenv(cachedir.Env, dir)
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Pull(t.Context(), trixie, runtime.GOARCH, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, k
}

// debugTools reports whether this host has what the tests need; without it, they check
// that a pull says so.
func debugTools(t *testing.T) bool {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		return false // which TestRoot of package debian checks
	}
	if _, err := exec.LookPath("pahole"); err == nil {
		return true
	}
	debug, stripped := compiled(t, 1)
	debugArchive(t, stripped, vmlinuxDebug(debug))
	c, k := pullForDebug(t, t.TempDir())
	if err := c.PullDebug(t.Context(), k, nil); outcome.Of(err) != outcome.HostLacks || !strings.Contains(err.Error(), "apt-get install pahole") {
		t.Errorf("PullDebug without pahole = %v, want how to get it", err)
	}
	return false
}

func vmlinuxDebug(data []byte) synth.File {
	return synth.File{Name: "./usr/lib/debug/boot/vmlinux-" + debugRelease, Data: data}
}

// onlyKernel checks that a cache holds nothing of a debug package.
func onlyKernel(t *testing.T, c *Cache, k *Kernel) {
	t.Helper()
	for _, pattern := range []string{k.Dir + "/*debug*", c.debianDir() + "/.tmp-*", c.dir + "/apt/*-debug/archives/*", c.dir + "/debuginfo/.new-*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 && !strings.HasSuffix(found[0], "/partial") {
			t.Errorf("left behind: %v", found)
		}
	}
	if from := k.TypesFrom(); from != TypesNone {
		t.Errorf("types come from %q", from)
	}
}

func TestPullDebug(t *testing.T) {
	if !debugTools(t) {
		return
	}
	debug, stripped := compiled(t, 1)
	repo, file := debugArchive(t, stripped, synth.File{Name: "./usr/share/doc/x", Data: []byte("x")}, vmlinuxDebug(debug),
		synth.File{Name: "./usr/lib/debug/lib/modules/" + debugRelease + "/vmlinux", Data: []byte("not this one")})
	c, k := pullForDebug(t, t.TempDir())
	if spec, err := k.KnownTypes(t.Context()); spec != nil || err != nil {
		t.Fatalf("KnownTypes of a kernel without = %v, %v", spec, err)
	}
	if hint := k.TypesHint(); !strings.Contains(hint, "labctl kernel pull "+debugRelease+" --arch "+runtime.GOARCH+" --debug") {
		t.Errorf("TypesHint = %q", hint)
	}
	var seen []string
	report := func(p Progress) {
		if s := string(p.Stage); len(seen) == 0 || seen[len(seen)-1] != s {
			seen = append(seen, s)
		}
	}
	for range 2 { // the second one finds it
		if err := c.PullDebug(t.Context(), k, report); err != nil {
			t.Fatal(err)
		}
		path, size := k.DebugFile()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, debug) || size != int64(len(debug)) {
			t.Fatalf("DebugFile = %s, %d: %d bytes, %v; want the %d of the package", path, size, len(got), err, len(debug))
		}
	}
	if want := "index download unpack inspect types done"; strings.Join(seen, " ") != want {
		t.Errorf("stages: got %s, want %s", strings.Join(seen, " "), want)
	}
	if n := repo.Gets(file); n != 1 {
		t.Errorf("%d requests for the package, want 1", n)
	}
	if left, _ := filepath.Glob(c.dir + "/apt/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	again, err := c.Find(trixie, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := again.KnownTypes(t.Context())
	if err != nil || spec == nil || again.TypesFrom() != TypesPackage {
		t.Fatalf("KnownTypes = %v, %v, from %q", spec, err, again.TypesFrom())
	}
	if structs, err := ctype.Structs(spec, "task_struct"); err != nil || len(structs) != 1 || structs[0].Size < 24 {
		t.Errorf("task_struct: %v, %v", structs, err)
	}
	// What is planned and judged does not depend on what was pulled.
	if own, err := again.Types(t.Context()); own != nil || err != nil {
		t.Errorf("Types = %v, %v; want the kernel's own, which are none", own, err)
	}
	rows, err := c.Sources(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if want := int64(len(debug)); r.Name == "6.12" && r.Debug != want || r.Name != "6.12" && r.Debug != 0 {
			t.Errorf("row %s: debug %d", r.Name, r.Debug)
		}
	}
	if err := c.Remove(again); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(k.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
}

// TestPullDebugRefuses: whatever is wrong with a debug package is one line, and leaves
// nothing.
func TestPullDebugRefuses(t *testing.T) {
	if !debugTools(t) {
		return
	}
	debug, stripped := compiled(t, 1)
	other, _ := compiled(t, 2)
	otherID := fmt.Sprintf("%x", image.BuildIDs(other)[0])
	for _, c := range []struct {
		name  string
		files []synth.File
		spoil func(*synth.Repo, string)
		want  string
	}{
		{"no package", nil, nil, "package linux-image-" + debugRelease + "-dbg=6.12.107-1 is not in trixie; where the archive has a newer kernel, labctl kernel pull debian:trixie --arch " + runtime.GOARCH + " --debug gets"},
		{"another build", []synth.File{vmlinuxDebug(other)}, nil, "it is of another build than kernel " + debugRelease + ": its build-id is " + otherID + ", the image's is "},
		{"no vmlinux", []synth.File{{Name: "./usr/lib/debug/boot/vmlinux-6.12.106", Data: debug}}, nil, "what is wanted of it is not in it"},
		{"no DWARF", []synth.File{vmlinuxDebug(stripped)}, nil, "it has neither BTF nor DWARF"},
		{"altered", []synth.File{vmlinuxDebug(debug)}, func(r *synth.Repo, file string) {
			b, err := os.ReadFile(r.Path("pool", file))
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(r.Path("pool", file), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "has SHA-256 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo, file := debugArchive(t, stripped, c.files...)
			cache, k := pullForDebug(t, t.TempDir())
			if c.spoil != nil {
				c.spoil(repo, file)
			}
			err := cache.PullDebug(t.Context(), k, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || outcome.Of(err) != outcome.HostLacks {
				t.Errorf("PullDebug = %v (%s), want one line with %q", err, outcome.Of(err), c.want)
			}
			if c.name != "altered" { // apt keeps what it refuses under another name, until the next try
				onlyKernel(t, cache, k)
			}
		})
	}
	t.Run("a kernel of a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vmlinux")
		if err := os.WriteFile(path, stripped, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		k, err := c.Get(t.Context(), Ref{Path: path}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PullDebug(t.Context(), k, nil); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "--debuginfo") {
			t.Errorf("PullDebug = %v, want what to do instead", err)
		}
		if hint := k.TypesHint(); strings.Contains(hint, "pull") || !strings.Contains(hint, "--debuginfo FILE") {
			t.Errorf("TypesHint = %q", hint)
		}
	})
}

// TestPullDebugInterrupted: a pull that is interrupted leaves the kernel as it was, and
// the next one completes it.
func TestPullDebugInterrupted(t *testing.T) {
	if !debugTools(t) {
		return
	}
	debug, stripped := compiled(t, 1)
	for _, at := range []debian.Stage{debian.StageDownload, debian.StageUnpack, debian.StageTypes} {
		t.Run(string(at), func(t *testing.T) {
			debugArchive(t, stripped, vmlinuxDebug(debug))
			c, k := pullForDebug(t, t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var once atomic.Bool
			err := c.PullDebug(ctx, k, func(p Progress) {
				if p.Stage == at && once.CompareAndSwap(false, true) {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("PullDebug = %v, want that it was interrupted", err)
			}
			if left, _ := filepath.Glob(c.debianDir() + "/.tmp-*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if err := c.PullDebug(t.Context(), k, nil); err != nil || k.TypesFrom() != TypesPackage {
				t.Errorf("the next PullDebug = %v, types from %q", err, k.TypesFrom())
			}
		})
	}
}

// TestPullDebugFullDisk: a vmlinux that finds no room leaves none of it, and no download
// that fills the disk either.
func TestPullDebugFullDisk(t *testing.T) {
	if !debugTools(t) {
		return
	}
	_, stripped := compiled(t, 1)
	debugArchive(t, stripped, vmlinuxDebug(make([]byte, 64<<20))) // of which the package is small
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	c, k := pullForDebug(t, dir)
	err := c.PullDebug(t.Context(), k, nil)
	if err == nil || !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") || outcome.Of(err) != outcome.HostLacks {
		t.Errorf("PullDebug = %v (%s), want one line that the disk is full", err, outcome.Of(err))
	}
	onlyKernel(t, c, k)
	if left, _ := filepath.Glob(c.dir + "/apt/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSetDebuginfoOfBuild: a vmlinux of the same release, and of another build, is
// refused.
func TestSetDebuginfoOfBuild(t *testing.T) {
	debug, stripped := compiled(t, 1)
	other, _ := compiled(t, 2)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"image": stripped, "debug": debug, "other": other} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Get(t.Context(), Ref{Path: filepath.Join(dir, "image")}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SetDebuginfo(filepath.Join(dir, "other")); err == nil || !strings.Contains(err.Error(), "of another build than kernel "+debugRelease) || outcome.Of(err) != outcome.BadInput {
		t.Errorf("SetDebuginfo of another build = %v", err)
	}
	if err := k.SetDebuginfo(filepath.Join(dir, "debug")); err != nil || k.TypesFrom() != TypesDebuginfo {
		t.Errorf("SetDebuginfo = %v, types from %q", err, k.TypesFrom())
	}
}

// TestDataSymbols: of a vmlinux there are its variables, and not its functions.
func TestDataSymbols(t *testing.T) {
	debug, stripped := compiled(t, 1)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"debug": debug, "stripped": stripped, "text": []byte("text")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := dataSymbols(filepath.Join(dir, "debug"), []symtab.Symbol{{Addr: 1, Type: 'R', Name: "banner"}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range all {
		got[s.Name] += string(s.Type)
		if s.Addr == 0 {
			t.Errorf("%s is at 0", s.Name)
		}
	}
	if got["init_task"] != "B" || got["banner"] != "R" || got["_start"] != "" {
		t.Errorf("symbols: %v; want init_task, banner as it was known, and no _start", got)
	}
	for _, name := range []string{"stripped", "text", "none"} {
		if all, err := dataSymbols(filepath.Join(dir, name), nil); err == nil {
			t.Errorf("dataSymbols(%s) = %v, want an error", name, all)
		}
	}
}
