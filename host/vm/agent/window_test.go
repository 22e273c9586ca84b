package agent

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newWindow makes a window that this process has mapped, as the guest has.
func newWindow(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "window"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return f, mem
}

func TestUnpackByWindow(t *testing.T) {
	file, mem := newWindow(t, 1<<20)
	c := connectWith(t, mem)
	c.SetWindow(file, int64(len(mem)))
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

// TestWindowShared has two processes use one window: who does not get it sends by the
// link.
func TestWindowShared(t *testing.T) {
	file, mem := newWindow(t, 1<<20)
	c := connectWith(t, mem)
	other, _, _ := bridged(t, c)
	again, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	c.SetWindow(file, int64(len(mem)))
	other.SetWindow(again, int64(len(mem)))
	var wg sync.WaitGroup
	for n, c := range []*Client{c, other} {
		wg.Go(func() {
			for i := range 30 {
				dir, content := t.TempDir(), bytes.Repeat([]byte{byte(n), byte(i)}, 100<<10)
				if _, err := c.Unpack(within(t, 60*time.Second), dir, bytes.NewReader(oneFile(t, "f", content))); err != nil {
					t.Errorf("Unpack = %v", err)
				}
				if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, content) {
					t.Errorf("client %d: %d bytes that are not the %d sent, %v", n, len(got), len(content), err)
				}
			}
		})
	}
	wg.Wait()
	if !c.window.take() {
		t.Fatal("nobody uses the window, and it is taken")
	}
	if other.window.take() {
		t.Error("two have the window")
	}
	c.window.give()
	if !other.window.take() {
		t.Error("the window was given, and is taken")
	}
}
