package scratch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name  string
		named bool
	}{{"nameless", false}, {"named on the way", true}} {
		t.Run(tt.name, func(t *testing.T) {
			for _, body := range []string{"first", "second"} {
				f, err := Create(dir)
				if err != nil {
					t.Fatal(err)
				}
				if tt.named { // as on a file system that cannot do better
					f.name = ".labctl-x"
					if err := os.WriteFile(filepath.Join(dir, f.name), []byte(body), 0o600); err != nil {
						t.Fatal(err)
					}
				} else if before := names(t, dir); strings.Contains(before, ".labctl") {
					t.Errorf("directory has %q while a file is written", before)
				}
				if _, err := f.WriteString(body); err != nil {
					t.Fatal(err)
				}
				if err := f.Keep("kept", 0o640); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err == nil {
					t.Error("a file that was kept is still open")
				}
				if got, err := os.ReadFile(filepath.Join(dir, "kept")); string(got) != body || names(t, dir) != "kept" {
					t.Errorf("kept contains %q, %v, in a directory with %q; want only %q", got, err, names(t, dir), body)
				}
			}
			f, err := Create(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil || names(t, dir) != "kept" {
				t.Errorf("Close = %v, and the directory has %q", err, names(t, dir))
			}
		})
	}
	if _, err := Create(filepath.Join(dir, "none")); err == nil {
		t.Error("Create in a missing directory gave no error")
	}
	if err := Write(filepath.Join(dir, "none", "x"), nil, 0o644); err == nil {
		t.Error("Write in a missing directory gave no error")
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "sub"), nil, 0o644); err == nil || names(t, dir) != "kept sub" {
		t.Errorf("Write over a directory = %v, and it has %q", err, names(t, dir))
	}
}

// TestWriters: a reader always sees a complete text.
func TestWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	texts := [][]byte{bytes.Repeat([]byte("a"), 9000), bytes.Repeat([]byte("b"), 5000)}
	if err := Write(path, texts[0], 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, text := range texts {
		wg.Go(func() {
			for range 100 {
				if err := Write(path, text, 0o644); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, texts[0]) && !bytes.Equal(got, texts[1]) {
					t.Errorf("%d bytes, %v; want one text or the other", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, filepath.Dir(path)); got != "x" {
		t.Errorf("directory has %q, want only x", got)
	}
}

const prefix = ".tmp-"

func TestFolder(t *testing.T) {
	parent := t.TempDir()
	other := filepath.Join(parent, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := MakeFolder(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Path, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := MakeFolder(parent, prefix) // leaves a, which is held
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(a.Path, "f")); err != nil {
		t.Error(err)
	}
	if err := a.Keep(filepath.Join(parent, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := b.Keep(filepath.Join(parent, "kept")); err == nil {
		t.Error("Keep over a directory with a file in it gave no error")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil || names(t, parent) != "kept other" {
		t.Errorf("Close = %v, and the directory has %q; want kept and other", err, names(t, parent))
	}
}

// TestKilled kills a process with a temporary directory; the next one removes it.
func TestKilled(t *testing.T) {
	if parent := os.Getenv("SCRATCH_PARENT"); parent != "" {
		f, err := MakeFolder(parent, prefix)
		if err == nil {
			err = os.WriteFile(filepath.Join(f.Path, "f"), nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(f.Path + "\n")
		for { // f is used, or the collector would close it, and its lock with it
			time.Sleep(time.Hour)
			os.Stdout.WriteString(f.Path + "\n")
		}
	}
	parent := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "SCRATCH_PARENT="+parent)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	first, err := MakeFolder(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(strings.Fields(names(t, parent))); got != 2 {
		t.Errorf("%d directories while their process is alive, want 2", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	second, err := MakeFolder(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Folder{first, second} {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, parent); got != "" {
		t.Errorf("directory has %q, want nothing", got)
	}
}

// TestKeepReplacesFilesAlone: what is no file stays, and nothing is left beside it.
func TestKeepReplacesFilesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Write(filepath.Join(dir, "fifo"), []byte("x"), 0o644)
	if err == nil || !strings.Contains(err.Error(), "fifo: not a regular file; it is not replaced") {
		t.Errorf("Write = %v; want the pipe refused", err)
	}
	if st, err := os.Lstat(filepath.Join(dir, "fifo")); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is %v, %v; want it as it was", st.Mode(), err)
	}
	if got := names(t, dir); got != "fifo" {
		t.Errorf("directory has %q, want the pipe alone", got)
	}
}
