package agent

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
)

// keptArchive is an archive of programs: with their content, which is to be kept, or as
// links to what is kept.
func keptArchive(t *testing.T, link bool, programs map[string]string, keys map[string]string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range programs {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg, PAXRecords: map[string]string{wire.KeepRecord: keys[name]}}
		if link {
			h = &tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: wire.KeepPrefix + keys[name]}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if !link {
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func key(n int) string { return fmt.Sprintf("%064x-755", n) }

func TestKept(t *testing.T) {
	dir := t.TempDir()
	k := &kept{dir: filepath.Join(dir, "kept")}
	programs := map[string]string{"run/1/prog": strings.Repeat("program", 1000)}
	one := func(name string, n int) (map[string]string, map[string]string) {
		return map[string]string{name: programs["run/1/prog"]}, map[string]string{name: key(n)}
	}
	unpack := func(link bool, name string, n int) wire.Unpacked {
		t.Helper()
		p, keys := one(name, n)
		a := keptArchive(t, link, p, keys)
		window := make([]byte, a.Len()) // as it comes, for the most part
		if _, err := a.Read(window); err != nil {
			t.Fatal(err)
		}
		done, err := k.unpack(window, strings.NewReader(""), wire.UnpackParams{Dir: dir, Window: int64(len(window))})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if done := unpack(true, "run/0/prog", 1); done.Files != 0 || len(done.Missing) != 1 || done.Missing[0] != key(1) {
		t.Errorf("a link to what is not kept: %+v; want it missing", done)
	}
	if done := unpack(false, "run/1/prog", 1); done.Files != 1 || len(done.Missing) != 0 {
		t.Errorf("a program: %+v", done)
	}
	inode := func(name string) os.FileInfo {
		t.Helper()
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	for _, name := range []string{"run/2/prog", "run/2/prog", "run/3/sub/prog"} {
		if done := unpack(true, name, 1); done.Files != 1 || len(done.Missing) != 0 || !os.SameFile(inode("run/1/prog"), inode(name)) {
			t.Errorf("%s: %+v; want a link to the first", name, done)
		}
	}
	// It outlives its first user.
	if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if done := unpack(true, "run/4/prog", 1); len(done.Missing) != 0 || inode("run/4/prog").Size() != 7000 {
		t.Errorf("after its first user: %+v", done)
	}
	// One that was written to is not the program any more.
	if err := os.Chtimes(filepath.Join(dir, "run/4/prog"), time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if done := unpack(true, "run/5/prog", 1); len(done.Missing) != 1 {
		t.Errorf("after a write: %+v; want it missing", done)
	}
	if _, err := os.Stat(k.path(key(1))); err == nil || k.bytes != 0 {
		t.Errorf("what was written to is kept: %v, %d bytes", err, k.bytes)
	}
	// What does not fit drops what was not used for longest.
	for n := range 3 {
		k.files, k.bytes = map[string]keptFile{}, 0
		unpack(false, fmt.Sprint("run/", n, "/prog"), 10+n)
		k.bytes = maxKept - 8000
		unpack(false, fmt.Sprint("run/", n, "/more"), 20+n)
		if _, old := k.files[key(10+n)]; !old || len(k.files) != 2 {
			t.Errorf("%d files are kept, want both", len(k.files))
		}
		k.bytes = maxKept
		unpack(false, fmt.Sprint("run/", n, "/last"), 30+n)
		if _, old := k.files[key(10+n)]; old {
			t.Error("the oldest is kept where there is no room")
		}
	}
	for _, bad := range []string{"", "../x", key(1) + "/x", strings.Repeat("a", 64)} {
		w := keptArchive(t, false, map[string]string{"x": "y"}, map[string]string{"x": bad})
		if _, err := k.unpack(nil, w, wire.UnpackParams{Dir: dir}); (err == nil) != (bad == "") {
			t.Errorf("key %q: %v", bad, err)
		}
	}
}

func TestRemove(t *testing.T) {
	for _, dir := range []string{"", "/", "/etc", wire.WorkspaceDir, wire.WorkspaceDir + "/", wire.WorkspaceDir + "/..", wire.WorkspaceDir + "/../x", wire.WorkspaceDir + "/a/b", "labctl/in/x"} {
		if err := remove(wire.RemoveParams{Dir: dir}); err == nil {
			t.Errorf("remove(%q) gave no error", dir)
		}
	}
	if err := remove(wire.RemoveParams{Dir: wire.WorkspaceDir + "/none-" + fmt.Sprint(os.Getpid())}); err != nil {
		t.Errorf("remove of a directory that is not there = %v", err)
	}
}
