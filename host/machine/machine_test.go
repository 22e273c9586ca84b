package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labctl/host/image/initramfs"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/targets"
)

func TestFindTarget(t *testing.T) {
	for _, tt := range []struct {
		arch, board string
		want        string // target's name
		err         string
	}{
		{"", "", targets.Host().Name, ""},
		{"arm64", "", "arm64", ""},
		{"", "raspi3b", "raspi3b", ""},
		{"arm64", "raspi3b", "raspi3b", ""},
		{"amd64", "raspi3b", "", "--board raspi3b is arm64, not --arch amd64; omit --arch"},
		{"raspi3b", "", "", "--arch raspi3b: this is a board; use --board raspi3b"},
		{"", "arm64", "", "--board arm64: this is an architecture; use --arch arm64"},
		{"arm46", "", "", "--arch \"arm46\" is not known, did you mean arm64? (known: amd64, arm64, arm"},
		{"", "raspi3", "", "--board \"raspi3\" is not known, did you mean raspi3b? (known: raspi3b"},
		{"sparc", "", "", "--arch \"sparc\" is not known (known: amd64, arm64, arm"},
		{"\x1b[2J", "", "", "not known"},
	} {
		got, err := FindTarget(tt.arch, tt.board)
		switch {
		case tt.err == "" && (err != nil || got.Name != tt.want):
			t.Errorf("FindTarget(%q, %q) = %s, %v; want %s", tt.arch, tt.board, got.Name, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || outcome.Of(err) != outcome.BadInput):
			t.Errorf("FindTarget(%q, %q) = %v; want bad input with %q", tt.arch, tt.board, err, tt.err)
		}
	}
}

// cached returns a kernel from the user's cache, and pulls it if necessary.
func cached(t *testing.T, series, arch string) *kernel.Kernel {
	t.Helper()
	c, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	k, err := findKernel(t.Context(), Env{Cache: c, Say: func(s string) { t.Log(s) }}, series, arch)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// file returns a kernel in an image file, with a configuration next to it unless that
// is empty. The analysis is stored in the test's own cache.
func file(t *testing.T, arch, config string) *kernel.Kernel {
	t.Helper()
	dir := t.TempDir()
	image, err := os.ReadFile(cached(t, "6.12", arch).Image())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"vmlinuz": image, "config": []byte(config)} {
		if len(data) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := kernel.Open(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := findKernel(t.Context(), Env{Cache: c}, filepath.Join(dir, "vmlinuz"), arch)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func row(t *testing.T, name string) targets.Target {
	t.Helper()
	tgt, ok := targets.Find(name)
	if !ok {
		t.Fatalf("no target %s", name)
	}
	return tgt
}

func names(mods []initramfs.Module) (out []string) {
	for _, m := range mods {
		out = append(out, m.Name)
	}
	return out
}

func TestPickLink(t *testing.T) {
	for _, tt := range []struct {
		name    string
		target  string
		kernel  func(*testing.T) *kernel.Kernel
		want    string   // the link's kind
		modules []string // a module after those that it needs
		err     string
	}{
		{"built in", "arm64", func(t *testing.T) *kernel.Kernel { return cached(t, "6.12", "arm64") }, "virtio", nil, ""},
		{"modules", "arm64", func(t *testing.T) *kernel.Kernel { return cached(t, "5.10", "arm64") }, "virtio", []string{"virtio", "virtio_ring", "virtio_pci", "virtio_console"}, ""},
		{"modules", "amd64", func(t *testing.T) *kernel.Kernel { return cached(t, "5.10", "amd64") }, "virtio", []string{"virtio", "virtio_ring", "virtio_pci", "virtio_console"}, ""},
		{"a board without PCI", "raspi3b", func(t *testing.T) *kernel.Kernel { return cached(t, "6.12", "arm64") }, "uart", nil, ""},
		{"no configuration", "arm64", func(t *testing.T) *kernel.Kernel { return file(t, "arm64", "") }, "virtio", nil, ""},
		{"built in, by the file beside", "arm64", func(t *testing.T) *kernel.Kernel {
			return file(t, "arm64", "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_CONSOLE=y\n")
		}, "virtio", nil, ""},
		{"modules that are not available", "arm64", func(t *testing.T) *kernel.Kernel {
			return file(t, "arm64", "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_CONSOLE=m\n")
		}, "", nil, "cannot communicate with labctl on arm64: virtio-serial: "},
	} {
		t.Run(tt.target+" "+tt.name, func(t *testing.T) {
			m := &Machine{Target: row(t, tt.target), Kernel: tt.kernel(t)}
			err := m.pickLink(Env{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || outcome.Of(err) != outcome.BadInput {
					t.Errorf("pickLink = %v, want bad input with %q", err, tt.err)
				}
				return
			}
			if err != nil || m.Link.Kind != tt.want {
				t.Errorf("pickLink = %v, link %q, want %q", err, m.Link.Kind, tt.want)
			}
			got := names(m.modules)
			slices.Sort(got)
			want := slices.Sorted(slices.Values(tt.modules))
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("modules %q lack %s", got, w)
				}
			}
			if len(want) == 0 && len(got) > 0 {
				t.Errorf("modules %q, want none", got)
			}
			for _, mod := range m.modules {
				if len(mod.Data) == 0 {
					t.Errorf("module %s is empty", mod.Name)
				}
			}
			if order := names(m.modules); len(order) > 0 && order[len(order)-1] != "virtio_console" {
				t.Errorf("modules in the order %q, want virtio_console after what it needs", order)
			}
		})
	}
}

// TestPickLinkFallsBack: without virtio a PC still has its second UART.
func TestPickLinkFallsBack(t *testing.T) {
	m := &Machine{Target: row(t, "amd64"), Kernel: file(t, "amd64", "CONFIG_VIRTIO_PCI=m\n")}
	if err := m.pickLink(Env{}); err != nil || m.Link.Kind != "uart" || m.Link.TTY != "ttyS1" || len(m.modules) != 0 {
		t.Errorf("pickLink = %v, link %+v, modules %q; want ttyS1", err, m.Link, names(m.modules))
	}
}

func TestCheckConfig(t *testing.T) {
	var said []string
	env := Env{Say: func(s string) { said = append(said, s) }}
	m := &Machine{Target: row(t, "arm64"), Kernel: file(t, "arm64", ""), Link: targets.Link{Kind: "virtio"}}
	if err := m.checkConfig(env); err != nil || len(said) != 1 || !strings.Contains(said[0], "no configuration to check") {
		t.Errorf("without a configuration checkConfig = %v and says %q; want a warning", err, said)
	}
	m.Kernel = file(t, "arm64", "CONFIG_PRINTK=y\n")
	if err := m.checkConfig(env); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "CONFIG_") {
		t.Errorf("with an option alone checkConfig = %v; want bad input that names what lacks", err)
	}
	m.Kernel = cached(t, "6.12", "arm64")
	if err := m.checkConfig(env); err != nil {
		t.Errorf("for a Debian kernel checkConfig = %v", err)
	}
	m.spec.Features = []string{"no-such-feature"}
	if err := m.checkConfig(env); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "no-such-feature") {
		t.Errorf("with an unknown feature checkConfig = %v", err)
	}
}

// A machine that cannot hold its kernel and its files does not start.
func TestCheckMemory(t *testing.T) {
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(initrd, 15<<20); err != nil { // as with commands
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		k := cached(t, "6.12", arch)
		target, _ := targets.Find(arch)
		m := &Machine{Target: target, Kernel: k, image: k.Image(), initrd: initrd}
		if target.PVH {
			path, ok := k.PVH(t.Context())
			if !ok {
				t.Fatalf("%s has no PVH entry", k)
			}
			m.image = path
		}
		for _, mb := range []int{0, 128} {
			m.spec.MemoryMB = mb
			if err := m.checkMemory(); err != nil {
				t.Errorf("%s with %d MB: %v", arch, mb, err)
			}
		}
		m.spec.MemoryMB = 64
		err := m.checkMemory()
		if err == nil || outcome.Of(err) != outcome.BadInput || !strings.HasPrefix(err.Error(), "--mem 64: too little memory: kernel 6.12") ||
			!strings.HasSuffix(err.Error(), "give 128 or more") {
			t.Errorf("%s with 64 MB: %v; want bad input that offers 128", arch, err)
		}
	}
}

// A machine that is booted each time, over a UART, has files in its initramfs.
func TestCarries(t *testing.T) {
	for name, want := range map[string]bool{"amd64": false, "arm64": false, "raspi3b": true, "raspi2b": true} {
		target, _ := targets.Find(name)
		m := &Machine{Target: target, Link: target.Links[0]}
		if got := m.Carries(); got != want {
			t.Errorf("%s: Carries = %t, want %t", name, got, want)
		}
	}
}

// A kernel with pages of 16 KB gets a CPU that has them.
func TestCPUFor(t *testing.T) {
	for config, want := range map[string]string{"CONFIG_ARM64_16K_PAGES=y\n": "cortex-a76", "CONFIG_ARM64_4K_PAGES=y\n": "cortex-a57"} {
		m := &Machine{Kernel: file(t, "arm64", config)}
		m.Target, _ = targets.Find("arm64")
		// That the rest of the configuration is missing comes later.
		if err := m.readKernel(t.Context(), Env{}); m.Target.CPU != want {
			t.Errorf("%q: CPU %s (%v), want %s", config, m.Target.CPU, err, want)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	c, err := kernel.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no kernel\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		spec Spec
		want string
	}{
		{"board's memory", Spec{Board: "raspi3b", MemoryMB: 512}, "--board raspi3b always has 4 CPUs and 1024 MB of memory; omit --smp and --mem"},
		{"board's CPUs", Spec{Board: "raspi3b", CPUs: 2}, "always has 4 CPUs"},
		{"fewer than no CPUs", Spec{Arch: "arm64", CPUs: -1}, "--smp -1: want 1 to 64"},
		{"less than no memory", Spec{Arch: "arm64", MemoryMB: -5}, "--mem -5: want 64 to 1048576"},
		{"kernel's name", Spec{Arch: "arm64", Kernel: "six"}, "--kernel"},
		{"no kernel", Spec{Arch: "arm64", Kernel: text}, text},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Prepare(t.Context(), Env{Cache: c}, tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Prepare = %v, want one line with %q", err, tt.want)
			}
		})
	}
}
