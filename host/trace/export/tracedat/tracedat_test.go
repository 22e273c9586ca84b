package tracedat

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"labctl/host/trace/capture"
	"labctl/host/trace/internal/sample"
)

// TestRoundTrip: what is written is read again, and written again as it was.
func TestRoundTrip(t *testing.T) {
	for _, s := range sample.All(t) {
		t.Run(s.Name, func(t *testing.T) {
			first := write(t, s.Capture)
			f := open(t, first)
			if len(f.Notes) != 0 || f.Version != 6 {
				t.Errorf("Open: version %d, notes %q; want 6 and none", f.Version, f.Notes)
			}
			want := *s.Capture
			want.Tgids = nil // the format has no place for them
			if diff := cmp.Diff(plain(t, &want), plain(t, &f.Capture)); diff != "" {
				t.Errorf("Open(Write(c)) differs (-want +got):\n%s", diff)
			}
			second := write(t, &f.Capture)
			if a, b := read(t, first), read(t, second); !bytes.Equal(a, b) {
				t.Errorf("Write(Open(Write(c))) is another file: %d bytes; want %d, all the same", len(b), len(a))
			}
		})
	}
}

// plainCPU has the pages themselves, to compare.
type plainCPU struct {
	ID    int
	Pages []byte
	Stats string
}

func plain(t testing.TB, c *capture.Capture) map[string]any {
	t.Helper()
	var cpus []plainCPU
	for _, cpu := range c.CPUs {
		pages, err := io.ReadAll(io.NewSectionReader(cpu.Pages, 0, cpu.Size))
		if err != nil || int64(len(pages)) != cpu.Size {
			t.Fatalf("pages of CPU %d: %d of %d bytes, %v", cpu.ID, len(pages), cpu.Size, err)
		}
		if len(pages) > 0 || len(cpu.Stats) > 0 {
			cpus = append(cpus, plainCPU{cpu.ID, pages, string(cpu.Stats)})
		}
	}
	var formats []string
	for _, f := range c.Formats {
		formats = append(formats, f.System+": "+string(f.Text))
	}
	return map[string]any{
		"order": c.Order.String(), "long": c.LongSize, "page": c.PageSize, "CPUs": cpus, "CPU count": c.CPUCount,
		"header_page": string(c.HeaderPage), "header_event": string(c.HeaderEvent), "formats": formats,
		"kallsyms": string(c.Kallsyms), "printk": string(c.Printk), "cmdlines": string(c.Cmdlines),
		"tgids": string(c.Tgids), "clocks": string(c.Clocks), "uname": c.Uname,
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unzst reads a compressed file of testdata.
func unzst(t testing.TB, name string) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(read(t, filepath.Join("testdata", name+".zst"))))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var recorded = []struct {
	name    string
	version int
	page    int
	cpus    []int // that have pages
	pages   int   // of them all
	formats int
}{
	{"7.2-amd64-zstd", 7, 4096, []int{0, 1}, 6, 22},
	{"7.2-amd64-none", 7, 4096, []int{0, 1}, 2, 21},
	{"7.2-amd64-v6", 6, 4096, []int{0, 1}, 2, 20},
	{"7.2-arm64-zlib", 7, 4096, []int{1}, 1, 19},
	{"7.2-arm64-subbuf", 7, 8192, []int{0, 1}, 2, 21},
	{"5.10-arm64-zstd", 7, 4096, []int{0}, 1, 16},
}

// TestRecorded: what trace-cmd record wrote in a guest is read, and trace-cmd
// reports of our copy of it what it reported there.
func TestRecorded(t *testing.T) {
	for _, tt := range recorded {
		t.Run(tt.name, func(t *testing.T) {
			b := unzst(t, tt.name+".dat")
			f, err := Read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			var cpus []int
			var size int64
			for _, cpu := range f.CPUs {
				if cpu.Size > 0 {
					cpus = append(cpus, cpu.ID)
					size += cpu.Size
				}
				if !bytes.HasPrefix(cpu.Stats, []byte("entries: ")) {
					t.Errorf("statistics of CPU %d: %q; want the kernel's", cpu.ID, cpu.Stats)
				}
			}
			if len(f.Notes) != 0 || f.Version != tt.version || f.PageSize != tt.page || f.LongSize != 8 || f.CPUCount != 2 {
				t.Errorf("Read: version %d, page %d, long %d, %d CPUs, notes %q; want %d, %d, 8, 2, none",
					f.Version, f.PageSize, f.LongSize, f.CPUCount, f.Notes, tt.version, tt.page)
			}
			if got := int(size) / f.PageSize; !slices.Equal(cpus, tt.cpus) || got != tt.pages || len(f.Formats) != tt.formats {
				t.Errorf("Read: CPUs %d with %d pages, %d formats; want %d, %d, %d", cpus, got, len(f.Formats), tt.cpus, tt.pages, tt.formats)
			}
			for what, is := range map[string]bool{
				"kallsyms": bytes.Contains(f.Kallsyms, []byte(" kernel_clone\n")),
				"cmdlines": bytes.Contains(f.Cmdlines, []byte(" labprobe\n")),
				"printk":   bytes.HasPrefix(f.Printk, []byte("0x")),
				"clock":    bytes.HasPrefix(f.Clocks, []byte("[local] global ")),
				"uname":    strings.HasPrefix(f.Uname, "Linux labctl "),
			} {
				if !is {
					t.Errorf("%s is not the kernel's", what)
				}
			}
			want := lines(t, string(unzst(t, tt.name+".report")))
			got := report(t, write(t, &f.Capture))
			for _, events := range [][]line{want, got} {
				for i := range events {
					events[i].Fields = same(events[i].Fields)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("trace-cmd report of the copy differs (-there +here):\n%s", diff)
			}
		})
	}
}

// same drops what versions of trace-cmd print each in their own way: whether an
// address stands behind its symbol, and an array without elements.
func same(fields string) string {
	fields = strings.TrimSuffix(fields, " args=ARRAY[]")
	for {
		i := strings.Index(fields, " (0x")
		if i < 0 {
			return fields
		}
		j := strings.IndexByte(fields[i:], ')')
		fields = fields[:i] + fields[i+j+1:]
	}
}

// TestKernels: what has no sample here, kernels of 32 bits and of the other byte
// order, and sub-buffers of several pages.
func TestKernels(t *testing.T) {
	for _, tt := range kernels {
		t.Run(fmt.Sprintf("%v-%d-%d", tt.order, tt.long, tt.page), func(t *testing.T) {
			c := small(tt)
			path := write(t, c)
			if diff := cmp.Diff(plain(t, c), plain(t, &open(t, path).Capture)); diff != "" {
				t.Errorf("Open(Write(c)) differs (-want +got):\n%s", diff)
			}
			want := []line{
				{"labprobe-137", "001", "1.000000100", "made", "value=4660"},
				{"<...>-138", "001", "1.000000300", "made", "value=22136"},
			}
			if diff := cmp.Diff(want, report(t, path)); diff != "" {
				t.Errorf("trace-cmd report differs (-want +got):\n%s", diff)
			}
		})
	}
}
