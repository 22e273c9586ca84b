package initramfs

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOverlay(t *testing.T) {
	host := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(host, []byte("from the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := overlay(
		[]Module{{Name: "virtio", Data: []byte("\x7fELF1")}, {Name: "virtio_pci", Data: []byte("\x7fELF22")}},
		[]File{
			{Path: "/srv/a/prog", Mode: 0o755, Src: host},
			{Path: "srv/a/link", Mode: fs.ModeSymlink, Data: []byte("prog")},
			{Path: "mnt", Mode: fs.ModeDir | 0o700},
			{Path: "tmp", Mode: fs.ModeDir | 0o700}, // there already: its mode holds
			{Path: "su", Mode: fs.ModeSetuid | 0o755, Data: []byte{}},
		})
	if err != nil {
		t.Fatal(err)
	}
	archives, err := readNewc(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(archives) != 1 {
		t.Fatalf("overlay has %d archives; want 1", len(archives))
	}
	want := map[string]struct {
		mode uint64
		data string
	}{
		"dev":                            {0o040755, ""},
		"dev/console":                    {0o020600, ""},
		"dev/null":                       {0o020666, ""},
		"init":                           {0o120777, "labctl/labinit"},
		"labctl":                         {0o040755, ""},
		"labctl/modules":                 {0o100644, "/labctl/modules.d/virtio.ko\n/labctl/modules.d/virtio_pci.ko\n"},
		"labctl/modules.d":               {0o040755, ""},
		"labctl/modules.d/virtio.ko":     {0o100644, "\x7fELF1"},
		"labctl/modules.d/virtio_pci.ko": {0o100644, "\x7fELF22"},
		"mnt":                            {0o040700, ""},
		"proc":                           {0o040755, ""},
		"run":                            {0o040755, ""},
		"su":                             {0o104755, ""},
		"sys":                            {0o040755, ""},
		"tmp":                            {0o041777, ""},
		"srv":                            {0o040755, ""},
		"srv/a":                          {0o040755, ""},
		"srv/a/link":                     {0o120777, "prog"},
		"srv/a/prog":                     {0o100755, "from the host"},
	}
	made := map[string]bool{".": true}
	inodes := map[uint64]bool{}
	for _, e := range archives[0] {
		w, ok := want[e.name]
		if !ok {
			t.Errorf("overlay has %s, which nobody asked for", e.name)
			continue
		}
		delete(want, e.name)
		if e.mode != w.mode || string(e.data) != w.data {
			t.Errorf("%s = %#o %q; want %#o %q", e.name, e.mode, e.data, w.mode, w.data)
		}
		if e.mtime != 0 || inodes[e.inode] {
			t.Errorf("%s: mtime %d, inode %d; want 0 and an inode of its own", e.name, e.mtime, e.inode)
		}
		if !made[path.Dir(e.name)] {
			t.Errorf("%s comes before its directory: the kernel would drop it", e.name)
		}
		made[e.name], inodes[e.inode] = true, true
		switch e.name {
		case "dev/console":
			if e.major != 5 || e.minor != 1 {
				t.Errorf("dev/console = %d:%d; want 5:1", e.major, e.minor)
			}
		case "dev/null":
			if e.major != 1 || e.minor != 3 {
				t.Errorf("dev/null = %d:%d; want 1:3", e.major, e.minor)
			}
		}
	}
	for name := range want {
		t.Errorf("overlay lacks %s", name)
	}
}

func TestOverlaySameBytes(t *testing.T) {
	files := []File{{Path: "a/b/c", Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755, Data: []byte("x")}}
	first, err := overlay(nil, files)
	if err != nil {
		t.Fatal(err)
	}
	second, err := overlay(nil, files)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two overlays of the same files differ")
	}
}

func TestOverlayRefuses(t *testing.T) {
	elf := []byte("\x7fELF")
	for _, tt := range []struct {
		name    string
		modules []Module
		files   []File
		want    string
	}{
		{"above root", nil, []File{{Path: "../x"}}, "not a path"},
		{"root", nil, []File{{Path: "/"}}, "not a path"},
		{"empty", nil, []File{{Path: ""}}, "not a path"},
		{"not clean", nil, []File{{Path: "a//b"}}, "not a path"},
		{"zero byte", nil, []File{{Path: "a\x00b"}}, "not a path"},
		{"trailer", nil, []File{{Path: "TRAILER!!!"}}, "not a path"},
		{"too long", nil, []File{{Path: strings.Repeat("a/", 2048) + "a"}}, "the limit is 4095"},
		{"twice", nil, []File{{Path: "a"}, {Path: "/a"}}, "duplicate path"},
		{"file as directory", nil, []File{{Path: "a"}, {Path: "a/b"}}, "duplicate path"},
		{"device", nil, []File{{Path: "a", Mode: fs.ModeDevice}}, "want a file"},
		{"two contents", nil, []File{{Path: "a", Data: []byte("x"), Src: "/dev/null"}}, "both Data and Src"},
		{"no such source", nil, []File{{Path: "a", Src: "/no/such/file"}}, "no such file"},
		{"source is a directory", nil, []File{{Path: "a", Src: "/"}}, "not a regular file"},
		{"link without target", nil, []File{{Path: "a", Mode: fs.ModeSymlink}}, "needs its target"},
		{"directory with contents", nil, []File{{Path: "a", Mode: fs.ModeDir, Data: []byte("x")}}, "cannot have contents"},
		{"module name", []Module{{Name: "../x", Data: elf}}, nil, "letters, digits"},
		{"module compressed", []Module{{Name: "x", Data: []byte("\xfd7zXZ")}}, nil, "decompress"},
		{"module twice", []Module{{Name: "x", Data: elf}, {Name: "x", Data: elf}}, nil, "duplicate path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := overlay(tt.modules, tt.files)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("overlay = %v; want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzOverlayPath(f *testing.F) {
	for _, s := range []string{"a", "/a/b/c", "../x", "a/../b", "TRAILER!!!", "dev/console", "dev/null/x", "a\x00", strings.Repeat("x/", 3000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		out, err := overlay(nil, []File{{Path: p, Mode: 0o644, Data: []byte("here")}})
		if err != nil {
			return
		}
		archives, err := readNewc(out)
		if err != nil {
			t.Fatalf("path %q: the archive does not read back: %v", p, err)
		}
		i := slices.IndexFunc(archives[0], func(e entry) bool { return e.name == strings.TrimPrefix(p, "/") })
		if i < 0 || string(archives[0][i].data) != "here" {
			t.Fatalf("path %q was taken but is not in the archive", p)
		}
	})
}
