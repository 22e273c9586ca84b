package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/golden"
)

func TestArgv(t *testing.T) {
	for name, devices := range map[string][]Device{
		"amd64": {
			Defaults{}, Machine{Type: "q35"}, CPU("max"), Accel{Name: "tcg", Thread: "single"}, SMP(2), Memory{MiB: 512},
			Kernel{Image: "/k/vmlinuz", Initrd: "/k/initramfs.cpio", Append: []string{"panic=-1"}},
			Serial{Name: "console", Console: "ttyS0"},
			VirtioSerial{Driver: "virtio-serial-pci", Ports: []string{"labctl"}}, QMP{},
		},
		"amd64-kvm": {
			Defaults{}, Machine{Type: "q35"}, CPU("host"), Accel{Name: "kvm", Thread: "single"}, SMP(1), Memory{MiB: 256},
			Serial{Name: "console", Console: "ttyS0"}, Serial{Name: "link"}, DebugExit{},
		},
		"arm64": {
			Defaults{}, Machine{Type: "virt", Options: []string{"gic-version=3", "highmem=off"}}, CPU("cortex-a57"), Accel{Name: "tcg"},
			Kernel{Image: "Image"}, Serial{Name: "console", Console: "ttyAMA0"},
		},
		"raspi3b": {
			Defaults{}, Machine{Type: "raspi3b"}, Kernel{Image: "vmlinuz", DTB: "bcm2710-rpi-3-b.dtb", Append: []string{"mem=832M", `name="two words"`}},
			NoSerial{}, Serial{Name: "console", Console: "ttyS1,115200"},
		},
		"template": {
			Defaults{}, Machine{Type: "q35"}, Memory{MiB: 512, File: "/tmp/it's, a/ram", Share: true}, options{"-S"}, QMP{},
		},
		"clone": {
			Defaults{}, Machine{Type: "q35"}, Memory{MiB: 512, File: "/tmp/ram"}, Incoming{State: os.Stdin, FD: new(int)}, QMP{}, options{"-name", ""},
		},
		"firmware": {
			Defaults{}, Machine{Type: "q35"}, Firmware{os.Stdin}, Serial{Name: "console", Console: "dropped without a kernel"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New("qemu-system-x", devices...)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, filepath.Join("testdata", "argv", name+".txt"), strings.ReplaceAll(c.String(), " -", " \\\n  -")+"\n")
		})
	}
}

func TestBadDevices(t *testing.T) {
	for _, tt := range []struct {
		device Device
		want   string
	}{
		{Machine{}, "no machine type"},
		{Memory{}, "memory of 0 MiB"},
		{Nodes{MiB: 512, CPUs: 2, Nodes: 1}, "2 CPUs in 1 nodes"},
		{Nodes{MiB: 513, CPUs: 2, Nodes: 2}, "513 MiB of memory"},
		{Nodes{MiB: 512, CPUs: 3, Nodes: 2}, "3 CPUs in 2 nodes"},
		{Nodes{MiB: 512, CPUs: 2, Nodes: 2, Inherit: []*os.File{os.Stdin}}, "1 of them with a file"},
		{SMP(0), "0 CPUs"},
		{Kernel{}, "no kernel image"},
		{Serial{Name: "a b"}, `id "a b"`},
		{Serial{Name: "a,path=/etc/passwd"}, "want a letter"},
		{Serial{}, `id ""`},
		{Serial{Name: "1st"}, "want a letter"},
		{VirtioSerial{Driver: "virtio-serial-pci", Ports: []string{"x", "x"}}, "used twice"},
		{options{"a\x00b"}, "NUL"},
	} {
		_, err := New("q", tt.device)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%T%+v) = %v; want an error with %q", tt.device, tt.device, err, tt.want)
		}
	}
}

func TestCommandIsIndependentOfItsArgv(t *testing.T) {
	c, err := New("q", options{"-S"})
	if err != nil {
		t.Fatal(err)
	}
	c.Argv()[0] = "changed"
	if got := c.String(); got != "q -S" {
		t.Errorf("String() = %q; want \"q -S\"", got)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":             "''",
		"tcg,thread=a": "tcg,thread=a",
		"a b":          "'a b'",
		"it's":         `'it'\''s'`,
		"$HOME;`x`":    "'$HOME;`x`'",
		"~":            "'~'",
		"한":            "'한'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s; want %s", in, got, want)
		}
	}
}
