package kbuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/kernel/internal/synth"
)

func newBuilder(t testing.TB, cache string) *Builder {
	t.Helper()
	t.Setenv(cachedir.Env, cache)
	c, err := kernel.Open(cache)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fakeTools puts substitutes for a build's programs first in PATH, so that a test needs
// only make and a shell. The compiler accepts everything; there is no ccache.
func fakeTools(t testing.TB) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"gcc", "aarch64-linux-gnu-gcc", "x86_64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc", "ld", "flex", "bison", "bc", "perl", "xz", "pahole"} {
		script := "#!/bin/sh\ncase $1 in --version) echo " + name + " 1.0 ;; esac\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"make", "sh", "tar", "cp", "cat", "mkdir", "echo", "sleep", "true", "sed", "mv"} {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if isFile(filepath.Join(dir, name)) {
				if err := os.Symlink(filepath.Join(dir, name), filepath.Join(bin, name)); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	}
	t.Setenv("PATH", bin)
}

// fakeTree creates a tree whose build imitates a kernel's in shell: it has the targets
// and scripts that labctl uses, and an image for arm64. rule is the first command of
// the image's recipe.
func fakeTree(t testing.TB, rule string) string {
	t.Helper()
	dir := t.TempDir()
	img := make([]byte, 4096)
	copy(img, "MZ")
	copy(img[56:], "ARM\x64")
	writeTree(t, dir, map[string]string{
		"image":       string(append(img, synth.Banner("6.99.1-labctl")...)),
		"pktgen.ko":   string(synth.Module("")),
		"init/main.c": "",
		"Kconfig":     "config A\n\tbool \"a\"\nconfig KILLED\n\tbool \"k\"\n\tdepends on A && PARENT\nconfig PARENT\n\tbool \"p\"\nconfig MODULES\n\tbool \"m\"\n",
		// A fragment's option KILLED is dropped.
		"scripts/kconfig/merge_config.sh": "#!/bin/sh\n[ \"$1 $2\" = \"-m -O\" ] || exit 1\ncat \"$4\" \"$5\" > \"$3/merged\" && mv \"$3/merged\" \"$3/.config\"\n",
		"Makefile": `VERSION = 6
PATCHLEVEL = 99
SUBLEVEL = 1
EXTRAVERSION =
allnoconfig:
	@echo '# empty' > $(KCONFIG_CONFIG)
olddefconfig:
	@sed -e '/KILLED/d' $(KCONFIG_CONFIG) > $(KCONFIG_CONFIG).new
	@cat $(KCONFIG_CONFIG).new > $(KCONFIG_CONFIG)
Image:
	@` + rule + `
	@echo '  CC      init/main.o'
	@echo '  CC [M]  net/core/pktgen.o'
	@mkdir -p $(O)/arch/arm64/boot
	@cp image $(O)/arch/arm64/boot/Image
	@echo x > $(O)/vmlinux
modules:
	@true
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.99.1-labctl/kernel
	@cp pktgen.ko $(INSTALL_MOD_PATH)/lib/modules/6.99.1-labctl/kernel
`})
	return dir
}

func request(t testing.TB, tree string, lines ...string) Request {
	t.Helper()
	file := filepath.Join(t.TempDir(), "my.config")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan("arm64", "", []string{file})
	if err != nil {
		t.Fatal(err)
	}
	return Request{Name: "mine", Arch: "arm64", Source: Source{Path: tree}, Plan: plan, Jobs: 1}
}

func TestBuild(t *testing.T) {
	fakeTools(t)
	b := newBuilder(t, t.TempDir())
	var made []Progress
	b.Made = func(p Progress) { made = append(made, p) }
	tree := fakeTree(t, "true")
	req := request(t, tree, "CONFIG_A=y", "CONFIG_MODULES=y", "#? later", "CONFIG_LATER=y")

	k, err := b.Build(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if k.Cached || k.Release != "6.99.1-labctl" || k.Series != "6.99" || k.Arch != "arm64" || k.Ref.String() != "build:mine" {
		t.Errorf("got %+v", k.Kernel)
	}
	if v, _ := k.Option("A"); v != "y" {
		t.Error("the kernel's configuration does not have what was asked for")
	}
	if _, ok := k.Option("LATER"); ok {
		t.Error("an option that the tree does not know was asked for")
	}
	if mods, err := k.Modules("pktgen"); err != nil || len(mods) != 1 || len(mods[0].Data) == 0 {
		t.Errorf("module pktgen: %v, %v", mods, err)
	}
	want := kernel.BuildSource{Kind: "tree", Path: tree, Hash: k.Build.Source.Hash, Release: "6.99.1"}
	if k.Build.Source != want || k.Build.Compiler != "aarch64-linux-gnu-gcc 1.0" || k.Build.Objects != 2 || len(k.Build.Key) != 64 {
		t.Errorf("got %+v", k.Build)
	}
	if len(made) != 3 || made[2] != (Progress{Arch: "arm64", Done: 2, Object: "net/core/pktgen.o"}) {
		t.Errorf("progress: %+v", made)
	}

	// The same build is cached; make does not run.
	made = nil
	again, err := b.Build(t.Context(), req)
	if err != nil || !again.Cached || again.Build.Key != k.Build.Key || len(made) > 0 {
		t.Errorf("the second time: %+v, %v, progress %v", again, err, made)
	}
	// Another option results in another kernel, which replaces the first.
	other, err := b.Build(t.Context(), request(t, tree, "CONFIG_A=y"))
	if err != nil || other.Cached || other.Build.Key == k.Build.Key {
		t.Errorf("with other options: %+v, %v", other, err)
	}
	// So is a tree that was edited.
	if err := os.Chtimes(filepath.Join(tree, "init/main.c"), time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if k, err := b.Build(t.Context(), request(t, tree, "CONFIG_A=y")); err != nil || k.Cached {
		t.Errorf("with an edited tree: %+v, %v", k, err)
	}
}

func TestBuildEstimates(t *testing.T) {
	fakeTools(t)
	b := newBuilder(t, t.TempDir())
	var total int
	b.Made = func(p Progress) { total = p.Total }
	if _, err := b.Build(t.Context(), request(t, fakeTree(t, "true"), "CONFIG_A=y")); err != nil || total != 0 {
		t.Errorf("the first build: total %d, %v; want 0", total, err)
	}
	req := request(t, fakeTree(t, "true"), "CONFIG_A=y")
	req.Name = "other"
	if _, err := b.Build(t.Context(), req); err != nil || total != 2 {
		t.Errorf("the second build: total %d, %v; want the 2 objects of the first", total, err)
	}
	// One that was interrupted makes the rest only, which says nothing of a whole one.
	req.Name = "third"
	begun := filepath.Join(b.objects, "third-arm64", "kernel")
	if err := os.MkdirAll(begun, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(begun, "bounds.s"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(t.Context(), req); err != nil || total != 0 {
		t.Errorf("a build that goes on: total %d, %v; want 0", total, err)
	}
}

func TestBuildFails(t *testing.T) {
	fakeTools(t)
	for _, tt := range []struct {
		name  string
		rule  string
		lines []string
		want  string
		is    error
	}{
		{"a lost option", "true", []string{"CONFIG_A=y", "CONFIG_KILLED=y"},
			"build kernel mine for arm64: configure 6.99.1 for arm64: 1 option dropped by Kconfig: CONFIG_KILLED: requested y (", nil},
		{"the compiler", "echo 'init/main.c:7:2: error: #error no'; echo 'make: *** [x] Error 1'; false", []string{"CONFIG_A=y"},
			"build kernel mine for arm64: make: init/main.c:7:2: error: #error no (log: ", nil},
		{"make alone", "echo '  CC  x'; exit 3", []string{"CONFIG_A=y"}, "make: make: *** [Makefile:", nil},
		{"a full disk", "echo 'fatal error: error writing to x.s: No space left on device'; false", []string{"CONFIG_A=y"},
			"make: no space left on the cache's disk", syscall.ENOSPC},
		{"an image of another kind", "echo no > image", []string{"CONFIG_A=y"}, "build kernel mine for arm64: ", kernel.ErrNotKernel},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilder(t, t.TempDir())
			_, err := b.Build(t.Context(), request(t, fakeTree(t, tt.rule), tt.lines...))
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v\nwant one line with %q", err, tt.want)
			}
			if found, err := b.cache.List(); err != nil || len(found) > 0 {
				t.Errorf("a failed build is in the cache: %v, %v", found, err)
			}
		})
	}
}

// TestBuildProfile: the result is checked for a profile's features. An option that
// the tree does not have is only reported.
func TestBuildProfile(t *testing.T) {
	fakeTools(t)
	b := newBuilder(t, t.TempDir())
	req := request(t, fakeTree(t, "true"), "CONFIG_A=y")
	req.Name, req.Plan.Profile = "", &Profile{Name: "p", Features: []string{"modules", "btf"}}
	var said []string
	b.Say = func(line string) { said = append(said, line) }
	_, err := b.Build(t.Context(), req)
	var lacks *check.Error
	if !errors.As(err, &lacks) || !strings.HasPrefix(err.Error(), "build kernel p-6.99 for arm64: ") || len(lacks.Missing) != 1 || lacks.Missing[0].Name != "MODULES" {
		t.Errorf("got %v, want an error about MODULES alone", err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "6.99.1 has no CONFIG_DEBUG_INFO_BTF on arm64, ") {
		t.Errorf("said %q, want a line about DEBUG_INFO_BTF", said)
	}
}

// TestBuildCancelled: make's children end with the context, and the next build is not
// locked out.
func TestBuildCancelled(t *testing.T) {
	fakeTools(t)
	b := newBuilder(t, t.TempDir())
	pidFile := filepath.Join(t.TempDir(), "pid")
	tree := fakeTree(t, fmt.Sprintf("if [ ! -e %[1]s ]; then sleep 1000 & echo $$! > %[1]s.new; mv %[1]s.new %[1]s; wait; fi", pidFile))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	go func() {
		for ctx.Err() == nil && !isFile(pidFile) {
			time.Sleep(10 * time.Millisecond)
		}
		cancel(cause)
	}()
	req := request(t, tree, "CONFIG_A=y")
	if _, err := b.Build(ctx, req); !errors.Is(err, cause) {
		t.Fatalf("got %v, want %v", err, cause)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for running(pid) {
		time.Sleep(10 * time.Millisecond) // the test's own deadline bounds it
	}
	if k, err := b.Build(t.Context(), req); err != nil || k.Cached {
		t.Errorf("the next build: %+v, %v", k, err)
	}
}

// running reports whether a process is running, not a zombie.
func running(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// TestBuildTogether: of two concurrent builds of a name, one builds and the other uses
// its result.
func TestBuildTogether(t *testing.T) {
	fakeTools(t)
	cache := t.TempDir()
	req := request(t, fakeTree(t, "sleep 0.2"), "CONFIG_A=y")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var cached []bool
	for range 3 {
		b := newBuilder(t, cache)
		wg.Go(func() {
			k, err := b.Build(t.Context(), req)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			cached = append(cached, k.Cached)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.SortFunc(cached, func(a, b bool) int { return map[bool]int{false: 0, true: 1}[a] - map[bool]int{false: 0, true: 1}[b] })
	if !slices.Equal(cached, []bool{false, true, true}) {
		t.Errorf("cached: got %v, want one that was built", cached)
	}
}

func TestMissing(t *testing.T) {
	has := func(names ...string) func(string) (string, error) {
		return func(p string) (string, error) {
			if slices.Contains(names, p) {
				return p, nil
			}
			return "", os.ErrNotExist
		}
	}
	base := []string{"make", "gcc", "ld", "flex", "bison", "bc", "perl", "tar", "xz"}
	foreign := arch.Arch{Name: "s390x", Triplet: "s390x-linux-gnu"}
	objtool := arch.Arch{Name: "x", Triplet: "x", Build: arch.Build{Objtool: true}}
	for _, tt := range []struct {
		name   string
		arch   arch.Arch
		btf    bool
		have   []string
		header bool
		want   string
	}{
		{"all there", foreign, false, append(base, "s390x-linux-gnu-gcc"), false, ""},
		{"no cross compiler", foreign, false, base, false, "gcc-s390x-linux-gnu"},
		{"BTF", foreign, true, append(base, "s390x-linux-gnu-gcc"), false, "dwarves"},
		{"no header", objtool, false, append(base, "x-gcc"), false, "libelf-dev"},
		{"header", objtool, false, append(base, "x-gcc"), true, ""},
		{"no parser generators", foreign, false, []string{"make", "gcc", "ld", "bc", "perl", "tar", "xz", "s390x-linux-gnu-gcc"}, false, "flex bison"},
	} {
		_, packages := missing(tt.arch, tt.btf, has(tt.have...), func(string) bool { return tt.header })
		if got := strings.Join(packages, " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	fakeTools(t)
	if err := os.Remove(filepath.Join(os.Getenv("PATH"), "flex")); err != nil {
		t.Fatal(err)
	}
	err := checkTools(t.Context(), arch.All[1], true)
	if !errors.Is(err, kernel.ErrHostLacks) || !strings.Contains(err.Error(), "flex; on Debian: ") || !strings.HasSuffix(err.Error(), "apt-get install flex") {
		t.Errorf("got %v", err)
	}
}

func TestDefaultName(t *testing.T) {
	lab := &Plan{Profile: &Profile{Name: "lab"}}
	for release, want := range map[string]string{"6.12.107": "lab-6.12", "7.3-rc4": "lab-7.3", "7.3.0-rc4": "lab-7.3"} {
		if got := defaultName(lab, release); got != want {
			t.Errorf("%s: got %q, want %q", release, got, want)
		}
	}
	if got := defaultName(&Plan{}, "4.14.1"); got != "own-4.14" {
		t.Errorf("got %q, want own-4.14", got)
	}
}

func TestFirstError(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"  CC      a.o\nmake[1]: warning: x\n", ""},
		{"a.c:1:2: warning: error is a word\nb.c:3:4: error: bad\nc.c:1:1: error: worse\n", "b.c:3:4: error: bad"},
		{"make[2]: *** [a.o] Error 1\nb.c:3:4: fatal error: x.h: No such file or directory\n", "b.c:3:4: fatal error: x.h: No such file or directory"},
		{"ld: a.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n", "a.c:(.text+0x1): undefined reference to `g'"},
		{"FAILED: load BTF from vmlinux: Invalid argument\nmake: *** [vmlinux] Error 255\n", "FAILED: load BTF from vmlinux: Invalid argument"},
		{"make: *** No rule to make target 'x'.  Stop.\n", "make: *** No rule to make target 'x'. Stop."},
		{"/bin/sh: 1: bc: command not found\n", "/bin/sh: 1: bc: command not found"},
		{"a.c:1:1: error: \x1b[31mred\n", "a.c:1:1: error: "},
	} {
		var f firstError
		for line := range strings.Lines(tt.in) {
			f.line(strings.TrimSuffix(line, "\n"))
		}
		if got := f.String(); got != tt.want && !(strings.HasSuffix(tt.want, ": ") && strings.HasPrefix(got, tt.want) && !strings.Contains(got, "\x1b")) {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzFirstError(f *testing.F) {
	f.Add("a.c:1:1: error: x")
	f.Fuzz(func(t *testing.T, s string) {
		var e firstError
		e.line(s)
		if got := e.String(); strings.ContainsAny(got, "\x1b\n\r") || len(got) > 4*240 {
			t.Errorf("%q became %q", s, got)
		}
		object.FindStringSubmatch(s)
	})
}
