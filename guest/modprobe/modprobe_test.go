package modprobe

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": `kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko
kernel/lib/crc16.ko:
kernel/drivers/net/virtio-net.ko: kernel/net/core/failover.ko
a line that is none
`,
		"modules.builtin": "kernel/drivers/block/loop.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := readTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want []string
		err  string
	}{
		{"ext4", []string{"kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/mbcache.ko", "kernel/fs/ext4/ext4.ko"}, ""},
		{"crc16", []string{"kernel/lib/crc16.ko"}, ""},
		{"virtio-net", []string{"kernel/net/core/failover.ko", "kernel/drivers/net/virtio-net.ko"}, ""},
		{"virtio_net", []string{"kernel/net/core/failover.ko", "kernel/drivers/net/virtio-net.ko"}, ""},
		{"loop", nil, ""},
		{"tun", nil, "start it with --module tun"},
		{"", nil, "not in this guest"},
	} {
		got, err := tree.plan(tt.name)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("plan(%q) = %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
	if _, err := readTree(filepath.Join(dir, "none")); err != nil {
		t.Errorf("readTree of a guest without modules = %v", err)
	}
}

func TestParseArgs(t *testing.T) {
	for _, tt := range []struct {
		args   string
		names  string
		params string
		remove bool
		err    string
	}{
		{"dummy numdummies=2 x=y", "dummy", "numdummies=2 x=y", false, ""},
		{"-qa dummy loop", "dummy loop", "", false, ""},
		{"-r dummy", "dummy", "", true, ""},
		{"-b -- -odd", "-odd", "", false, ""},
		{"", "", "", false, "which module?"},
		{"-z dummy", "", "", false, "is not known"},
	} {
		o, err := parseArgs(strings.Fields(tt.args))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("parseArgs(%q) = %v; want %q", tt.args, err, tt.err)
		}
		if err == nil && (strings.Join(o.names, " ") != tt.names || o.params != tt.params || o.remove != tt.remove) {
			t.Errorf("parseArgs(%q) = %+v", tt.args, o)
		}
	}
}

func FuzzParseDep(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\n")
	f.Add(":\n: x\n.ko:")
	f.Fuzz(func(t *testing.T, text string) {
		for name, files := range parseDep(text) {
			if name == "" || len(files) == 0 || moduleName(files[0]) != name {
				t.Errorf("module %q has files %q", name, files)
			}
		}
	})
}
