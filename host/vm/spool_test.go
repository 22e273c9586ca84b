package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	spool := new(Spool)
	cfg := Config{ConsoleLog: filepath.Join(dir, "new", "console.log"), Spool: spool}
	for _, say := range []string{"the first boot\n", "the second\n"} {
		cfg.ConsoleBefore = []byte(say)
		c, err := newConsole(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.take([]byte("came up\n"))
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cfg.writeLog(filepath.Join(dir, "new", "qemu.txt"), "qemu\n"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is there before Save", left)
	}
	if err := spool.Save(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"console.log": "the second\ncame up\n", "qemu.txt": "qemu\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, "new", name)); string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "new")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v; want access for its owner only", fi.Mode(), err)
	}
	// A path where nothing can be created.
	spool.create(filepath.Join(dir, "new", "console.log", "x"))
	var log *LogError
	if err := spool.Save(); !errors.As(err, &log) {
		t.Errorf("Save below a file = %v, want a *LogError", err)
	}
}

// TestSpoolBounds: of endless output the start and the end are kept.
func TestSpoolBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	spool := new(Spool)
	l := spool.create(path)
	var all bytes.Buffer
	for i := range 400_000 {
		line := fmt.Sprintf("line %d of a guest that talks and talks\n", i)
		all.WriteString(line)
		l.Write([]byte(line))
		if n := len(l.head) + len(l.rest); n > maxHead+2*maxRest {
			t.Fatalf("%d bytes are held", n)
		}
	}
	if err := spool.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, gap := strings.Cut(string(got), "\n[labctl: ")
	lost, rest, _ := strings.Cut(rest, " bytes dropped]\n")
	if !gap || head != all.String()[:maxHead] || !strings.HasSuffix(all.String(), rest) || len(rest) < maxRest || lost != fmt.Sprint(all.Len()-len(head)-len(rest)) {
		t.Errorf("%d bytes, %s lost, %d bytes; want the first %d and the last of %d", len(head), lost, len(rest), maxHead, all.Len())
	}
}
