package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"labctl/host/cachedir"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/internal/synth"
)

// testBTF is the BTF of a kernel whose exit_signal is at byte 40.
func testBTF(t testing.TB) []byte {
	t.Helper()
	u64, u32, b := &btf.Int{Name: "long long unsigned int", Size: 8}, &btf.Int{Name: "unsigned int", Size: 4}, &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	args := &btf.Struct{Name: "kernel_clone_args", Size: 64, Members: []btf.Member{
		{Name: "flags", Type: &btf.Typedef{Name: "u64", Type: u64}},
		{Name: "exit_signal", Type: b, Offset: 40 * 8},
		{Name: "", Offset: 48 * 8, Type: &btf.Union{Size: 8, Members: []btf.Member{
			{Name: "stack", Type: u64},
			{Name: "", Type: &btf.Struct{Size: 8, Members: []btf.Member{{Name: "idle", Type: b, Offset: 32}}}},
		}}},
		{Name: "io_thread", Type: u32, Offset: 56 * 8, BitfieldSize: 1},
		{Name: "user_worker", Type: u32, Offset: 56*8 + 1, BitfieldSize: 1},
		{Name: "not_wanted", Type: b, Offset: 60 * 8},
	}}
	fn := &btf.Pointer{Target: &btf.FuncProto{Return: b, Params: []btf.FuncParam{{Type: &btf.Pointer{Target: &btf.Void{}}}}}}
	builder, err := btf.NewBuilder([]btf.Type{
		args,
		&btf.Func{Name: "kernel_clone", Type: &btf.FuncProto{Return: b, Params: []btf.FuncParam{{Name: "args", Type: &btf.Pointer{Target: args}}}}},
		&btf.Func{Name: "kthread_create_on_node", Type: &btf.FuncProto{Return: b, Params: []btf.FuncParam{
			{Name: "threadfn", Type: fn},
			{Name: "namefmt", Type: &btf.Pointer{Target: &btf.Const{Type: &btf.Int{Name: "char", Size: 1}}}},
			{Type: &btf.Void{}},
		}}},
		&btf.Func{Name: "not_wanted", Type: &btf.FuncProto{Return: b}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := builder.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// testDeb is a kernel package for arm64.
func testDeb(t testing.TB, release string) []byte {
	img := make([]byte, 4096)
	copy(img, "MZ")
	copy(img[56:], "ARM\x64")
	img = append(append(img, synth.Banner(release)...), testBTF(t)...)
	m := "lib/modules/" + release + "/"
	return synth.Deb(t,
		synth.File{Name: "./boot/vmlinuz-" + release, Data: img},
		synth.File{Name: "./boot/config-" + release, Data: []byte("# comment\nCONFIG_VIRTIO=m\nCONFIG_PROC_FS=y\n# CONFIG_PVH is not set\nCONFIG_DEFAULT_HOSTNAME=\"(none)\"\nCONFIG_HZ=250\nCONFIG_CHECKPOINT_RESTORE=y\n")},
		synth.File{Name: m + "modules.builtin", Data: []byte("kernel/drivers/pci/pci-hole.ko\n")},
		synth.File{Name: m + "kernel/drivers/virtio/virtio.ko", Data: synth.Module("")},
		synth.File{Name: m + "kernel/drivers/virtio/virtio_ring.ko", Data: synth.Module("virtio")},
		synth.File{Name: m + "kernel/drivers/virtio/virtio_pci.ko", Data: synth.Module("virtio-ring,virtio,pci-hole")},
		synth.File{Name: m + "kernel/fs/ext4/ext4.ko", Data: synth.Module("\x00softdep=pre: crc32c pcrypt virtio gone post: orphan")},
		synth.File{Name: m + "kernel/crypto/a_crc32c.ko", Data: synth.Module("\x00alias=crc32c")},
		synth.File{Name: m + "kernel/crypto/crc32c_generic.ko", Data: synth.Module("\x00alias=crypto-crc32c\x00alias=crc32c")},
		synth.File{Name: m + "kernel/crypto/pcrypt.ko", Data: synth.Module("\x00softdep=pre: pcrypt crc32c")},
		synth.File{Name: m + "kernel/a/loop-a.ko", Data: synth.Module("loop_b")},
		synth.File{Name: m + "kernel/a/loop_b.ko", Data: synth.Module("loop_a")},
		synth.File{Name: m + "kernel/a/orphan.ko", Data: synth.Module("gone")},
		synth.File{Name: m + "kernel/a/not_elf.ko", Data: []byte("text")},
		synth.File{Name: "usr/lib/linux-image-" + release + "/broadcom/bcm2837-rpi-3-b.dtb", Data: []byte("tree")},
	)
}

// shelf is a repository that returns the same package for every request.
type shelf struct {
	dir       string
	pkg       debian.Package
	downloads *atomic.Int32
	hold      func(ctx context.Context) error // before a download ends
}

func newShelf(t testing.TB, version, release string) *shelf {
	deb := testDeb(t, release)
	s := &shelf{dir: t.TempDir(), downloads: new(atomic.Int32),
		pkg: debian.Package{Name: "linux-image-" + release, Version: version, SHA256: fmt.Sprintf("%x", sha256.Sum256(deb)), Size: int64(len(deb))}}
	if err := os.WriteFile(filepath.Join(s.dir, "x.deb"), deb, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shelf) Resolve(context.Context, string, func(Progress)) ([]debian.Package, error) {
	return []debian.Package{s.pkg}, nil
}

func (s *shelf) Download(ctx context.Context, _ []debian.Package, _ func(Progress)) ([]string, error) {
	s.downloads.Add(1)
	if s.hold != nil {
		if err := s.hold(ctx); err != nil {
			return nil, err
		}
	}
	return []string{filepath.Join(s.dir, "x.deb")}, nil
}

func (s *shelf) Lookup(_ context.Context, name, version string, _ func(Progress)) (debian.Package, error) {
	return debian.Package{}, &debian.MissingError{Package: name + "=" + version, Suite: "trixie"}
}

func (s *shelf) Drop() error { return nil }

func openWith(t testing.TB, dir string, s repository) *Cache {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.repository = func(Source, string, string) repository { return s }
	return c
}

const testRelease = "6.12.107+deb13-arm64"

var trixie = Ref{Suite: "trixie", Series: "6.12"}

func TestGet(t *testing.T) {
	s := newShelf(t, "6.12.107-1", testRelease)
	c := openWith(t, t.TempDir(), s)
	if _, err := c.Find(trixie, "arm64"); !errors.Is(err, ErrNotCached) || !strings.Contains(err.Error(), "labctl kernel pull 6.12 --arch arm64") {
		t.Errorf("Find in an empty cache: %v", err)
	}
	if got := c.Default("arm64"); got != trixie {
		t.Errorf("Default of an empty cache: got %v, want %v", got, trixie)
	}
	k, err := c.Get(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(k.Dir) != "trixie-arm64-6.12.107-1" || k.Release != testRelease || k.Series != "6.12" || k.Suite != "trixie" {
		t.Errorf("got %+v", k)
	}
	if k.Packages[0] != s.pkg {
		t.Errorf("packages: got %+v, want %+v", k.Packages, s.pkg)
	}
	for _, ref := range []Ref{trixie, {Suite: "trixie"}, {Release: testRelease}, k.Ref} {
		again, err := c.Get(t.Context(), ref, "arm64", nil)
		if err != nil || again.Dir != k.Dir {
			t.Errorf("Get %s: %v, %v", ref, again, err)
		}
	}
	if n := s.downloads.Load(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	for _, tt := range []struct{ name, want string }{{"VIRTIO", "m"}, {"PROC_FS", "y"}, {"PVH", ""}, {"DEFAULT_HOSTNAME", "(none)"}, {"HZ", "250"}, {"NONE", ""}, {"KCMP", "y"}, {"KPROBE_EVENTS", ""}} {
		if got, ok := k.Option(tt.name); got != tt.want || ok != (tt.want != "") {
			t.Errorf("Option(%s): got %q, %v; want %q", tt.name, got, ok, tt.want)
		}
	}
	for _, name := range []string{"bcm2837-rpi-3-b", "bcm2837-rpi-3-b.dtb", "broadcom/bcm2837-rpi-3-b"} {
		if p, err := k.DTB(name); err != nil || p != filepath.Join(k.Dir, "dtb/broadcom/bcm2837-rpi-3-b.dtb") {
			t.Errorf("DTB(%s): %s, %v", name, p, err)
		}
	}
	if _, err := k.DTB("bcm2837-rpi-3-a"); err == nil || !strings.Contains(err.Error(), "did you mean bcm2837-rpi-3-b?") {
		t.Errorf("DTB of a near name: %v", err)
	}
	if _, err := k.DTB("../../kernel.json"); err == nil {
		t.Error("DTB left its directory")
	}
	if p, err := k.Vmlinux(t.Context()); err != nil || filepath.Dir(p) != k.Dir {
		t.Errorf("Vmlinux: %s, %v", p, err)
	}
	rows, err := c.Sources("arm64")
	if err != nil || len(rows) == 0 {
		t.Fatalf("Sources: %d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		if (r.Kernel != nil) != (r.Name == "6.12") {
			t.Errorf("Sources: %s has kernel %v", r.Series, r.Kernel)
		}
	}
	if err := c.Remove(k); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(k); err != nil {
		t.Errorf("Remove again: %v", err)
	}
	if list, err := c.List(); err != nil || len(list) != 0 {
		t.Errorf("List after Remove: %v, %v", list, err)
	}
	if err := c.Remove(&Kernel{Dir: "/usr/lib"}); err == nil {
		t.Error("Remove outside the cache: no error")
	}
}

// edit replaces the first old in a file by new of the same length.
func edit(t testing.TB, name, old, new string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q: %v", name, old, err)
	}
	if err := os.WriteFile(name, bytes.Replace(b, []byte(old), []byte(new), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFacts(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	var said []string
	c.Say = func(line string) { said = append(said, line) }
	if _, err := c.Get(t.Context(), trixie, "arm64", nil); err != nil {
		t.Fatal(err)
	}
	k, err := c.Get(t.Context(), trixie, "arm64", nil) // as it is found
	if err != nil {
		t.Fatal(err)
	}
	want := &Facts{
		HasBTF: true,
		Members: map[string]Member{
			"kernel_clone_args.flags":       {Offset: 0, Size: 8},
			"kernel_clone_args.exit_signal": {Offset: 40, Size: 4},
			"kernel_clone_args.stack":       {Offset: 48, Size: 8},
			"kernel_clone_args.idle":        {Offset: 52, Size: 4},
			"kernel_clone_args.io_thread":   {Offset: 56, Size: 4, Bits: 1},
			"kernel_clone_args.user_worker": {Offset: 56, Size: 4, Bits: 1, Shift: 1},
		},
		Params: map[string][]Param{
			"kernel_clone":           {{Name: "args", Type: "struct kernel_clone_args *"}},
			"kthread_create_on_node": {{Name: "threadfn", Type: "int (*)(void *)"}, {Name: "namefmt", Type: "const char *"}, {Name: "", Type: "..."}},
		},
	}
	for _, state := range []string{"as pulled", "without it", "of another image", "edited", "cut"} {
		switch state {
		case "without it":
			os.Remove(filepath.Join(k.Dir, factsFile))
		case "of another image":
			edit(t, filepath.Join(k.Dir, factsFile+cachedir.SealSuffix), `"from":"`, `"from":"0`)
		case "edited":
			edit(t, filepath.Join(k.Dir, factsFile), `"size":8`, `"size":4`)
		case "cut":
			if err := os.Truncate(filepath.Join(k.Dir, factsFile), 10); err != nil {
				t.Fatal(err)
			}
		}
		said = nil
		got, err := k.Facts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", state, diff)
		}
		if damaged := state == "edited" || state == "cut"; (len(said) == 1 && strings.HasSuffix(said[0], ": made again")) != damaged {
			t.Errorf("%s: said %q", state, said)
		}
	}
	protos, err := k.Prototypes(t.Context(), "kernel_clone", "nosuch")
	if diff := cmp.Diff(map[string][]Param{"kernel_clone": want.Params["kernel_clone"]}, protos); diff != "" || err != nil {
		t.Errorf("Prototypes: %v, -want +got:\n%s", err, diff)
	}
	os.Remove(filepath.Join(k.Dir, factsFile))
	flipByte(t, filepath.Join(k.Dir, btfFile))
	var damaged *CorruptError
	if _, err := k.Facts(t.Context()); !errors.As(err, &damaged) || damaged.File != filepath.Join(k.Dir, btfFile) {
		t.Errorf("facts of a damaged btf: %v", err)
	}
}

func FuzzReadFacts(f *testing.F) {
	blob := testBTF(f)
	f.Add(blob)
	f.Add(blob[:len(blob)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := ctype.Read(b)
		if err != nil {
			return
		}
		if facts, err := readFacts(spec, 64); err == nil && !facts.HasBTF {
			t.Error("BTF was read, but HasBTF is false")
		}
	})
}

// TestAppendNew: what several modules need is loaded before all of them.
func TestAppendNew(t *testing.T) {
	for _, tt := range []struct{ list, names, want string }{
		{"", "a b", "a b"},
		{"a b", "c", "a b c"},
		{"a c", "b c", "a b c"}, // c before b, and before a
		{"a b c", "c", "a b c"},
	} {
		if got := strings.Join(appendNew(strings.Fields(tt.list), strings.Fields(tt.names)), " "); got != tt.want {
			t.Errorf("appendNew(%s; %s) = %s, want %s", tt.list, tt.names, got, tt.want)
		}
	}
}

func TestModules(t *testing.T) {
	k, err := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease)).Get(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	mods, err := k.Modules("virtio-pci", "virtio", "pci_hole")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range mods {
		got = append(got, fmt.Sprintf("%s %v %s %d", m.Name, m.BuiltIn, m.File, len(m.Data)))
	}
	n := func(dep string) int { return len(synth.Module(dep)) }
	want := []string{
		fmt.Sprintf("virtio false kernel/drivers/virtio/virtio.ko %d", n("")),
		fmt.Sprintf("virtio_ring false kernel/drivers/virtio/virtio_ring.ko %d", n("virtio")),
		fmt.Sprintf("virtio_pci false kernel/drivers/virtio/virtio_pci.ko %d", n("virtio-ring,virtio,pci-hole")),
		"pci_hole true  0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	// Algorithms that ext4 wants are before it, nothing else that may be.
	if mods, err = k.Modules("ext4"); err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, m := range mods {
		got = append(got, m.Name+" "+strings.Join(m.Needs, ","))
	}
	if diff := cmp.Diff([]string{"crc32c_generic ", "pcrypt crc32c_generic", "ext4 pcrypt,crc32c_generic"}, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name, want string
		none       bool
	}{
		{"virtio_pcy", "did you mean virtio_pci?", true},
		{"orphan", "module orphan needs: module gone: no such module", true},
		{"loop_a", "depends on itself", false},
		{"not_elf", "module not_elf: read ELF", false},
	} {
		_, err := k.Modules(tt.name)
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrNoModule) != tt.none {
			t.Errorf("Modules(%s): got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzDependsOf(f *testing.F) {
	f.Add(synth.Module("virtio,virtio_ring"))
	f.Add(synth.Module("\x00softdep=pre: crc32c post: x\x00alias=fs-x"))
	f.Add(synth.ELF(synth.Rel, synth.AArch64))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, _ := readModinfo(b)
		for _, d := range info.pre {
			if d == "" || strings.ContainsAny(d, " \x00") {
				t.Errorf("wanted before: %q", d)
			}
		}
		for _, d := range info.depends {
			if d == "" || strings.ContainsAny(d, "-,\x00") {
				t.Errorf("dependency %q", d)
			}
		}
	})
}

func flipByte(t testing.TB, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCorrupt(t *testing.T) {
	for _, tt := range []struct {
		file   string
		damage func(t testing.TB, name string)
	}{
		{imageFile, flipByte},
		{configFile, flipByte},
		{imageFile, func(t testing.TB, name string) { os.Remove(name) }},
		{modulesFile, func(t testing.TB, name string) { os.Truncate(name, 100) }},
		{btfFile, func(t testing.TB, name string) { os.Truncate(name, 0) }},
		{metaFile, func(t testing.TB, name string) { os.WriteFile(name, []byte("{"), 0o644) }},
	} {
		t.Run(tt.file, func(t *testing.T) {
			s := newShelf(t, "6.12.107-1", testRelease)
			c := openWith(t, t.TempDir(), s)
			k, err := c.Get(t.Context(), trixie, "arm64", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Verify(); err != nil {
				t.Fatalf("Verify of a sound kernel: %v", err)
			}
			name := filepath.Join(k.Dir, tt.file)
			tt.damage(t, name)
			var damaged *CorruptError
			if err := k.Verify(); tt.file != metaFile && (!errors.As(err, &damaged) || damaged.File != name) {
				t.Errorf("Verify: got %v, want a CorruptError of %s", err, name)
			}
			var notes []string
			k, err = c.Get(t.Context(), trixie, "arm64", func(p Progress) {
				if p.Stage == debian.StageDamaged {
					notes = append(notes, p.Note)
				}
			})
			if err != nil || k.Verify() != nil {
				t.Fatalf("Get of a damaged kernel: %v", err)
			}
			if n := s.downloads.Load(); n != 2 {
				t.Errorf("%d downloads, want 2", n)
			}
			if tt.file != metaFile && (len(notes) != 1 || !strings.Contains(notes[0], name)) {
				t.Errorf("reported %q, want one note that names %s", notes, name)
			}
		})
	}
}

// Two caches of one directory act like two processes: their locks are on two open
// files.
func TestConcurrentPulls(t *testing.T) {
	for _, method := range []string{"Get", "Pull"} {
		t.Run(method, func(t *testing.T) {
			dir := t.TempDir()
			s := newShelf(t, "6.12.107-1", testRelease)
			waits := make(chan struct{})
			// The first download ends only when the other pull is waiting.
			s.hold = func(ctx context.Context) error {
				select {
				case <-waits:
					return nil
				case <-time.After(20 * time.Second):
					return errors.New("nobody waits")
				}
			}
			var wg sync.WaitGroup
			for range 2 {
				c := openWith(t, dir, s)
				do := c.Get
				if method == "Pull" {
					do = c.Pull
				}
				wg.Go(func() {
					k, err := do(t.Context(), trixie, "arm64", func(p Progress) {
						if p.Stage == debian.StageWait {
							close(waits)
						}
					})
					if err != nil || k.Verify() != nil {
						t.Errorf("%s: %v", method, err)
					}
				})
			}
			wg.Wait()
			if n := s.downloads.Load(); n != 1 {
				t.Errorf("%d downloads, want 1", n)
			}
		})
	}
}

func TestLockWaitEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	s := newShelf(t, "6.12.107-1", testRelease)
	unlock, err := openWith(t, dir, s).lock(t.Context(), trixie.source(), "arm64", func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = openWith(t, dir, s).Get(ctx, trixie, "arm64", func(p Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if n := s.downloads.Load(); n != 0 {
		t.Errorf("%d downloads without the lock", n)
	}
}

func TestFailedPullLeavesNothing(t *testing.T) {
	s := newShelf(t, "6.12.107-1", testRelease)
	c := openWith(t, t.TempDir(), s)
	// Leftovers of a killed pull of the same kernel, and a running pull of another.
	stale := filepath.Join(c.debianDir(), tmpPrefix("trixie", "arm64")+"1")
	other := filepath.Join(c.debianDir(), tmpPrefix("trixie", "amd64")+"1")
	for _, d := range []string{stale, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.pkg.SHA256 = strings.Repeat("0", 64)
	_, err := c.Pull(t.Context(), trixie, "arm64", nil)
	if err == nil || !strings.Contains(err.Error(), "pull kernel 6.12 for arm64") || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("got %v", err)
	}
	var left []string
	entries, _ := os.ReadDir(c.debianDir())
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{".lock-trixie-arm64", filepath.Base(other)}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestPointRelease(t *testing.T) {
	dir := t.TempDir()
	old, err := openWith(t, dir, newShelf(t, "6.12.107-1", testRelease)).Pull(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf(t, "6.12.110-1", "6.12.110+deb13-arm64")
	c := openWith(t, dir, s)
	if k, err := c.Get(t.Context(), trixie, "arm64", nil); err != nil || k.Dir != old.Dir {
		t.Errorf("Get: %v, %v; want the cached one", k, err)
	}
	k, err := c.Pull(t.Context(), trixie, "arm64", nil)
	if err != nil || k.Version != "6.12.110-1" {
		t.Fatalf("Pull: %v, %v", k, err)
	}
	if got, err := c.Get(t.Context(), trixie, "arm64", nil); err != nil || got.Dir != k.Dir {
		t.Errorf("Get after Pull: %v, %v; want the newer one", got, err)
	}
	if got, err := c.Get(t.Context(), old.Ref, "arm64", nil); err != nil || got.Dir != old.Dir {
		t.Errorf("Get by release: %v, %v; want the older one", got, err)
	}
	if _, err := c.Pull(t.Context(), trixie, "arm64", nil); err != nil || s.downloads.Load() != 1 {
		t.Errorf("Pull of what is there: %v, %d downloads", err, s.downloads.Load())
	}
	// The suite has moved to another series.
	c = openWith(t, dir, newShelf(t, "7.4.1-1", "7.4.1+deb15-arm64"))
	if _, err := c.Pull(t.Context(), trixie, "arm64", nil); err == nil || !strings.Contains(err.Error(), "trixie now serves 7.4 (7.4.1-1), not series 6.12; use debian:trixie") {
		t.Errorf("Pull of a moved suite: %v", err)
	}
	if k, err := c.Pull(t.Context(), Ref{Suite: "trixie"}, "arm64", nil); err != nil || k.Series != "7.4" {
		t.Errorf("Pull of debian:trixie: %v, %v", k, err)
	}
	if got := c.Default("arm64"); got != trixie {
		t.Errorf("Default: got %v, want %v", got, trixie)
	}
}

func TestPullRefuses(t *testing.T) {
	c := openWith(t, t.TempDir(), newShelf(t, "6.12.107-1", testRelease))
	for _, tt := range []struct {
		ref        Ref
		arch, want string
	}{
		{trixie, "riscv64", "not available for riscv64, only for amd64, arm, arm64"},
		{trixie, "amd64", "the image is for arm64, not amd64"},
		{Ref{Path: "/x"}, "arm64", "no such file"},
	} {
		if _, err := c.Pull(t.Context(), tt.ref, tt.arch, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Pull %s for %s: got %v, want %q", tt.ref, tt.arch, err, tt.want)
		}
	}
}

func TestFileKernel(t *testing.T) {
	c := openWith(t, t.TempDir(), nil)
	dir := t.TempDir()
	img := synth.BzImage(synth.Gzip(synth.ELF(synth.Exec, synth.X86_64,
		synth.Section{Name: ".rodata", Data: synth.Banner("6.1.0-x")}, synth.Section{Name: ".BTF", Data: testBTF(t)})))
	path := filepath.Join(dir, "vmlinuz-6.1.0-x")
	if err := os.WriteFile(path, img, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config-6.1.0-x"), []byte("CONFIG_PVH=y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "", "amd64"} { // the second time from the cache
		k, err := c.Get(t.Context(), Ref{Path: path}, arch, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k.Arch != "amd64" || k.Release != "6.1.0-x" || k.Image() != path || k.Verify() != nil {
			t.Errorf("got %+v, %v", k, k.Verify())
		}
		if v, ok := k.Option("PVH"); v != "y" || !ok {
			t.Errorf("Option from the file beside: %q, %v", v, ok)
		}
		if f, err := k.Facts(t.Context()); err != nil || f.Members["kernel_clone_args.exit_signal"].Offset != 40 {
			t.Errorf("Facts: %+v, %v", f, err)
		}
		if p, err := k.Vmlinux(t.Context()); err != nil || !isFile(p) {
			t.Errorf("Vmlinux: %s, %v", p, err)
		}
		if _, err := k.Modules("virtio"); !errors.Is(err, ErrNoModule) {
			t.Errorf("Modules: %v", err)
		}
	}
	text := filepath.Join(dir, "README")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no kernel\n"), 100), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, arch, want string }{
		{path, "arm64", "the image is for amd64, not arm64"},
		{text, "", "not a kernel image"},
		{dir, "", "no built kernel in this directory (looked for arch/x86/boot/bzImage, "},
		{filepath.Join(dir, "none"), "", "no such file"},
	} {
		if _, err := c.Get(t.Context(), Ref{Path: tt.path}, tt.arch, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Get %s: got %v, want %q", tt.path, err, tt.want)
		}
	}
}

// TestPullSigned runs a whole pull twice concurrently: apt, a signed archive, the
// lock, the unpacking.
func TestPullSigned(t *testing.T) {
	v := "6.12.107-1"
	repo := synth.NewRepo(t, "trixie", "arm64",
		synth.Package{Name: "linux-image-arm64", Version: v, Depends: "linux-image-" + testRelease + " (= " + v + ")", Deb: []byte("meta")},
		synth.Package{Name: "linux-image-" + testRelease, Version: v, Depends: "kmod", Deb: testDeb(t, testRelease)})
	dir := t.TempDir()
	_, err := exec.LookPath("apt-get")
	haveApt := err == nil
	var wg sync.WaitGroup
	for range 2 {
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			k, err := c.Get(t.Context(), trixie, "arm64", nil)
			switch {
			case !haveApt:
				if !errors.Is(err, ErrHostLacks) {
					t.Errorf("without apt: %v", err)
				}
			case err != nil:
				t.Error(err)
			case k.Release != testRelease || k.Verify() != nil:
				t.Errorf("got %+v", k)
			}
		})
	}
	wg.Wait()
	if n := repo.Gets("%2bdeb13-arm64_" + v + "_arm64.deb"); haveApt && n+repo.Gets("+deb13-arm64_"+v+"_arm64.deb") != 1 {
		t.Errorf("the package was fetched %d times, want once", n)
	}
}

// TestRepair damages files that are not read at every start.
func TestRepair(t *testing.T) {
	for _, file := range []string{modulesFile, btfFile, dtbSums, "dtb/broadcom/bcm2837-rpi-3-b.dtb"} {
		s := newShelf(t, "6.12.107-1", testRelease)
		c := openWith(t, t.TempDir(), s)
		k, err := c.Get(t.Context(), trixie, "arm64", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.VerifyAll(); err != nil {
			t.Fatalf("VerifyAll of a sound kernel: %v", err)
		}
		flipByte(t, filepath.Join(k.Dir, file))
		var damaged *CorruptError
		if err := k.VerifyAll(); !errors.As(err, &damaged) || filepath.Base(damaged.File) != filepath.Base(file) {
			t.Errorf("%s: VerifyAll: %v", file, err)
		}
		if strings.HasPrefix(file, "dtb") {
			if p, err := k.DTB("bcm2837-rpi-3-b"); !errors.As(err, &damaged) {
				t.Errorf("%s: DTB: %s, %v; want a CorruptError", file, p, err)
			}
		}
		noted := 0
		k, err = c.Repair(t.Context(), k, func(p Progress) {
			if p.Stage == debian.StageDamaged {
				noted++
			}
		})
		if err != nil || k.VerifyAll() != nil || noted != 1 || s.downloads.Load() != 2 {
			t.Errorf("%s: Repair: %v, told %d times, %d downloads; want a sound kernel, 1, 2", file, err, noted, s.downloads.Load())
		}
	}
}

// TestInterruptedPull: the old kernel is there until the new one is.
func TestInterruptedPull(t *testing.T) {
	dir := t.TempDir()
	s := newShelf(t, "6.12.107-1", testRelease)
	c := openWith(t, dir, s)
	k, err := c.Get(t.Context(), trixie, "arm64", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Default("arm64"); got != trixie {
		t.Fatalf("Default: %v", got)
	}
	flipByte(t, filepath.Join(k.Dir, configFile))
	s.hold = func(context.Context) error { return context.Canceled }
	if _, err := c.Get(t.Context(), trixie, "arm64", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted repair: %v", err)
	}
	if list, err := c.List(); err != nil || len(list) != 1 || list[0].Dir != k.Dir {
		t.Errorf("afterwards: %v, %v; want the damaged kernel", list, err)
	}
	// A build is replaced as a whole, too.
	older := filepath.Join(dir, "older")
	newer := filepath.Join(dir, "newer")
	for _, d := range []string{older, newer} {
		if err := errors.Join(os.Mkdir(d, 0o755), os.WriteFile(filepath.Join(d, "name"), []byte(d), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := replace(newer, older); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(older, "name")); err != nil || string(b) != newer || isDir(newer) {
		t.Errorf("replaced: %q, %v", b, err)
	}
}

// TestDefault: the default does not change because a kernel was lost.
func TestDefault(t *testing.T) {
	bookworm := Ref{Suite: "bookworm", Series: "6.1"}
	dir := t.TempDir()
	var said []string
	open := func(version, release string) *Cache {
		c := openWith(t, dir, newShelf(t, version, release))
		c.Say = func(line string) { said = append(said, line) }
		return c
	}
	get := func(c *Cache, ref Ref) *Kernel {
		t.Helper()
		k, err := c.Get(t.Context(), ref, "arm64", nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	want := func(c *Cache, ref Ref, line string) {
		t.Helper()
		if got := c.Default("arm64"); got != ref || strings.Join(said, "\n") != line {
			t.Errorf("Default: %v, said %q; want %v, %q", got, said, ref, line)
		}
		said = nil
	}
	c := open("6.1.176-1", "6.1.0-50-arm64")
	get(c, bookworm)
	want(c, bookworm, "")
	c = open("6.12.107-1", testRelease)
	k := get(c, trixie)
	want(c, trixie, "the default kernel for arm64 is 6.12 now; it was 6.1")
	want(c, trixie, "")
	// It is lost: still the default, which Get pulls again.
	if err := os.RemoveAll(k.Dir); err != nil {
		t.Fatal(err)
	}
	want(c, trixie, "")
	k = get(c, c.Default("arm64"))
	flipByte(t, filepath.Join(k.Dir, metaFile))
	c = open("6.12.107-1", testRelease)
	want(c, trixie, fmt.Sprintf("kernel %s is damaged: %s: it is not as it was stored: not used; labctl doctor --deep repairs it", filepath.Base(k.Dir), filepath.Join(k.Dir, metaFile)))
	// It is removed on purpose.
	k = get(c, trixie)
	said = nil
	if err := c.Remove(k); err != nil {
		t.Fatal(err)
	}
	want(c, bookworm, "the default kernel for arm64 is 6.1 now; it was 6.12")
}
