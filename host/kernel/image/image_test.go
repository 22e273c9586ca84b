package image

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

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

// edited returns b with another byte at off.
func edited(b []byte, off int, v byte) []byte {
	b = bytes.Clone(b)
	b[off] = v
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

// lzmaAlone compresses as lzma(1) does a pipe.
func lzmaAlone(t testing.TB, b []byte) []byte {
	return compress(t, b, lzma.NewWriter)
}

// compress compresses by a writer of a format.
func compress[W io.WriteCloser](t testing.TB, b []byte, format func(io.Writer) (W, error)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

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
		{"bzImage of 32 bits", edited(synth.BzImage(synth.Gzip(vmlinux())), 0x236, 2), BzImage, "386", "gzip", release, false, true, 0, 0},
		{"bzImage of the oldest protocol", edited(synth.BzImage(synth.Gzip(vmlinux())), 0x206, 8), BzImage, "amd64", "gzip", release, false, true, 0, 0},
		{"vmlinux that moves", edited(vmlinux(), 16, 3), ELF, "amd64", "", release, false, true, 0, 0},
		{"vmlinux with bytes like BTF", vmlinux(btfSec, synth.Section{Name: ".data", Data: btf(64, 16)}), ELF, "amd64", "", release, false, true, 48, 0},
		{"vmlinux.gz", synth.Gzip(vmlinux()), ELF, "amd64", "gzip", release, false, true, 0, 0},
		{"arm64 Image", arm64Image(append(btf(8, 4), btf(64, 16)...)), Arm64Image, "arm64", "", "6.12.107+deb13-arm64", false, false, 104, 0},
		{"arm64 Image.lz4", lz4Legacy(t, arm64Image(nil)), Arm64Image, "arm64", "lz4", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"arm64 Image.lz4 of lz4(1)", lz4Frame(t, arm64Image(nil)), Arm64Image, "arm64", "lz4 frame", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"arm64 Image.zst", synth.Zstd(arm64Image(nil)), Arm64Image, "arm64", "zstd", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"arm64 Image.lzma", lzmaAlone(t, arm64Image(nil)), Arm64Image, "arm64", "lzma", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"zboot lzma", zboot(append(lzmaAlone(t, arm64Image(nil)), "size"...)), Zboot, "arm64", "lzma", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"zImage lzma", zimage(lzmaAlone(t, synth.Banner("6.12.1+armmp"))), ZImage, "arm", "lzma", "6.12.1+armmp", false, false, 0, 0},
		{"uImage of an Image", uimage(2, arm64Image(nil)), Arm64Image, "arm64", "", "6.12.107+deb13-arm64", false, false, 0, 0},
		{"uImage of a zImage", uimage(2, zimage(synth.Gzip(synth.Banner("6.12.1+armmp")))), ZImage, "arm", "gzip", "6.12.1+armmp", false, false, 0, 0},
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
			wrapped := Wrapped(tt.data[:64])
			if wrapped != (img.Boot != nil) {
				t.Errorf("Wrapped: %v, but %d bytes to boot", wrapped, len(img.Boot))
			}
			if inner, err := Parse(img.Boot); wrapped && (err != nil || inner.Boot != nil || inner.Release != tt.release) {
				t.Errorf("what is to boot is no bare kernel of %s: %v", tt.release, err)
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

// xzOf compresses as xz(1) does.
func xzOf(t testing.TB, b []byte) []byte {
	return compress(t, b, xz.NewWriter)
}

// bzip2Image is arm64Image(nil) by `bzip2 -9`, base64.
const bzip2Image = `QlpoOTFBWSZTWQ1iceQAADjfgsAQSmt9gGAGWBA+559AQAAACCAAdQ1TI0GgAaABo0B6glJMpo9T
EMnqZkBNBppg/ZES5aIA3hEAPX8/OXgzvqTHZScvH+D1wa57VYsKDOo6wUkn1mWvZJ9eFXMR3vKQ
eYXQzHpEDgEU4IOiPjhkUkpAA3F3JFOFCQDWJx5A`

// TestBoot holds what QEMU is handed against the kernel that was wrapped: all of its
// bytes, and none before or after.
func TestBoot(t *testing.T) {
	wraps := []struct {
		name string
		wrap func([]byte) []byte
	}{
		{"gzip", synth.Gzip},
		{"xz", func(b []byte) []byte { return xzOf(t, b) }},
		{"zstd", synth.Zstd},
		{"lz4 legacy", func(b []byte) []byte { return lz4Legacy(t, b) }},
		{"lz4 frame", func(b []byte) []byte { return lz4Frame(t, b) }},
		{"lzma", func(b []byte) []byte { return lzmaAlone(t, b) }},
		{"uImage", func(b []byte) []byte { return uimage(2, b) }},
		{"uImage, padded", func(b []byte) []byte { return append(uimage(2, b), make([]byte, 512)...) }},
		{"uImage of gzip", func(b []byte) []byte { return uimage(2, synth.Gzip(b)) }},
	}
	for _, bare := range []struct {
		name string
		data []byte
	}{
		{"bzImage", synth.BzImage(synth.Gzip(vmlinux()))},
		{"vmlinux", vmlinux()},
		{"Image", arm64Image(nil)},
		{"zImage", zimage(synth.Gzip(synth.Banner("6.12.1+armmp")))},
	} {
		if img, err := Parse(bare.data); err != nil || img.Boot != nil {
			t.Errorf("%s: %d bytes to boot in place of the file, %v", bare.name, len(img.Boot), err)
		}
		for _, w := range wraps {
			img, err := Parse(w.wrap(bare.data))
			if err != nil {
				t.Errorf("%s, %s: %v", bare.name, w.name, err)
			} else if !bytes.Equal(img.Boot, bare.data) {
				t.Errorf("%s, %s: %d bytes to boot are not the %d of the kernel", bare.name, w.name, len(img.Boot), len(bare.data))
			}
		}
	}
	packed, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(bzip2Image, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	image := arm64Image(nil)
	payloads := map[string][]byte{"bzip2": packed}
	for _, w := range wraps[:6] {
		if payloads[w.name] = w.wrap(image); w.name != "gzip" && w.name != "lz4 frame" {
			payloads[w.name] = append(payloads[w.name], 0, 16, 0, 0) // the kernel's build appends the length
		}
	}
	for name, payload := range payloads {
		if img, err := Parse(zboot(payload)); err != nil || !bytes.Equal(img.Boot, image) {
			t.Errorf("vmlinuz.efi of %s: what is to boot is not the Image: %v", name, err)
		}
	}
	if img, err := Parse(packed); err != nil || !bytes.Equal(img.Boot, image) {
		t.Errorf("Image.bz2: what is to boot is not the Image: %v", err)
	}
}

// uimage wraps a kernel, or what type says, as mkimage does.
func uimage(typ byte, data []byte) []byte {
	head := make([]byte, 64)
	binary.BigEndian.PutUint32(head, 0x27051956)
	binary.BigEndian.PutUint32(head[12:], uint32(len(data)))
	head[30] = typ
	return append(head, data...)
}

// peImage is an Image that is an EFI program with one section, up to size.
func peImage(size int) []byte {
	data := append(arm64Image(nil), make([]byte, size)...)[:size]
	le := binary.LittleEndian
	copy(data, "MZ")
	at := size - 512
	le.PutUint32(data[60:], uint32(at))
	copy(data[at:], "PE\x00\x00")
	le.PutUint16(data[at+6:], 1)
	le.PutUint32(data[at+24+16:], 1024)
	le.PutUint32(data[at+24+20:], uint32(size-1024))
	return data
}

// TestWholePE: an Image is as long as its last section asks for.
func TestWholePE(t *testing.T) {
	if img, err := Parse(peImage(64 << 10)); err != nil || img.Kind != Arm64Image {
		t.Errorf("a whole Image: %v", err)
	}
}

func lz4Frame(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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
		{"program of another machine", synth.ELF(synth.Exec, 8, synth.Section{Name: ".rodata", Data: synth.Banner(release)}), true, "not a kernel image"},
		{"core", edited(vmlinux(), 16, 4), true, "not a kernel image"},
		{"zboot of no Image", zboot(synth.Gzip(synth.Banner(release + strings.Repeat("x", 100)))), true, "not an arm64 Image"},
		{"zboot of next to nothing", zboot(synth.Gzip([]byte("x"))), true, "not an arm64 Image"},
		{"module", synth.Module(""), true, "not a kernel image"},
		{"truncated bzImage", whole[:len(whole)-64], false, "beyond the file's"},
		{"old bzImage", old, false, "boot protocol"},
		{"damaged bzImage", damaged, false, "decompress payload (gzip)"},
		{"lzma bzImage", synth.BzImage([]byte("\x5d\x00\x00\x80\x00 lzma here")), false, "unsupported compression of the payload (it starts with 5d 00 00 80"},
		{"zImage without payload", zimage(nil), false, "no payload"},
		{"an image with lzma", []byte("\x5d\x00\x00\x80\x00" + strings.Repeat("x", 100)), true, "compressed with lzma, which labctl cannot unpack"},
		{"uImage of a script", uimage(6, []byte("echo hello")), true, "uImage of type 6"},
		{"uImage cut short", uimage(2, arm64Image(nil))[:200], false, "uImage: bytes 64 to"},
		{"uImage in a uImage", uimage(2, uimage(2, arm64Image(nil))), true, "uImage in a uImage"},
		{"truncated Image", peImage(64 << 10)[:65400], false, "arm64 Image of 65400 bytes, by its header 65536: truncated"},
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

// TestZImageTries: the code before a zImage's payload may contain the magic a few
// times.
func TestXZStreamSize(t *testing.T) {
	one := xzOf(t, []byte("one"))
	nested := xzOf(t, bytes.Repeat(one, 3)) // its end is in what is not compressed
	big := xzOf(t, vmlinux())
	for _, tt := range []struct {
		name string
		data []byte
		want int
	}{
		{"alone", one, len(one)},
		{"a length after it", slices.Concat(one, []byte{0, 16, 0, 0, 7, 7}), len(one)},
		{"zeros after it", append(bytes.Clone(one), make([]byte, 64)...), len(one)},
		{"another after it", slices.Concat(one, big), len(one)},
		{"one in it", slices.Concat(nested, one), len(nested)},
		{"vmlinux", slices.Concat(big, one), len(big)},
		{"cut", big[:len(big)-1], len(big) - 1},
		{"a footer alone", one[len(one)-12:], 12},
		{"a header alone", one[:12], 12},
		{"short", one[:5], 5},
		{"false footer", edited(one, len(one)-8, 200), len(one)},
	} {
		if got := xzStreamSize(tt.data); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestZImageTries(t *testing.T) {
	for n, want := range map[int]bool{60: true, 70: false} {
		b := make([]byte, 64)
		binary.LittleEndian.PutUint32(b[36:], 0x016f2818)
		b = append(b, bytes.Repeat([]byte{0x1f, 0x8b, 8, 0xff}, n)...)
		if _, err := Parse(append(b, synth.Gzip(synth.Banner("6.12.1+armmp"))...)); (err == nil) != want {
			t.Errorf("after %d magics by chance: %v; want it found: %t", n, err, want)
		}
	}
}

// TestDecompressZstd: a frame is decoded whatever follows it, and a truncated one is an
// error. Random bytes result in blocks whose size takes three bytes.
func TestDecompressZstd(t *testing.T) {
	data := make([]byte, 300<<10)
	rand.NewChaCha8([32]byte{}).Read(data)
	frame := synth.Zstd(data)
	if out, err := decompress("zstd", append(bytes.Clone(frame), 1, 2, 3, 4)); err != nil || !bytes.Equal(out, data) {
		t.Errorf("%d bytes, %v; want %d", len(out), err, len(data))
	}
	if n, err := zstdFrameSize(frame, maxUnpacked); err != nil || n != len(frame) {
		t.Errorf("zstdFrameSize = %d, %v; want %d", n, err, len(frame))
	}
	for n := len(frame) - 1; n > 0; n -= 997 {
		if size, err := zstdFrameSize(frame[:n], maxUnpacked); err == nil {
			t.Errorf("zstdFrameSize of %d bytes of %d = %d; want an error", n, len(frame), size)
		}
	}
	if _, err := decompress("zstd", frame[:len(frame)-1]); err == nil {
		t.Error("a frame without its last byte: no error")
	}
}

// TestDecompressLZ4 covers the possible ends of a legacy frame.
func TestDecompressLZ4(t *testing.T) {
	const block = 8 << 20
	full, short := lz4Legacy(t, make([]byte, block))[4:], lz4Legacy(t, make([]byte, 1000))[4:]
	cat := func(parts ...[]byte) []byte {
		return bytes.Join(append([][]byte{{2, 0x21, 0x4c, 0x18}}, parts...), nil)
	}
	length := []byte{0, 0, 0x80, 0}
	for _, tt := range []struct {
		name string
		data []byte
		want int // bytes, -1 for an error
	}{
		{"short block", cat(short), 1000},
		{"short block, length", cat(short, length), 1000},
		{"full block", cat(full), block},
		{"full block, length", cat(full, length), block},
		{"full block, part of a length", cat(full, length[:3]), block},
		{"full blocks and a short one", cat(full, full, short, length), 2*block + 1000},
		{"nothing", cat(), -1},
		{"length alone", cat(length), -1},
		{"block without bytes", cat([]byte{0, 0, 0, 0}, short), -1},
		{"cut block", cat(full, short[:len(short)-1]), -1},
	} {
		out, err := decompress("lz4", tt.data)
		if err != nil && tt.want >= 0 || err == nil && len(out) != tt.want {
			t.Errorf("%s: %d bytes, %v; want %d", tt.name, len(out), err, tt.want)
		}
	}
}

func TestSlice(t *testing.T) {
	for _, tt := range []struct {
		off, n int64
		want   string
		ok     bool
	}{
		{0, 4, "abcd", true}, {1, 2, "bc", true}, {4, 0, "", true}, {0, 0, "", true},
		{-1, 2, "", false}, {2, -1, "", false}, {5, 0, "", false}, {2, 3, "", false}, {0, 5, "", false},
	} {
		got, err := slice([]byte("abcd"), tt.off, tt.n)
		if string(got) != tt.want || (err == nil) != tt.ok {
			t.Errorf("slice(%d, %d) = %q, %v; want %q, no error: %t", tt.off, tt.n, got, err, tt.want, tt.ok)
		}
	}
	if _, err := slice([]byte("abcd"), 2, 3); err == nil || !strings.Contains(err.Error(), "bytes 2 to 5 are beyond the file's 4 bytes") {
		t.Errorf("slice(2, 3) = %v", err)
	}
}

func TestFindBanner(t *testing.T) {
	for in, want := range map[string]string{
		"Linux version 6.1.0 (a)\n":                                 "Linux version 6.1.0 (a)",
		"Linux version %s (%s)\x00" + "Linux version 6.1.0 (a)\x00": "Linux version 6.1.0 (a)",
		"Linux version is 6, Linux version 6.1.0 (a)":               "Linux version 6.1.0 (a)",
		"Linux version %s (%s)\x00":                                 "",
		"Linux version 6.1.0":                                       "",
	} {
		if got := findBanner([]byte(in)); got != want {
			t.Errorf("findBanner(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHasNote(t *testing.T) {
	xen := note("Xen", 18)
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"none", nil, false},
		{"one", xen, true},
		{"behind others", append(append(note("Linux", 18), note("Xen", 17)...), xen...), true},
		{"another name", note("Linux", 18), false},
		{"another type", note("Xen", 17), false},
		{"cut", xen[:len(xen)-1], false},
		{"a head alone", xen[:12], false},
	} {
		if got := hasNote(tt.b, binary.LittleEndian, "Xen", 18); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
	if hasNote(make([]byte, 12), binary.LittleEndian, "", 1) || !hasNote(make([]byte, 12), binary.LittleEndian, "", 0) {
		t.Error("a note of its head alone, of type 0, is found by another type, or not by its own")
	}
}

func TestORC(t *testing.T) {
	orc := synth.Section{Name: ".orc_unwind_ip", Data: make([]byte, 40)}
	cut := vmlinux(orc)
	at := bytes.Index(cut, []byte{40, 0, 0, 0, 0, 0, 0, 0}) // sh_size
	for _, tt := range []struct {
		name   string
		kernel []byte
		want   int
	}{
		{"with", vmlinux(orc), 10}, {"without", vmlinux(), 0}, {"flat", arm64Image(nil), 0},
		{"broken ELF", []byte("\x7fELF\x02\x01\x01"), 0}, {"beyond the file's", edited(cut, at+3, 1), 0},
	} {
		if got := (&Image{Kernel: tt.kernel}).ORC(); got != tt.want {
			t.Errorf("%s: %d entries, want %d", tt.name, got, tt.want)
		}
	}
}

// TestConfig: a truncated configuration, or one that is not gzip, is ignored.
func TestConfig(t *testing.T) {
	packed := string(synth.Gzip([]byte("CONFIG_A=y\n")))
	for in, want := range map[string]string{
		"xIKCFG_ST" + packed + "IKCFG_EDx":    "CONFIG_A=y\n",
		"IKCFG_ST" + packed:                   "",
		"IKCFG_ST" + "CONFIG_A=y IKCFG_ED":    "",
		"IKCFG_ST" + packed[:12] + "IKCFG_ED": "",
	} {
		if got := (&Image{Kernel: []byte(in)}).Config(); string(got) != want {
			t.Errorf("%.20q…: %q, want %q", in, got, want)
		}
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
		{"shortest", btf(4, 2), 30},
		{"shorter", btf(4, 1), 0},
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
		if got := len((&Image{Kernel: tt.b}).BTF()); got != tt.want {
			t.Errorf("%s, at the start of a flat kernel: got %d, want %d", tt.name, got, tt.want)
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
	f.Add(lzmaAlone(f, arm64Image(nil)))
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

// TestBombs: what a small file unpacks to is bounded by its size.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 96<<20)
	for _, tt := range []struct {
		name string
		data []byte
		bad  bool
	}{
		{"gzip of zeros", synth.Gzip(zeros), true},
		{"zstd of zeros", synth.Zstd(zeros), true},
		{"lzma of zeros", lzmaAlone(t, zeros[:40<<20]), true},
		{"bzImage of zeros", synth.BzImage(synth.Gzip(zeros)), true},
	} {
		_, err := Parse(tt.data)
		if tt.bad != (err != nil && strings.Contains(err.Error(), errTooLarge.Error())) {
			t.Errorf("%s, %d bytes: %v; want %q: %v", tt.name, len(tt.data), err, errTooLarge, tt.bad)
		}
	}
}
