package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A verified file is not read again until it is touched, however well the change is
// hidden.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, imageFile)
	good, bad := bytes.Repeat([]byte("good"), 100), bytes.Repeat([]byte("evil"), 100)
	if err := os.WriteFile(name, good, 0o644); err != nil {
		t.Fatal(err)
	}
	sum, err := hashFile(name)
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{Dir: dir, Files: map[string]File{imageFile: sum}}
	verify := func() error { return k.verifyFile(imageFile, true) }
	stamped := func() bool {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return k.known(imageFile, st, sum.SHA256)
	}

	if err := verify(); err != nil || stamped() {
		t.Fatalf("a file written just now: verify %v, stamped %v; want nil, false", err, stamped())
	}
	time.Sleep(1050 * time.Millisecond) // see stamp.Settled
	if err := verify(); err != nil || !stamped() {
		t.Fatalf("a file that has settled: verify %v, stamped %v; want nil, true", err, stamped())
	}
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	var damaged *CorruptError
	if err := verify(); !errors.As(err, &damaged) {
		t.Errorf("a file changed behind its times: %v, want a *CorruptError", err)
	}
	if err := os.WriteFile(filepath.Join(dir, stampsFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := verify(); !errors.As(err, &damaged) {
		t.Errorf("with broken stamps: %v, want a *CorruptError", err)
	}
}
