package image

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"labctl/host/kernel/internal/synth"
)

const release = "6.12.107+deb13-amd64"

// btf is a header with the given lengths of types and strings.
func btf(types, strs int) []byte {
	b := make([]byte, 24+types+strs)
	le := binary.LittleEndian
	le.PutUint16(b, 0xeb9f)
	b[2] = 1
	le.PutUint32(b[4:], 24)
	le.PutUint32(b[12:], uint32(types))
	le.PutUint32(b[16:], uint32(types))
	le.PutUint32(b[20:], uint32(strs))
	return b
}

func note(name string, typ uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, 4)
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = append(append(b, name...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return append(b, 1, 2, 3, 4)
}

func vmlinux(extra ...synth.Section) []byte {
	return synth.ELF(synth.Exec, synth.X86_64, append([]synth.Section{{Name: ".rodata", Data: synth.Banner(release)}}, extra...)...)
}

func arm64Image(extra []byte) []byte {
	b := make([]byte, 4096)
	copy(b, "MZ")
	copy(b[56:], "ARM\x64")
	b = append(b, synth.Banner("6.12.107+deb13-arm64")...)
	return append(b, extra...)
}

func zboot(payload []byte) []byte {
	b := make([]byte, 512)
	copy(b, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(b[8:], 512)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(payload)))
	return append(append(b, payload...), "after the payload"...)
}

func zimage(payload []byte) []byte {
	b := make([]byte, 256)
	binary.LittleEndian.PutUint32(b[36:], 0x016f2818)
	b = append(b, 0x1f, 0x8b, 8, 0, 1, 2) // the magic by chance
	return append(append(b, payload...), make([]byte, 64)...)
}

func lz4Legacy(t testing.TB, b []byte) []byte {
	dst := make([]byte, lz4.CompressBlockBound(len(b)))
	n, err := lz4.CompressBlock(b, dst, nil)
	if err != nil || n == 0 {
		t.Fatalf("compress lz4: %d, %v", n, err)
	}
	out := []byte{2, 0x21, 0x4c, 0x18}
	return append(binary.LittleEndian.AppendUint32(out, uint32(n)), dst[:n]...)
}

// xzBanner is the banner of 5.10.0-32-amd64 in an ELF file, by `xz --check=crc32
// --x86 --lzma2=dict=1MiB`, as scripts/xz_wrap.sh does for x86.
const xzBanner = `/Td6WFoAAAFpIt42AgEEACEBEACLIW9J4AFvAIxdAD+RRYRoPYmm2orMk+JO8e47HfKOnXArqXmp
idMpvc7oFEPvlE0NWmvt0+n0oZD1zJzzBEnkcNSW0GEjSAKpgEjnPVTbDnOLDuS6H24PGK6eT0GY
cXLrH/jvGjxzx7MSPW90cGtzaa1Dbtm/2AzOkjkAdwK4p9GBoFq0ir4eaeRm+PRaZOgFAFs1n1wJ
AHGT+akAAaQB8AIAAFxsWvk+MA2LAgAAAAABWVo=`

func TestParse(t *testing.T) {
	pvh := synth.Section{Name: ".notes", Data: append(note("Linux", 0x100), note("Xen", 18)...)}
	btfSec := synth.Section{Name: ".BTF", Data: btf(16, 8)}
	ikcfg := synth.Section{Name: ".config", Data: append(append([]byte("IKCFG_ST"), synth.Gzip([]byte("CONFIG_PROC_FS=y\n"))...), "IKCFG_ED"...)}
	tests := []struct {
		name        string
		data        []byte
		kind        Kind
		arch, comp  string
		release     string
		pvh, elf    bool
		btf, config int // lengths
	}{
		{"bzImage gzip", synth.BzImage(synth.Gzip(vmlinux(pvh, btfSec, ikcfg))), BzImage, "amd64", "gzip", release, true, true, 48, 17},
		{"bzImage zstd", synth.BzImage(synth.Zstd(vmlinux(btfSec))), BzImage, "amd64", "zstd", release, false, true, 48, 0},
		{"bzImage lz4", synth.BzImage(lz4Legacy(t, vmlinux(pvh))), BzImage, "amd64", "lz4", release, true, true, 0, 0},
		{"vmlinux", vmlinux(pvh), ELF, "amd64", "", release, true, true, 0, 0},
		{"vmlinux.gz", synth.Gzip(vmlinux()), ELF, "amd64", "gzip", release, false, true, 0, 0},
		{"arm64 Image", arm64Image(append(btf(8, 4), btf(64, 16)...)), Arm64Image, "arm64", "", "6.12.107+deb13-arm64", false, false, 104, 0},
		{"arm64 Image.gz", synth.Gzip(arm64Image(nil)), Arm64Image, "arm64", "gzip", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"zboot", zboot(synth.Gzip(arm64Image(btf(8, 4)))), Zboot, "arm64", "gzip", "6.12.107+deb13-arm64", false, false, 36, 0},
		{"zImage gzip", zimage(synth.Gzip(synth.Banner("6.12.1+armmp"))), ZImage, "arm", "gzip", "6.12.1+armmp", false, false, 0, 0},
		{"zImage zstd", zimage(synth.Zstd(synth.Banner("6.12.1+armmp"))), ZImage, "arm", "zstd", "6.12.1+armmp", false, false, 0, 0},
		{"zImage lz4", zimage(lz4Legacy(t, bytes.Repeat(synth.Banner("6.12.1+armmp"), 4))), ZImage, "arm", "lz4", "6.12.1+armmp", false, false, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img, err := Parse(tt.data)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if img.Kind != tt.kind || img.Arch != tt.arch || img.Compression != tt.comp || img.Release != tt.release {
				t.Errorf("got %s, %s, %q, %s; want %s, %s, %q, %s", img.Kind, img.Arch, img.Compression, img.Release, tt.kind, tt.arch, tt.comp, tt.release)
			}
			if !strings.HasPrefix(img.Banner, "Linux version "+tt.release+" (build@host)") {
				t.Errorf("banner %q", img.Banner)
			}
			if _, got := img.VmlinuxELF(); got != tt.elf {
				t.Errorf("VmlinuxELF: got %v, want %v", got, tt.elf)
			}
			if got := img.HasPVH(); got != tt.pvh {
				t.Errorf("HasPVH: got %v, want %v", got, tt.pvh)
			}
			if got := len(img.BTF()); got != tt.btf {
				t.Errorf("BTF: got %d bytes, want %d", got, tt.btf)
			}
			if got := len(img.Config()); got != tt.config {
				t.Errorf("Config: got %d bytes, want %d", got, tt.config)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	whole := synth.BzImage(synth.Gzip(vmlinux()))
	old := bytes.Clone(whole)
	binary.LittleEndian.PutUint16(old[0x206:], 0x207)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2+800] ^= 0x55
	tests := []struct {
		name      string
		data      []byte
		notKernel bool
		want      string
	}{
		{"empty", nil, true, "not a kernel image"},
		{"text", []byte(strings.Repeat("Linux version 6.1.0 (me) is not a kernel\n", 100)), true, "not a kernel image"},
		{"gzip'd text", synth.Gzip([]byte("hello, hello, hello")), true, "not a kernel image"},
		{"program", synth.ELF(synth.Exec, synth.X86_64, synth.Section{Name: ".text", Data: []byte("code")}), true, "without a Linux banner"},
		{"module", synth.Module(""), true, "not a kernel image"},
		{"truncated bzImage", whole[:len(whole)-64], false, "outside the file"},
		{"old bzImage", old, false, "boot protocol"},
		{"damaged bzImage", damaged, false, "decompress payload (gzip)"},
		{"lzma bzImage", synth.BzImage([]byte("\x5d\x00\x00\x80\x00 lzma here")), false, "lzma and lzo are not supported"},
		{"zImage without payload", zimage(nil), false, "no payload"},
		{"broken ELF", []byte("\x7fELF\x02\x01\x01 and no more"), false, "read ELF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.data)
			if err == nil || errors.Is(err, ErrNotKernel) != tt.notKernel || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want %q, ErrNotKernel %v", err, tt.want, tt.notKernel)
			}
		})
	}
}

func TestDecompressXZ(t *testing.T) {
	packed, err := base64.StdEncoding.DecodeString(xzBanner)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Parse(synth.BzImage(packed))
	if err != nil {
		t.Fatal(err)
	}
	if img.Compression != "xz" || img.Release != "5.10.0-32-amd64" {
		t.Errorf("got %s, %s; want xz, 5.10.0-32-amd64", img.Compression, img.Release)
	}
}

// A small file must not fill the memory.
func TestDecompressBound(t *testing.T) {
	big := make([]byte, 1<<20)
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"gzip", synth.Gzip(big)},
		{"zstd", synth.Zstd(big)},
		{"lz4", lz4Legacy(t, big)},
	} {
		if _, err := decompressMax(tt.name, tt.data, 1<<20-1); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: got %v, want %v", tt.name, err, errTooLarge)
		}
		if out, err := decompressMax(tt.name, tt.data, 1<<20); err != nil || len(out) != 1<<20 {
			t.Errorf("%s at the bound: got %d bytes, %v", tt.name, len(out), err)
		}
	}
}

func TestBTFSize(t *testing.T) {
	mutate := func(off int, b byte) []byte {
		x := btf(16, 8)
		x[off] = b
		return x
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want int
	}{
		{"whole", btf(16, 8), 48},
		{"more after it", append(btf(16, 8), 1, 2, 3), 48},
		{"cut", btf(16, 8)[:47], 0},
		{"header cut", btf(16, 8)[:20], 0},
		{"version", mutate(2, 2), 0},
		{"flags", mutate(3, 1), 0},
		{"hdr_len", mutate(4, 32), 0},
		{"type_off", mutate(8, 4), 0},
		{"overlap", mutate(16, 8), 0},
		{"huge", mutate(23, 0xff), 0},
		{"strings do not begin empty", mutate(40, 'x'), 0},
		{"strings do not end", mutate(47, 'x'), 0},
	} {
		if got := btfSize(tt.b); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(synth.BzImage(synth.Gzip(vmlinux())))
	f.Add(synth.BzImage(synth.Zstd(vmlinux(synth.Section{Name: ".notes", Data: note("Xen", 18)}))))
	f.Add(synth.BzImage(lz4Legacy(f, vmlinux())))
	f.Add(vmlinux(synth.Section{Name: ".BTF", Data: btf(16, 8)}))
	f.Add(arm64Image(btf(8, 4)))
	f.Add(zboot(synth.Gzip(arm64Image(nil))))
	f.Add(zimage(synth.Gzip(synth.Banner("6.12.1"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := Parse(data)
		if err != nil {
			return
		}
		if img.Release == "" || img.Arch == "" || len(img.Kernel) == 0 {
			t.Errorf("no error, but %+v", img)
		}
		img.HasPVH()
		img.Config()
		if b := img.BTF(); b != nil && btfSize(b) != len(b) {
			t.Errorf("BTF of %d bytes has size %d", len(b), btfSize(b))
		}
	})
}
