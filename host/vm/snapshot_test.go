package vm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestInMemory copies a sparse file: the same bytes, and the same holes.
func TestInMemory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ram")
	src, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	const size = 64 << 20
	if err := src.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 5 << 20, size - 3} {
		if _, err := src.WriteAt([]byte("abc"), off); err != nil {
			t.Fatal(err)
		}
	}
	dst, err := inMemory(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(dst, 0, size+1))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want the %d of the file", len(got), err, len(want))
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(dst.Fd()), &st); err != nil || st.Blocks*512 > size/2 {
		t.Errorf("it takes %d bytes, %v; want its holes kept", st.Blocks*512, err)
	}
	if f, err := writable(name); f != nil || err != nil {
		t.Errorf("writable gave %v, %v for a file that can be written; want nothing", f, err)
	}
	if f, err := inMemory(filepath.Dir(name)); err == nil {
		f.Close()
		t.Error("a directory was copied")
	}
}
