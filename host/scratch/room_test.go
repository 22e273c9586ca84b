package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	if err := Room(dir, 1); err != nil {
		t.Errorf("one byte: %v", err)
	}
	err := Room(dir, 1<<60)
	var full *NoSpaceError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) || full.Have <= 0 || !strings.HasPrefix(err.Error(), "no space in "+dir+" (need 1099511627776 MB, have ") {
		t.Errorf("an exabyte: %v", err)
	}
	if err := Room(filepath.Join(dir, "none"), 1<<60); err != nil {
		t.Errorf("a directory that is not there: %v; want nothing, as it is not known", err)
	}
	if got := Full(fmt.Errorf("x: %w", err)); got != full {
		t.Errorf("Full of it: %v", got)
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = f.Write([]byte("x")); Full(err) != nil {
		t.Errorf("Full of %v: %v; want nothing, a device has no room", err, Full(err))
	}
	link := filepath.Join(dir, "link") // as /dev/stdout is
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "f"), nil, 0o644), os.Symlink("f", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(dir, "gone")} {
		err := &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
		if got := Full(err); got == nil || got.Dir != dir || got.Need != 0 {
			t.Errorf("Full of %v: %v; want %s", err, got, dir)
		}
	}
	if got := Full(errors.New("x")); got != nil {
		t.Errorf("Full of another error: %v", got)
	}
}
