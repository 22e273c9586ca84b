package bounded

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHead(t *testing.T) {
	for _, tt := range []struct {
		max    int
		writes []string
		want   string
		full   int
	}{
		{10, []string{"12345", "67890", ""}, "1234567890", 0},
		{10, []string{"12345", "67890", "", "x", "yy"}, "1234567890", 1},
		{10, []string{"12345678901"}, "1234567890", 1},
		{0, []string{""}, "", 0},
		{0, []string{"x"}, "", 1},
	} {
		calls := 0
		h := Head{Max: tt.max, Full: func() { calls++ }}
		for _, s := range tt.writes {
			if n, err := h.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write(%q) = %d, %v", s, n, err)
			}
		}
		if h.String() != tt.want || string(h.Bytes()) != tt.want || calls != tt.full || h.Over() != (tt.full > 0) {
			t.Errorf("of %q at most %d: kept %q and %q, Full called %d times, over %t; want %q, %d", tt.writes, tt.max, h.String(), h.Bytes(), calls, h.Over(), tt.want, tt.full)
		}
	}
}

// Full may ask what was kept.
func TestHeadFullReads(t *testing.T) {
	var got string
	var h Head
	h = Head{Max: 2, Full: func() { got = h.String() }}
	h.Write([]byte("abc"))
	if got != "ab" {
		t.Errorf("Full saw %q, want ab", got)
	}
}

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		max    int
		writes []string
		want   string
	}{
		{5, nil, ""},
		{5, []string{"abc"}, "abc"},
		{5, []string{"abcde"}, "abcde"},
		{5, []string{"abc", "def"}, "bcdef"},
		{5, []string{"ab", "cdef", "", "ghijklm", "n"}, "jklmn"},
		{5, []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}, "ghijk"},
		{0, []string{"abc"}, ""},
	} {
		l := Tail{Max: tt.max}
		for _, s := range tt.writes {
			if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write(%q) = %d, %v", s, n, err)
			}
		}
		if got := l.String(); got != tt.want {
			t.Errorf("last %d of %q = %q, want %q", tt.max, tt.writes, got, tt.want)
		}
		if len(l.buf) > 2*tt.max {
			t.Errorf("last %d of %q: %d bytes in memory, want at most twice the bound", tt.max, tt.writes, len(l.buf))
		}
	}
}

func TestConcurrentWrites(t *testing.T) {
	h, l := Head{Max: 50}, Tail{Max: 50}
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 100 {
				h.Write([]byte("ab"))
				l.Write([]byte("ab"))
			}
		}()
	}
	wg.Wait()
	if want := strings.Repeat("ab", 25); h.String() != want || l.String() != want {
		t.Errorf("kept %q and %q, want %q", h.String(), l.String(), want)
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	w := Writer(&b, 5)
	for _, s := range []string{"abc", "defg", "h"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("Write(%q) = %d, %v", s, n, err)
		}
	}
	if b.String() != "abcde" {
		t.Errorf("handed on %q, want abcde", b.String())
	}
	why := errors.New("full")
	if _, err := Writer(failing{why}, 5).Write([]byte("a")); err != why {
		t.Errorf("error = %v, want %v", err, why)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestReadAll(t *testing.T) {
	for _, tt := range []struct {
		size int
		max  int64
		want string
	}{
		{5, 5, ""}, {0, 0, ""}, {6, 5, "more than 5 bytes"}, {1025, 1024, "more than 1 KB"}, {1<<20 + 1, 1 << 20, "more than 1 MB"},
		{1537, 1536, "more than 1536 bytes"},
	} {
		r := strings.NewReader(strings.Repeat("x", tt.size+10))
		b, err := ReadAll(strings.NewReader(strings.Repeat("x", tt.size)), tt.max)
		if got := text(err); got != tt.want || err == nil && len(b) != tt.size {
			t.Errorf("ReadAll of %d bytes, at most %d = %d bytes, %q; want %q", tt.size, tt.max, len(b), got, tt.want)
		}
		if _, err := ReadAll(r, tt.max); err == nil || r.Len() != tt.size+10-int(tt.max)-1 {
			t.Errorf("ReadAll of more than %d bytes left %d, error %v; want one byte beyond read", tt.max, r.Len(), err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(file, 5); string(b) != "12345" || err != nil {
		t.Errorf("ReadFile = %q, %v", b, err)
	}
	var large *TooLargeError
	if _, err := ReadFile(file, 4); !errors.As(err, &large) || text(err) != file+": more than 4 bytes" {
		t.Errorf("ReadFile of a larger file: %v", err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 4); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadFile of no file: %v", err)
	}
	for _, name := range []string{pipe, dir, "/dev/zero"} {
		if _, err := ReadFile(name, 4); text(err) != name+": not a regular file" {
			t.Errorf("ReadFile(%s): %v", name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("text"), 0o600),
		os.Symlink("file", at("link")),
		os.Mkdir(at("dir"), 0o700),
		syscall.Mkfifo(at("pipe"), 0o600),
		os.Symlink("/dev/zero", at("device")),
		os.Symlink("self", at("self")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{
		"file": "", "link": "",
		"dir": "not a regular file", "pipe": "not a regular file", "device": "not a regular file", "socket": "not a regular file",
		"self": "too many levels", "none": "no such file",
	} {
		for how, read := range map[string]func() ([]byte, error){
			"ReadFile":   func() ([]byte, error) { return ReadFile(at(name), 4) },
			"ReadFileFS": func() ([]byte, error) { return ReadFileFS(os.DirFS(dir), name, 4) },
		} {
			b, err := read()
			if want == "" && (err != nil || string(b) != "text") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s of %s gave %q, %v; want an error with %q", how, name, b, err, want)
			}
		}
	}
}
