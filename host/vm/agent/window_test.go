package agent

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// memory is a window of this process.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	n := copy(m[off:], p)
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestUnpackByWindow(t *testing.T) {
	mem := make(memory, 1<<20)
	c := connectWith(t, mem)
	c.SetWindow(mem, int64(len(mem)))
	unpack := func(size int, want func(archive []byte) []byte) {
		t.Helper()
		clear(mem)
		dir, file := t.TempDir(), noise(size)
		archive := oneFile(t, "f", file)
		if un, err := c.Unpack(within(t, 60*time.Second), dir, bytes.NewReader(archive)); err != nil || un.Files != 1 {
			t.Fatalf("Unpack of %d bytes = %+v, %v", size, un, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, file) {
			t.Errorf("unpacked: %d bytes that are not the %d sent, %v", len(got), size, err)
		}
		if got := mem[:len(want(archive))]; !bytes.Equal(got, want(archive)) {
			t.Errorf("%d bytes: the window has not the archive's first %d", size, len(got))
		}
	}
	whole := func(archive []byte) []byte { return archive }
	first := func(archive []byte) []byte { return archive[:len(mem)] }
	none := func([]byte) []byte { return make([]byte, 1024) }
	unpack(100<<10, whole)
	unpack(3<<20, first)
	unpack(len(mem)-4<<10, whole)

	// The guest's refusal releases the window.
	var refused *GuestError
	if _, err := c.Unpack(within(t, 30*time.Second), t.TempDir(), bytes.NewReader(oneFile(t, "../f", noise(5)))); !errors.As(err, &refused) {
		t.Errorf("Unpack of ../f = %v, want the guest's refusal", err)
	}
	unpack(10<<10, whole)

	// While it is being filled, other requests use the link.
	pr, pw := io.Pipe()
	defer pw.Close()
	if _, err := c.Unpack(within(t, 100*time.Millisecond), t.TempDir(), pr); err == nil {
		t.Error("Unpack of a reader that blocks gave no error")
	}
	unpack(100<<10, none)
}
