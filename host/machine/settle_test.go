package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labctl/host/kernel"
	"labctl/host/outcome"
)

func TestSettle(t *testing.T) {
	k := file(t, "arm64", "")
	c, err := kernel.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		spec Spec
		arch string
		err  string
	}{
		{Spec{}, "", ""},
		{Spec{Kernel: k.Path}, "arm64", ""},
		{Spec{Kernel: k.Path, Arch: "amd64"}, "amd64", ""}, // for Prepare to refuse
		{Spec{Kernel: k.Path, Board: "raspi3b"}, "", ""},
		{Spec{Kernel: "6.12"}, "", ""},
		{Spec{Kernel: "gomod:github.com/gokrazy/kernel.rpi"}, "arm64", ""},
		{Spec{Kernel: "6.12-clod"}, "", "did you mean 6.12-cloud?"},
		{Spec{Kernel: "./nosuch"}, "", "no such file"},
	} {
		got := tt.spec
		err := Settle(Env{Cache: c}, &got)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || got.Arch != tt.arch {
			t.Errorf("Settle(%+v) = %v, arch %q; want %q, %q", tt.spec, err, got.Arch, tt.err, tt.arch)
		}
	}
}

func TestSettleUART(t *testing.T) {
	for _, tt := range []struct{ target, config, want string }{
		{"raspi3b", "CONFIG_SERIAL_8250_RUNTIME_UARTS=4\n", "ttyS1"},
		{"raspi3b", "CONFIG_SERIAL_8250_RUNTIME_UARTS=1\n", "ttyS0"},
		{"raspi3b", "", "ttyS1"},
	} {
		m := &Machine{Target: row(t, tt.target), Kernel: file(t, "arm64", tt.config)}
		if err := m.pickLink(Env{}); err != nil || m.Link.TTY != tt.want {
			t.Errorf("%s with %q: %s, %v; want %s", tt.target, tt.config, m.Link.TTY, err, tt.want)
		}
	}
}

func TestLacks(t *testing.T) {
	k := file(t, "arm64", "CONFIG_VIRTIO_PCI=y\n")
	got := Lacks(row(t, "arm64"), k)
	if len(got) != 1 || !strings.Contains(got[0], "virtio-serial: CONFIG_VIRTIO_CONSOLE is not set") || !strings.HasSuffix(got[0], "; it may work with --board raspi3b, --board raspi4b") {
		t.Errorf("without a virtio console: %q", got)
	}
	// The board needs no virtio, but options that this configuration lacks.
	if got := Lacks(row(t, "raspi3b"), k, "trace"); !slices.ContainsFunc(got, func(s string) bool {
		return strings.HasPrefix(s, "CONFIG_KPROBES is not set, trace needs y")
	}) {
		t.Errorf("on a board: %q", got)
	}
	if got := Lacks(row(t, "arm64"), cached(t, "6.12", "arm64"), "trace", "function-trace"); got != nil {
		t.Errorf("Debian's 6.12: %q", got)
	}
}

func TestCheckQEMU(t *testing.T) {
	tgt := row(t, "raspi3b")
	for _, tt := range []struct {
		name, since, machine string
		lacks                bool
	}{
		{"not asked", "", "nosuch", false},
		{"there", "1.0", "raspi3b", false},
		{"too new", "99.0", "raspi99", true},
	} {
		tgt.Since, tgt.Machine = tt.since, tt.machine
		err := checkQEMU(tgt, "7.2.22")
		if (outcome.Of(err) == outcome.HostLacks) != tt.lacks || tt.lacks && !strings.Contains(err.Error(), "qemu-system-aarch64 7.2.22 does not have this machine; QEMU 99.0 and later do") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestFindDTB(t *testing.T) {
	k := file(t, "arm64", "")
	m := &Machine{Target: row(t, "raspi3b"), Kernel: k}
	empty, err := kernel.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.findDTB(Env{Cache: empty}); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "put the .dtb next to the image") {
		t.Errorf("no device tree anywhere: %v", err)
	}
	full, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	cached(t, "6.12", "arm64")
	var said []string
	if err := m.findDTB(Env{Cache: full, Say: func(s string) { said = append(said, s) }}); err != nil || m.dtb == "" || len(said) != 1 || !strings.Contains(said[0], "has no device tree for raspi3b: using that of ") {
		t.Errorf("lent: %q, %v, said %q", m.dtb, err, said)
	}
	beside := filepath.Join(filepath.Dir(k.Path), "bcm2837-rpi-3-b.dtb")
	if err := os.WriteFile(beside, []byte("tree"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.findDTB(Env{Cache: full}); err != nil || m.dtb != beside {
		t.Errorf("beside the image: %q, %v", m.dtb, err)
	}
}
