package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParseTree reads what QEMU 7.2 prints of its machines.
func TestParseTree(t *testing.T) {
	for _, tt := range []struct {
		file string
		want string
	}{
		{"q35-3072M", "0+c0000@0 100000+7ff00000@100000 100000000+40000000@80000000"},
		{"virt-512M", "40000000+20000000@0"},
		{"raspi3b", "0+3f003000@0 3f003020+fe0@3f003020"}, // and more behind the peripherals
	} {
		tree, err := os.ReadFile(filepath.Join("testdata", "mtree-"+tt.file+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range parseTree(string(tree)) {
			got = append(got, fmt.Sprintf("%x+%x@%x", r.base, r.size, r.offset))
		}
		if s := strings.Join(got, " "); s != tt.want && !(tt.file == "raspi3b" && strings.HasPrefix(s, tt.want)) {
			t.Errorf("%s: parseTree = %s, want %s", tt.file, s, tt.want)
		}
	}
	for _, tree := range []string{"", "FlatView #0\n AS \"I/O\", root: io\n  0000000000000000-000000000000ffff (prio 0, ram): io\n", "unknown command\n",
		"FlatView #0\n AS \"memory\", root: system\n  ffffffffffffffff-0000000000000000 (prio 0, ram): ram\n  0000000000000000-ffffffffffffffff (prio 0, ram): ram\n"} {
		if got := parseTree(tree); len(got) != 0 {
			t.Errorf("parseTree(%q) = %v, want nothing", tree, got)
		}
	}
}

func FuzzParseTree(f *testing.F) {
	files, _ := filepath.Glob("testdata/mtree-*.txt")
	for _, name := range files {
		tree, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(tree))
	}
	f.Fuzz(func(t *testing.T, tree string) {
		for _, r := range parseTree(tree) {
			if r.size == 0 || r.base+r.size-1 < r.base {
				t.Errorf("range %+v is empty or wraps", r)
			}
		}
	})
}

func TestParseHost(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  uint64
	}{
		{"Host virtual address for 0x40000000 (mach-virt.ram) is 0x7fcf5fe00000\r\n", 0x7fcf5fe00000},
		{"Host virtual address for 0x0 (ram) is 0x7f00", 0x7f00},
		{"Memory at address 0x40000000 is not RAM\r\n", 0},
		{"", 0},
		{"Host virtual address for 0x0 (ram) is 0x11112222333344445\r\n", 0}, // more than 64 bits
	} {
		got, err := parseHost(tt.reply)
		if (err != nil) != (tt.want == 0) || err == nil && got != tt.want {
			t.Errorf("parseHost(%q) = %#x, %v; want %#x", tt.reply, got, err, tt.want)
		}
	}
}

// TestMemoryReadAt reads across regions and at their ends.
func TestMemoryReadAt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mem")
	if err := os.WriteFile(name, []byte("....abcdEFGH...."), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	m := &Memory{File: f, Regions: []Region{{Base: 0x100, Host: 4, Size: 4}, {Base: 0x104, Host: 8, Size: 4}, {Base: 0x200, Host: 0, Size: 2}, {Base: 0x300, Host: 12, Size: 8}}}
	defer m.Close()
	for _, tt := range []struct {
		at   int64
		n    int
		want string
		err  error
	}{
		{0x100, 8, "abcdEFGH", nil},
		{0x103, 2, "dE", nil},
		{0x106, 4, "GH", io.EOF},
		{0xff, 1, "", io.EOF},
		{0x200, 3, "..", io.EOF},
		{-1, 1, "", io.EOF},
	} {
		p := make([]byte, tt.n)
		n, err := m.ReadAt(p, tt.at)
		if string(p[:n]) != tt.want || err != tt.err {
			t.Errorf("ReadAt(%d bytes, %#x) = %q, %v; want %q, %v", tt.n, tt.at, p[:n], err, tt.want, tt.err)
		}
	}
	if n, err := m.ReadAt(make([]byte, 8), 0x300); n != 4 || err == nil || err == io.EOF { // the file is too short
		t.Errorf("ReadAt of memory that is gone = %d, %v; want 4 and an error", n, err)
	}
}

// TestForbidden: a host that forbids reading QEMU's memory is told apart from other errors.
func TestForbidden(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/proc/1/mem", Err: fs.ErrPermission}
	const said = "open /proc/1/mem: permission denied"
	q := rules{program: "/usr/bin/qemu-system-arm", readable: true}
	with := func(f func(*rules)) rules { r := q; f(&r); return r }
	for _, c := range []struct {
		err   error
		rules rules
		want  string
	}{
		{denied, with(func(r *rules) { r.scope = "2" }), said + ": this host forbids ptrace (kernel.yama.ptrace_scope = 2); permit it with: sysctl kernel.yama.ptrace_scope=1"},
		{denied, with(func(r *rules) { r.scope = "3" }), said + ": this host forbids ptrace until its next boot (kernel.yama.ptrace_scope = 3)"},
		{denied, with(func(r *rules) { r.readable = false }), said + ": this user may not read /usr/bin/qemu-system-arm; permit it with: chmod a+r /usr/bin/qemu-system-arm"},
		{denied, with(func(r *rules) { r.raised = true }), said + ": /usr/bin/qemu-system-arm has rights of its own (setuid or setcap); use one without"},
		{denied, with(func(r *rules) { r.scope = "1" }), said + "; permit labctl to ptrace its children (in a container: --cap-add SYS_PTRACE)"},
		{fs.ErrNotExist, with(func(r *rules) { r.scope = "3" }), "file does not exist"},
	} {
		if got := forbidden(c.err, c.rules); got != c.want {
			t.Errorf("%+v: %s, want %s", c.rules, got, c.want)
		}
	}
}
