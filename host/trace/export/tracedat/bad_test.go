package tracedat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"labctl/host/trace/capture"
)

// image is a small version 6 file.
func image(t testing.TB) []byte {
	t.Helper()
	return read(t, write(t, small(kernels[0])))
}

// after is the offset behind the first word in b.
func after(t testing.TB, b []byte, word string) int {
	t.Helper()
	i := bytes.Index(b, []byte(word))
	if i < 0 {
		t.Fatalf("no %q in the file", word)
	}
	return i + len(word)
}

var put = binary.LittleEndian

func TestBad(t *testing.T) {
	v6, v7, packed := image(t), unzst(t, "7.2-amd64-none.dat"), unzst(t, "7.2-amd64-zstd.dat")
	table := after(t, v6, "flyrecord\x00")
	options := int(put.Uint64(v7[after(t, v7, "none\x00\x00"):]))
	kallsyms := int(put.Uint64(v7[after(t, v7, "\x13\x00\x08\x00\x00\x00"):]))
	// The options behind the pages: BUFFER with its size, then where the section
	// is, two empty words, the page size and the number of CPUs.
	buffer := after(t, v7, "\x03\x00\x3f\x00\x00\x00")
	cpus := buffer + 8 + len("\x00local\x00") + 4
	size := put.Uint32(packed[57:]) // of header_page and header_event, uncompressed
	for _, tt := range []struct {
		name  string
		file  []byte
		patch func(b []byte) []byte
		want  string // in the error
	}{
		{"empty", nil, func(b []byte) []byte { return nil }, "header at offset 0: 10 bytes wanted, 0 are left"},
		{"another file", v6, func(b []byte) []byte { b[0] = 'E'; return b }, `header at offset 0: "E`},
		{"version", v6, func(b []byte) []byte { b[10] = '8'; return b }, `version "8": known are 6 and 7`},
		{"version without end", v6, func(b []byte) []byte { return append(b[:10], strings.Repeat("6", 1000)...) }, "a name has no end within 256 bytes"},
		{"byte order", v6, func(b []byte) []byte { b[12] = 2; return b }, "byte order 2"},
		{"long", v6, func(b []byte) []byte { b[13] = 16; return b }, "a long of 16 bytes"},
		{"page", v6, func(b []byte) []byte { put.PutUint32(b[14:], 4095); return b }, "a page of 4095 bytes"},
		{"no header_page", v6, func(b []byte) []byte { b[18] = 'x'; return b }, "header_page at offset 18"},
		{"header_page of 2^60", v6, func(b []byte) []byte { put.PutUint64(b[30:], 1<<60); return b }, "header_page at offset 38: size 1152921504606846976 is past the end"},
		{"format of 2^63", v6, func(b []byte) []byte {
			put.PutUint64(b[after(t, b, "labctl\x00\x01\x00\x00\x00"):], 1<<63)
			return b
		}, "event formats at offset"},
		{"2^32 systems", v6, func(b []byte) []byte { put.PutUint32(b[after(t, b, "labctl\x00")-11:], 1<<32-1); return b }, "event formats at offset"},
		{"kallsyms of 4 GB", v6, func(b []byte) []byte { put.PutUint32(b[after(t, b, "REC->value\n"):], 1<<32-1); return b }, "kallsyms at offset"},
		{"2^32 CPUs", v6, func(b []byte) []byte { put.PutUint32(b[after(t, b, "137 labprobe\n"):], 1<<32-1); return b }, "4294967295 CPUs: 16384 at most"},
		{"option of 4 GB", v6, func(b []byte) []byte { put.PutUint32(b[after(t, b, "options  \x00")+2:], 1<<32-1); return b }, "options at offset"},
		{"2^32 CPUs by an option", v6, func(b []byte) []byte { put.PutUint32(b[table-16:], 1<<32-1); return b }, "options, option 8 at offset"},
		{"no flyrecord", v6, func(b []byte) []byte { b[table-1] = 'x'; return b }, `where "flyrecord" should be`},
		{"latency", v6, func(b []byte) []byte { copy(b[table-10:], "latency  \x00"); return b }, "latency tracer's text"},
		{"cut in the table", v6, func(b []byte) []byte { return b[:table+20] }, "CPU table at offset"},
		{"cut in a format", v6, func(b []byte) []byte { return b[:after(t, b, "field:u32")] }, "event formats at offset"},
		{"pages over the header", v6, func(b []byte) []byte { put.PutUint64(b[table+16:], 100); return b }, "CPU 1 at offset 100: lies in the header"},
		{"pages over pages", v6, func(b []byte) []byte {
			copy(b[table:], b[table+16:table+32])
			put.PutUint64(b[table:], put.Uint64(b[table:])+8)
			return b
		}, "CPU 0 at offset 4104: lies in CPU 1, which ends at 8192"},
		{"pages at 2^63", v6, func(b []byte) []byte { put.PutUint64(b[table+16:], 1<<63); return b }, "cannot be"},
		{"pages that wrap", v6, func(b []byte) []byte { put.PutUint64(b[table+24:], 1<<64-1); return b }, "cannot be"},

		{"7: compression", v7, func(b []byte) []byte { copy(b[18:], "lzma\x00"); return b }, "compressed by lzma"},
		{"7: options in the header", v7, func(b []byte) []byte { put.PutUint64(b[24:], 2); return b }, "options at offset 2: section"},
		{"7: options at kallsyms", v7, func(b []byte) []byte { put.PutUint64(b[24:], uint64(kallsyms)); return b }, "section 19 where section 0 should be"},
		{"7: options in a ring", v7, func(b []byte) []byte {
			put.PutUint64(b[options+16+int(put.Uint64(b[options+8:]))-8:], uint64(options))
			return b
		}, "options at offset"},
		{"7: section of 2^60", v7, func(b []byte) []byte { put.PutUint64(b[options+8:], 1<<60); return b }, "options at offset 20857: size 1152921504606846976 is past the end"},
		{"7: cut options", v7, func(b []byte) []byte { put.PutUint64(b[options+8:], 100); return b }, "options at offset"},
		{"7: 2^32 CPUs", v7, func(b []byte) []byte { put.PutUint32(b[cpus:], 1<<32-1); return b }, "options, option 3 at offset"},
		{"7: CPU 2^31", v7, func(b []byte) []byte { put.PutUint32(b[cpus+4:], 1<<31); return b }, "CPU 2147483648: 16383 at most"},
		{"7: a CPU twice", v7, func(b []byte) []byte { put.PutUint32(b[cpus+24:], 0); return b }, "CPU 0 at offset 28672: is there twice"},
		{"7: pages over pages", v7, func(b []byte) []byte { put.PutUint64(b[cpus+28:], put.Uint64(b[cpus+8:])); return b }, "lies in CPU"},
		{"7: page", v7, func(b []byte) []byte { put.PutUint32(b[cpus-4:], 3); return b }, "a page of 3 bytes"},
		{"7: name without end", v7, func(b []byte) []byte { copy(b[buffer+8:], strings.Repeat("x", 51)); return b }, "options, option 3 at offset"},

		{"zstd: broken section", packed, func(b []byte) []byte { clear(b[100:200]); return b }, "header_page at offset"},
		{"zstd: bomb", packed, func(b []byte) []byte { put.PutUint32(b[57:], 1<<32-1); return b }, "67108864 at most"},
		{"zstd: another size", packed, func(b []byte) []byte { put.PutUint32(b[57:], size+1); return b }, "are promised"},
		{"zstd: smaller than its content", packed, func(b []byte) []byte { put.PutUint32(b[57:], size-1); return b }, "header_page at offset 61"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.patch(bytes.Clone(tt.file))
			_, err := Read(bytes.NewReader(b), int64(len(b)))
			var bad *BadFile
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Read = %v; want a *BadFile with %q", err, tt.want)
			}
		})
	}
}

// TestCut: wherever a file ends, it is read as far as it goes, or the error
// says where it ends. A file that ends in the pages is read.
func TestCut(t *testing.T) {
	files := map[string][]byte{"v6": image(t)}
	for _, r := range recorded {
		files[r.name] = unzst(t, r.name+".dat")
	}
	for name, b := range files {
		t.Run(name, func(t *testing.T) {
			whole, err := Read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			opened := 0
			for n := 0; n < len(b); n += 1 + len(b)/997 {
				f, err := Read(bytes.NewReader(b[:n]), int64(n))
				var bad *BadFile
				if err != nil {
					if !errors.As(err, &bad) {
						t.Errorf("%d of %d bytes: %v; want a *BadFile", n, len(b), err)
					}
					continue
				}
				opened++
				if pages(t, f) < pages(t, whole) && !strings.Contains(strings.Join(f.Notes, "\n"), "the file is cut short") {
					t.Errorf("%d of %d bytes: %d of pages, notes %q; want a note", n, len(b), pages(t, f), f.Notes)
				}
			}
			if opened == 0 {
				t.Errorf("not one cut opens; want those in the pages")
			}
		})
	}
}

// pages is how many bytes of them can be read.
func pages(t testing.TB, f *File) (total int64) {
	t.Helper()
	for _, cpu := range f.CPUs {
		n, err := io.Copy(io.Discard, io.NewSectionReader(cpu.Pages, 0, cpu.Size))
		if err != nil || n != cpu.Size {
			t.Errorf("pages of CPU %d: %d of %d bytes, %v", cpu.ID, n, cpu.Size, err)
		}
		total += n
	}
	return total
}

// TestCutPages: half of a page is kept when it is read, and left out when it is
// written, which trace-cmd would misread.
func TestCutPages(t *testing.T) {
	b := image(t)
	b = append(b, make([]byte, 4096)...)
	put.PutUint64(b[after(t, b, "flyrecord\x00")+24:], 8192)
	b = b[:len(b)-1000]
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	want := "CPU 1: the file is cut short: 1000 of 8192 bytes of pages at offset 4096 are missing"
	if f.CPUs[0].Size != 7192 || len(f.Notes) != 1 || f.Notes[0] != want {
		t.Errorf("Read: %d bytes of pages, notes %q; want 7192 and %q", f.CPUs[0].Size, f.Notes, want)
	}
	if again := open(t, write(t, &f.Capture)); again.CPUs[0].Size != 4096 || len(again.Notes) != 0 {
		t.Errorf("Write: %d bytes of pages, notes %q; want 4096 and none", again.CPUs[0].Size, again.Notes)
	}
}

// TestHuge: a file that promises 2^60 bytes of pages, or texts by the gigabyte,
// costs no memory.
func TestHuge(t *testing.T) {
	b := image(t)
	put.PutUint64(b[after(t, b, "flyrecord\x00")+24:], 1<<60)
	var before, then runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs[0].Size != 4096 || len(f.Notes) != 1 {
		t.Errorf("Read: %d bytes of pages, notes %q; want 4096 and one", f.CPUs[0].Size, f.Notes)
	}
	// A sparse file whose kallsyms really are 4 GB.
	path := filepath.Join(t.TempDir(), "sparse")
	at := after(t, b, "REC->value\n")
	put.PutUint32(b[at:], 1<<32-1)
	if err := errors.Join(os.WriteFile(path, b[:at+4], 0o644), os.Truncate(path, 5<<30)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "size 4294967295 is more than 67108864") {
		t.Errorf("Open = %v; want its kallsyms refused", err)
	}
	runtime.ReadMemStats(&then)
	if got := then.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("reading them took %d bytes of memory; want at most 4 MB", got)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	if err := os.WriteFile(name, []byte("not a trace"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "not a regular file",
		name:                       "read " + name + ": trace.dat: header at offset 0",
	} {
		if f, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v, %v; want %q", path, f, err, want)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*capture.Capture)
		want string
	}{
		{"no order", func(c *capture.Capture) { c.Order = nil }, "no byte order"},
		{"long", func(c *capture.Capture) { c.LongSize = 2 }, "a long of 2 bytes"},
		{"another long", func(c *capture.Capture) { c.LongSize = 4 }, "a long of 4 bytes, but 8 in header_page"},
		{"page", func(c *capture.Capture) { c.PageSize = 5000 }, "a page of 5000 bytes"},
		{"CPUs", func(c *capture.Capture) { c.CPUCount = 1 << 20 }, "1048576 CPUs"},
		{"CPU", func(c *capture.Capture) { c.CPUs[0].ID = -1 }, "CPU -1"},
		{"CPU twice", func(c *capture.Capture) { c.CPUs = append(c.CPUs, c.CPUs[0]) }, "it must be there once"},
		{"system", func(c *capture.Capture) { c.Formats[0].System = "a\x00b" }, "it needs a short name"},
		{"format", func(c *capture.Capture) { c.Formats[0].Text = nil }, "and a text"},
		{"uname", func(c *capture.Capture) { c.Uname = strings.Repeat("x", maxOptions+1) }, "uname has 16777217 bytes: 16777152 at most"},
		{"statistics", func(c *capture.Capture) { c.CPUs[0].Stats = make([]byte, maxOptions) }, "stats of CPU 1 has 16777216 bytes"},
		{"short pages", func(c *capture.Capture) { c.CPUs[0].Size += 4096 }, "read the pages of CPU 1 at 4096 of 8192 bytes: unexpected EOF"},
		{"broken pages", func(c *capture.Capture) { c.CPUs[0].Pages = broken{} }, "read the pages of CPU 1 at 0 of 4096 bytes: " + iotest.ErrTimeout.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := small(kernels[0])
			tt.edit(c)
			dir := t.TempDir()
			err := WriteFile(filepath.Join(dir, "trace.dat"), c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("WriteFile = %v; want %q", err, tt.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("WriteFile left %v", left)
			}
		})
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, iotest.ErrTimeout }

// FuzzRead: whatever the bytes, Read ends without a crash, what it returns can
// be read, written, and read to the same.
func FuzzRead(f *testing.F) {
	f.Add(image(f))
	f.Add(read(f, write(f, small(kernels[3]))))
	for _, r := range recorded {
		f.Add(unzst(f, r.name+".dat"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, cpu := range file.CPUs {
			if _, err := io.CopyN(io.Discard, io.NewSectionReader(cpu.Pages, 0, cpu.Size), 1<<20); err != nil && err != io.EOF {
				return // compressed, and broken
			}
			if cpu.Size > 1<<20 {
				return
			}
		}
		var first, second bytes.Buffer
		if err := Write(&first, &file.Capture); err != nil {
			return // what no kernel says
		}
		again, err := Read(bytes.NewReader(first.Bytes()), int64(first.Len()))
		if err != nil {
			t.Fatalf("Read(Write(Read(b))): %v", err)
		}
		if err := Write(&second, &again.Capture); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("Write(Read(Write(Read(b)))): %v, %d bytes; want %d, all the same", err, second.Len(), first.Len())
		}
	})
}
