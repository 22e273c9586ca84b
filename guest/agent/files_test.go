package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

// entry is one entry of an archive in a test: a name with a slash at its end is
// a directory, link makes it a symbolic link.
type entry struct {
	name, body, link string
	mode             int64
	kind             byte
}

func archive(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Linkname: e.link, Size: int64(len(e.body))}
		switch {
		case e.kind != 0:
			h.Typeflag = e.kind
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// tree lists what is below dir: mode, name, and the content or target.
func tree(tb testing.TB, dir string) (out []string) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%v %s", fi.Mode(), rel)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(b)
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("link %s -> %s", rel, to)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// An archive may come by the link, by the window, or begin in the window and end
// on the link.
func TestUnpack(t *testing.T) {
	for name, near := range map[string]func(len int) int{
		"link":   func(int) int { return 0 },
		"window": func(n int) int { return n },
		"both":   func(n int) int { return n / 2 },
	} {
		t.Run(name, func(t *testing.T) { testUnpack(t, near) })
	}
}

// An archive of the initramfs leaves its files and nothing of itself; a damaged one is an
// error that names it.
func TestUnpackFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "files.tar")
	if err := UnpackFile(file, dir); err != nil {
		t.Errorf("UnpackFile of no archive: %v", err)
	}
	whole := archive(t, entry{name: "run/labctl/prog", body: "one", mode: 0o755})
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := UnpackFile(file, dir); err != nil {
		t.Errorf("UnpackFile: %v", err)
	}
	want := []string{"drwxr-xr-x run", "drwxr-xr-x run/labctl", "-rwxr-xr-x run/labctl/prog one"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(file, whole[:514], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := UnpackFile(file, dir); err == nil || !strings.HasPrefix(err.Error(), file+": ") {
		t.Errorf("UnpackFile of an archive that was cut = %v, want an error that names %s", err, file)
	}
}

func testUnpack(t *testing.T, near func(int) int) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	for _, step := range []struct {
		in   []byte
		want []string
		done wire.Unpacked
	}{
		{archive(t,
			entry{name: "a/b/prog", body: "#!", mode: 0o755},
			entry{name: "private/", mode: 0o700},
			entry{name: "private/key", body: "k", mode: 0o600},
			entry{name: "./a/open", body: "o", mode: 0o666},
			entry{name: "a/set", mode: 0o4711},
			entry{name: "a/up", link: "../private/key"},
			entry{name: "a/b/", mode: 0o750},
		), []string{
			"drwxr-xr-x a", "drwxr-xr-x a/b", "-rwxr-xr-x a/b/prog #!", "-rw-rw-rw- a/open o", "urwx--x--x a/set ", "link a/up -> ../private/key",
			"drwx------ private", "-rw------- private/key k",
		}, wire.Unpacked{Files: 5, Bytes: 4}},
		// A second archive replaces files and links, and writes through neither.
		{archive(t,
			entry{name: "a/up", body: "new", mode: 0o644},
			entry{name: "a/open", link: "set"},
			entry{name: "a/b/prog", body: "two", mode: 0o644},
		), []string{
			"drwxr-xr-x a", "drwxr-xr-x a/b", "-rw-r--r-- a/b/prog two", "link a/open -> set", "urwx--x--x a/set ", "-rw-r--r-- a/up new",
			"drwx------ private", "-rw------- private/key k",
		}, wire.Unpacked{Files: 3, Bytes: 6}},
		{nil, nil, wire.Unpacked{}},
	} {
		n := near(len(step.in))
		p := wire.UnpackParams{Dir: dir, Window: int64(n), Rest: n < len(step.in)}
		done, err := new(kept).unpack(append(step.in[:n:n], "what was there before"...), bytes.NewReader(step.in[n:]), p)
		if err != nil || done.Files != step.done.Files || done.Bytes != step.done.Bytes {
			t.Errorf("unpack() = %+v, %v; want %+v", done, err, step.done)
		}
		if diff := cmp.Diff(step.want, tree(t, dir)); diff != "" && step.want != nil {
			t.Errorf("tree (-want +got):\n%s", diff)
		}
	}
}

// hostile is archives that must be refused, with a part of the reason.
var hostile = []struct {
	name    string
	entries []entry
	err     string
}{
	{"absolute", []entry{{name: "/etc/passwd", body: "x"}}, "leads out"},
	{"above", []entry{{name: "../x", body: "x"}}, "leads out"},
	{"above in the middle", []entry{{name: "a/../../x", body: "x"}}, "leads out"},
	{"the folder itself as a file", []entry{{name: ".", body: "x"}}, "folder of this name"},
	{"absolute link", []entry{{name: "l", link: "/etc"}}, "leads out"},
	{"link above", []entry{{name: "a/l", link: "../../x"}}, "leads out"},
	{"through a link above by links", []entry{
		{name: "x/y/", mode: 0o755}, {name: "x/y/l", link: "../.."}, {name: "m", link: "x/y/l/.."}, {name: "m/out", body: "x"},
	}, "escapes"},
	{"hard link", []entry{{name: "h", link: "x", kind: tar.TypeLink}}, "of type '1'"},
	{"character device", []entry{{name: "c", kind: tar.TypeChar}}, "of type '3'"},
	{"block device", []entry{{name: "b", kind: tar.TypeBlock}}, "of type '4'"},
	{"pipe", []entry{{name: "p", kind: tar.TypeFifo}}, "of type '6'"},
	{"file over a folder", []entry{{name: "d/", mode: 0o755}, {name: "d", body: "x"}}, "folder of this name"},
	{"folder over a file", []entry{{name: "f", body: "x", mode: 0o644}, {name: "f/g", body: "x"}}, "file exists"},
}

func TestUnpackHostile(t *testing.T) {
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			outer := t.TempDir()
			_, err := new(kept).unpack(nil, bytes.NewReader(archive(t, tt.entries...)), wire.UnpackParams{Dir: filepath.Join(outer, "in")})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("unpack() = %v, want %q in it", err, tt.err)
			}
			if got := tree(t, outer); len(got) == 0 || len(got) > 1 && !strings.Contains(got[1], " in/") {
				t.Errorf("outside the folder: %q", got)
			}
		})
	}
	whole := archive(t, entry{name: "f", body: strings.Repeat("x", 5000), mode: 0o644})
	for name, in := range map[string][]byte{"cut in a header": whole[:100], "cut in a file": whole[:2000], "no archive": bytes.Repeat([]byte("x"), 2000)} {
		if _, err := new(kept).unpack(nil, bytes.NewReader(in), wire.UnpackParams{Dir: t.TempDir()}); err == nil {
			t.Errorf("%s: unpack() gave no error", name)
		}
	}
	for _, n := range []int64{-1, 9} {
		if _, err := new(kept).unpack(make([]byte, 8), bytes.NewReader(nil), wire.UnpackParams{Dir: t.TempDir(), Window: n}); err == nil || !strings.Contains(err.Error(), "window") {
			t.Errorf("unpack() of %d bytes in a window of 8 = %v", n, err)
		}
	}
	if _, err := new(kept).unpack(nil, bytes.NewReader(nil), wire.UnpackParams{Dir: "rel"}); err == nil {
		t.Error("unpack to a relative folder gave no error")
	}
}

// FuzzUnpack puts a canary beside the directory and a link to it inside.
func FuzzUnpack(f *testing.F) {
	for _, h := range hostile {
		f.Add(archive(f, h.entries...))
	}
	f.Add(archive(f, entry{name: "link/f", body: "x"}, entry{name: "a/b/", mode: 0o7777}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 64<<10 || bytes.Contains(in, []byte("GNU.sparse")) { // which may be terabytes of nothing
			return
		}
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("..", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		n := len(in) / 2
		done, _ := new(kept).unpack(in[:n], bytes.NewReader(in[n:]), wire.UnpackParams{Dir: dir, Window: int64(n), Rest: true})
		if done.Bytes > int64(len(in)) {
			t.Errorf("%d bytes out of %d", done.Bytes, len(in))
		}
		names, err := os.ReadDir(outer)
		if err != nil || len(names) != 1 {
			t.Errorf("outside the folder: %v, %v", names, err)
		}
	})
}

// Eight megabytes go in, and out again, through frames and credit.
func TestUnpackPackBulk(t *testing.T) {
	h := serve(t)
	dir := t.TempDir()
	big := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{2}).Read(big)
	in := archive(t, entry{name: "d/big", body: string(big), mode: 0o640}, entry{name: "d/small", body: "s", mode: 0o644})

	c := h.newCall()
	c.send(wire.OpUnpack, wire.UnpackParams{Dir: dir})
	if _, err := c.stdin.Write(in); err != nil {
		t.Fatal(err)
	}
	c.stdin.Close()
	res := c.wait()
	if un, err := wire.Decode[wire.Unpacked](res.Value); err != nil || res.Err != "" || !cmp.Equal(un, wire.Unpacked{Files: 2, Bytes: 8<<20 + 1}) {
		t.Fatalf("unpack = %+v, %v, err %q", un, err, res.Err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "d/big")); err != nil || !bytes.Equal(got, big) {
		t.Errorf("unpacked file: %d bytes that differ, %v", len(got), err)
	}

	c = h.start(wire.OpPack, wire.PackParams{Dir: dir, Paths: []string{"d", "gone"}, Max: 9 << 20})
	res = c.wait()
	if pk, err := wire.Decode[wire.Packed](res.Value); err != nil || res.Err != "" || !reflect.DeepEqual(pk, wire.Packed{Files: 2, Bytes: 8<<20 + 1, Missing: 1}) {
		t.Fatalf("pack = %+v, %v, err %q", pk, err, res.Err)
	}
	if !c.ended[wire.Stdout] {
		t.Error("result came before the end of the archive")
	}
	back := filepath.Join(t.TempDir(), "back")
	if _, err := new(kept).unpack(nil, strings.NewReader(c.text(wire.Stdout)), wire.UnpackParams{Dir: back}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, dir), tree(t, back)); diff != "" {
		t.Errorf("there and back: the trees differ")
	}
}

// The host gives up in the middle: the request ends, and others go on.
func TestUnpackCut(t *testing.T) {
	h := serve(t)
	c := h.newCall()
	c.send(wire.OpUnpack, wire.UnpackParams{Dir: t.TempDir()})
	in := archive(t, entry{name: "f", body: strings.Repeat("x", 100_000), mode: 0o644})
	if _, err := c.stdin.Write(in[:50_000]); err != nil {
		t.Fatal(err)
	}
	c.stdin.Close()
	if res := c.wait(); !strings.Contains(res.Err, "unexpected EOF") {
		t.Errorf("cut archive: err = %q", res.Err)
	}
	if res := h.start(wire.OpStat, nil).wait(); res.Err != "" {
		t.Errorf("stat afterwards: %s", res.Err)
	}
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	if _, err := new(kept).unpack(nil, bytes.NewReader(archive(t,
		entry{name: "one", body: "1", mode: 0o600},
		entry{name: "d/two", body: "22", mode: 0o755},
		entry{name: "d/e/three", body: "333", mode: 0o644},
		entry{name: "d/in", link: "../one"},
		entry{name: "to-one", link: "one"},
		entry{name: "to-d", link: "d"},
		entry{name: "empty", mode: 0o644},
	)), wire.UnpackParams{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		paths []string
		max   int64
		want  []string // names in the archive
		done  wire.Packed
		err   string
	}{
		{[]string{"one", "d/", "nope", "empty"}, 6, []string{"one", "d/", "d/e/", "d/e/three", "d/two", "empty"}, wire.Packed{Files: 4, Bytes: 6, Missing: 1, Left: 1, LeftOut: []string{"d/in"}}, ""},
		{[]string{"to-one", "to-d"}, 99, []string{"to-one", "to-d/", "to-d/e/", "to-d/e/three", "to-d/two"}, wire.Packed{Files: 3, Bytes: 6, Left: 1, LeftOut: []string{"to-d/in"}}, ""},
		{nil, 0, nil, wire.Packed{}, ""},
		{[]string{"one", "d"}, 5, nil, wire.Packed{Files: 2, Bytes: 4, Left: 1, LeftOut: []string{"d/in"}}, "more than 5 bytes"},
		{[]string{"../x"}, 9, nil, wire.Packed{}, "leads out"},
		{[]string{"/etc/passwd"}, 9, nil, wire.Packed{}, "leads out"},
		{[]string{"out/passwd"}, 1 << 20, nil, wire.Packed{}, "escapes"},
		{[]string{"one"}, -1, nil, wire.Packed{}, "max is -1"},
	} {
		var out bytes.Buffer
		done, err := pack(&out, wire.PackParams{Dir: dir, Paths: tt.paths, Max: tt.max})
		if !reflect.DeepEqual(done, tt.done) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("pack(%q) = %+v, %v; want %+v, %q", tt.paths, done, err, tt.done, tt.err)
		}
		if err != nil {
			continue
		}
		var names []string
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		if diff := cmp.Diff(tt.want, names); diff != "" {
			t.Errorf("pack(%q) (-want +got):\n%s", tt.paths, diff)
		}
	}
}

// Files of proc say that they are empty.
func TestPackProc(t *testing.T) {
	want, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	var long bytes.Buffer
	if done, err := pack(&long, wire.PackParams{Dir: "/proc", Paths: []string{"kallsyms"}, Max: 1 << 30}); err != nil || done.Bytes < int64(len(want))/2 || done.Bytes <= packHead {
		t.Errorf("kallsyms: %+v, %v; want about %d bytes", done, err, len(want))
	}
	var out bytes.Buffer
	done, err := pack(&out, wire.PackParams{Dir: "/proc", Paths: []string{"version"}, Max: 1 << 20})
	if err != nil || done.Files != 1 {
		t.Fatalf("pack() = %+v, %v", done, err)
	}
	r := tar.NewReader(&out)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !strings.HasPrefix(string(b), "Linux version") {
		t.Errorf("/proc/version = %q, %v", b, err)
	}
}

func TestResume(t *testing.T) {
	var calls []string
	var fail error
	s := &session{
		hello: wire.Hello{Version: wire.Version, Arch: "test", Release: "6.12", InitSec: 1, HelloSec: 2, Notes: []string{"note"}},
		guest: Guest{
			SetClock: func(at time.Time) error {
				calls = append(calls, "clock "+at.UTC().Format(time.RFC3339Nano))
				return fail
			},
			AddEntropy: func(b []byte) error {
				calls = append(calls, fmt.Sprintf("entropy %d", len(b)))
				return nil
			},
		},
	}
	p := wire.ResumeParams{UnixNano: 1_800_000_000_000_000_001, Entropy: make([]byte, 48)}
	v, err := s.resume(p)
	got, _ := v.(wire.Hello)
	if err != nil || got.HelloSec <= 2 {
		t.Fatalf("resume() = %+v, %v; want a Hello of now", v, err)
	}
	want := s.hello
	want.HelloSec = got.HelloSec
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hello (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"entropy 48", "clock 2027-01-15T08:00:00.000000001Z"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	fail = errors.New("no")
	if _, err := s.resume(p); !errors.Is(err, fail) {
		t.Errorf("resume() = %v, want %v", err, fail)
	}
	for _, bad := range []wire.ResumeParams{
		{UnixNano: 1, Entropy: make([]byte, 31)}, {UnixNano: 1, Entropy: make([]byte, 5000)}, {UnixNano: -1, Entropy: make([]byte, 32)},
	} {
		if _, err := s.resume(bad); err == nil {
			t.Errorf("resume(%d, %d bytes) gave no error", bad.UnixNano, len(bad.Entropy))
		}
	}
	// The agent of a test has no clock to set.
	if res := serve(t).start(wire.OpResume, p).wait(); !strings.Contains(res.Err, "no guest") {
		t.Errorf("resume without a guest: err = %q", res.Err)
	}
}

func TestPoolInfo(t *testing.T) {
	got := poolInfo([]byte{1, 2, 3, 4, 5})
	if diff := cmp.Diff([]uint32{40, 5, 0x04030201, 5}, got); diff != "" {
		t.Errorf("poolInfo (-want +got):\n%s", diff)
	}
}

func TestExecUnstarted(t *testing.T) {
	h := serve(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		params wire.ExecParams
		errno  int
	}{
		{wire.ExecParams{Argv: []string{"no-such-program"}}, 2},
		{wire.ExecParams{Argv: []string{"/no/such"}}, 2},
		{wire.ExecParams{Argv: []string{plain}}, 13},
		{wire.ExecParams{Argv: []string{"true"}, Dir: "/no/such"}, 0},
		{wire.ExecParams{Argv: []string{"true"}, Dir: plain}, 0},
	} {
		res := h.start(wire.OpExec, tt.params).wait()
		var v wire.ExecResult
		if len(res.Value) > 0 {
			var err error
			if v, err = wire.Decode[wire.ExecResult](res.Value); err != nil {
				t.Error(err)
			}
		}
		if res.Err == "" || v.Errno != tt.errno {
			t.Errorf("exec %+v: err %q, errno %d; want %d", tt.params, res.Err, v.Errno, tt.errno)
		}
	}
}
