// Package image parses a kernel image without booting it: its kind and
// architecture, the decompressed kernel, and what that contains: the release,
// BTF, the PVH entry and an embedded configuration.
//
// Formats: x86 bzImage (Documentation/arch/x86/boot.rst), arm64 Image
// (Documentation/arch/arm64/booting.rst), EFI zboot
// (drivers/firmware/efi/libstub/zboot-header.S), arm zImage
// (arch/arm/boot/compressed/head.S) and ELF vmlinux. Images are not trusted: every
// offset is checked against the file size.
package image

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"

	"labctl/host/arch"
	"labctl/host/outcome"
)

// MaxSize limits the size of an image and of anything decompressed from one, in
// bytes.
const MaxSize = 512 << 20

// ErrNotKernel is wrapped when a file is not a known kind of kernel image.
var ErrNotKernel = outcome.New(outcome.BadInput, "not a kernel image (want bzImage, arm64 Image or vmlinuz.efi, arm zImage, or vmlinux; optionally compressed with gzip, xz, zstd, lz4, lzma or bzip2)")

// Kind is the outermost format of an image.
type Kind string

const (
	BzImage    Kind = "bzImage"
	Arm64Image Kind = "arm64 Image"
	Zboot      Kind = "EFI zboot"
	ZImage     Kind = "arm zImage"
	ELF        Kind = "vmlinux"
)

// Image is a parsed kernel image.
type Image struct {
	Kind        Kind
	Arch        string // GOARCH: amd64, 386, arm64, arm
	Compression string // of the payload: gzip, xz, zstd, lz4, lzma, bzip2; "" if not compressed
	Release     string // `uname -r`, from the banner
	Banner      string // "Linux version …", one line
	// Kernel is the decompressed kernel: an ELF file on x86 and if Kind is ELF,
	// else the flat Image.
	Kernel []byte
	// Boot is what QEMU boots if that is not the file itself: it was compressed or
	// wrapped in a way that not every QEMU unwraps.
	Boot []byte
}

// Parse parses an image. The error wraps ErrNotKernel if data is not a kernel
// image; for a damaged image it describes the damage.
func Parse(data []byte) (_ *Image, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%d bytes is larger than any kernel: %w", len(data), ErrNotKernel)
	}
	img, err := parse(data)
	if err != nil {
		return nil, err
	}
	if img.Banner = findBanner(img.Kernel); img.Banner == "" {
		return nil, fmt.Errorf("%s without a Linux banner: %w", img.Kind, ErrNotKernel)
	}
	img.Release = bannerRE().FindStringSubmatch(img.Banner)[1]
	return img, nil
}

func parse(data []byte) (*Image, error) {
	for _, u := range unsupported {
		if bytes.HasPrefix(data, []byte(u.magic)) && !isLZMA(data) {
			return nil, fmt.Errorf("compressed with %s, which labctl cannot unpack: unpack it, and give labctl what was in it: %w", u.name, ErrNotKernel)
		}
	}
	if len(data) > uImageHeader && binary.BigEndian.Uint32(data) == 0x27051956 {
		return parseUImage(data)
	}
	if c := compressionOf(data); c != "" { // Image.gz and the like
		inner, err := decompress(c, data)
		if err != nil {
			return nil, fmt.Errorf("decompress (%s): %w", c, err)
		}
		img, err := parseBare(inner)
		if err == nil {
			img.Compression = cmp.Or(img.Compression, c)
			if img.Boot == nil {
				img.Boot = inner
			}
		}
		return img, err
	}
	return parseBare(data)
}

// Wrapped reports, by the first 64 bytes of an image, whether Parse sets Boot.
func Wrapped(head []byte) bool {
	return compressionOf(head) != "" || len(head) >= 8 && (binary.BigEndian.Uint32(head) == 0x27051956 || string(head[4:8]) == "zimg" && string(head[:2]) == "MZ")
}

// uImageHeader is the length of the header of U-Boot's legacy images.
const uImageHeader = 64

// parseUImage parses what mkimage(1) wraps (include/image.h of U-Boot, struct
// legacy_img_hdr): ih_size at 12, ih_type at 30, both big-endian. What is compressed in
// it is recognised by itself.
func parseUImage(data []byte) (*Image, error) {
	const kernel = 2 // IH_TYPE_KERNEL
	if t := data[30]; t != kernel {
		return nil, fmt.Errorf("uImage of type %d, not of a kernel: %w", t, ErrNotKernel)
	}
	inner, err := slice(data, uImageHeader, int64(binary.BigEndian.Uint32(data[12:])))
	if err != nil {
		return nil, fmt.Errorf("uImage: %w", err)
	}
	if len(inner) > uImageHeader && binary.BigEndian.Uint32(inner) == 0x27051956 {
		return nil, fmt.Errorf("uImage in a uImage: %w", ErrNotKernel)
	}
	img, err := parse(inner)
	if err == nil && img.Boot == nil {
		img.Boot = inner
	}
	return img, err
}

// parseBare parses an image that is not compressed as a whole.
func parseBare(data []byte) (*Image, error) {
	switch {
	case bytes.HasPrefix(data, []byte(elf.ELFMAG)):
		return parseELF(data)
	case len(data) > 0x260 && string(data[0x202:0x206]) == "HdrS":
		return parseBzImage(data)
	case len(data) > 64 && string(data[:2]) == "MZ" && string(data[4:8]) == "zimg":
		return parseZboot(data)
	case len(data) > 64 && string(data[56:60]) == "ARM\x64":
		if end := peEnd(data); end > int64(len(data)) {
			return nil, fmt.Errorf("arm64 Image of %d bytes, by its header %d: truncated", len(data), end)
		}
		return &Image{Kind: Arm64Image, Arch: "arm64", Kernel: data}, nil
	case len(data) > 48 && binary.LittleEndian.Uint32(data[36:]) == 0x016f2818:
		return parseZImage(data)
	}
	return nil, ErrNotKernel
}

// peEnd returns the end of the last section of an Image that is an EFI program, too
// (arch/arm64/kernel/efi-header.S), 0 if it is none: its file is not shorter. The
// Image's own header has the size in memory alone.
func peEnd(data []byte) (end int64) {
	le := binary.LittleEndian
	at := int64(le.Uint32(data[60:]))
	coff, err := slice(data, at, 24)
	if string(data[:2]) != "MZ" || err != nil || string(coff[:4]) != "PE\x00\x00" {
		return 0
	}
	const section = 40
	n := int64(le.Uint16(coff[6:]))
	table, err := slice(data, at+24+int64(le.Uint16(coff[20:])), n*section)
	if err != nil {
		return 0
	}
	for s := range slices.Chunk(table, section) {
		end = max(end, int64(le.Uint32(s[16:]))+int64(le.Uint32(s[20:]))) // SizeOfRawData, PointerToRawData
	}
	return end
}

func parseELF(data []byte) (*Image, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if errors.Is(err, io.EOF) {
		return nil, errors.New("read ELF: its sections are beyond its end: truncated?")
	}
	if err != nil {
		return nil, fmt.Errorf("read ELF: %w", err)
	}
	name := arch.OfELF(f.Machine, f.Class)
	if _, ok := arch.Find(name); !ok && name != "386" || (f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN) {
		return nil, fmt.Errorf("ELF %s for %s: %w", f.Type, f.Machine, ErrNotKernel)
	}
	return &Image{Kind: ELF, Arch: name, Kernel: data}, nil
}

func parseBzImage(data []byte) (*Image, error) {
	le := binary.LittleEndian
	// payload_offset and payload_length were added in protocol 2.08 (2.6.26).
	if v := le.Uint16(data[0x206:]); v < 0x208 {
		return nil, fmt.Errorf("bzImage: boot protocol %#x is older than 0x208, which added the payload's offset", v)
	}
	setup := int64(data[0x1f1])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*512 + int64(le.Uint32(data[0x248:]))
	payload, err := slice(data, start, int64(le.Uint32(data[0x24c:])))
	if err != nil {
		return nil, fmt.Errorf("bzImage payload: %w", err)
	}
	arch := "386"
	if le.Uint16(data[0x236:])&1 != 0 { // XLF_KERNEL_64
		arch = "amd64"
	}
	return unpack(BzImage, arch, compressionOf(payload), payload)
}

func parseZboot(data []byte) (*Image, error) {
	le := binary.LittleEndian
	payload, err := slice(data, int64(le.Uint32(data[8:])), int64(le.Uint32(data[12:])))
	if err != nil {
		return nil, fmt.Errorf("zboot payload: %w", err)
	}
	img, err := unpack(Zboot, "arm64", compressionOf(payload), payload)
	if err != nil {
		return nil, err
	}
	if len(img.Kernel) < 64 || string(img.Kernel[56:60]) != "ARM\x64" {
		return nil, fmt.Errorf("zboot payload is not an arm64 Image: %w", ErrNotKernel)
	}
	img.Boot = img.Kernel // QEMU before 8.1 knows no zboot, before 10 none with zstd
	return img, nil
}

// parseZImage searches for the payload: a zImage's header does not have its
// offset, and the code before it may contain the same magic bytes by chance.
func parseZImage(data []byte) (*Image, error) {
	const tries = 64
	n, left := 0, int64(maxUnpacked)
	for off := 48; off < len(data) && n < tries; off++ {
		c := compressionOf(data[off:])
		if c == "" {
			continue
		}
		n++
		img, err := unpack(ZImage, "arm", c, data[off:])
		if err == nil && findBanner(img.Kernel) != "" {
			return img, nil
		}
		if errors.Is(err, errTooLarge) {
			return nil, err
		}
		if err == nil {
			if left -= int64(len(img.Kernel)); left < 0 { // a bound for all of them together
				return nil, errTooLarge
			}
		}
	}
	return nil, errors.New("zImage: no payload compressed with gzip, xz, zstd, lz4, lzma or bzip2")
}

func unpack(kind Kind, arch, compression string, payload []byte) (*Image, error) {
	if compression == "" {
		return nil, fmt.Errorf("%s: unsupported compression of the payload (it starts with % x; lzo is not supported)", kind, payload[:min(8, len(payload))])
	}
	kernel, err := decompress(compression, payload)
	if err != nil {
		return nil, fmt.Errorf("%s: decompress payload (%s): %w", kind, compression, err)
	}
	return &Image{Kind: kind, Arch: arch, Compression: compression, Kernel: kernel}, nil
}

// slice returns data[off:off+n] if that is within data.
func slice(data []byte, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > int64(len(data)) || n > int64(len(data))-off {
		return nil, fmt.Errorf("bytes %d to %d are beyond the file's %d bytes: truncated?", off, off+n, len(data))
	}
	return data[off : off+n], nil
}

// bannerRE matches linux_banner (init/version.c); there may be a second copy that
// contains %s, linux_proc_banner. Counted repetitions take milliseconds to
// compile, and most runs of labctl read no image.
var bannerRE = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`Linux version (\d{1,4}\.\d{1,4}[!-~]{0,128}) \([^\n\x00]{0,999}`)
})

func findBanner(kernel []byte) string {
	prefix := []byte("Linux version ")
	for off := 0; ; {
		i := bytes.Index(kernel[off:], prefix)
		if i < 0 {
			return ""
		}
		off += i
		line := kernel[off:min(off+1400, len(kernel))]
		if m := bannerRE().Find(line); m != nil && bytes.HasPrefix(line, m) {
			return string(m)
		}
		off += len(prefix)
	}
}

// VmlinuxELF returns the kernel as an ELF file, or false if the image contains a
// flat one.
func (img *Image) VmlinuxELF() ([]byte, bool) {
	return img.Kernel, bytes.HasPrefix(img.Kernel, []byte(elf.ELFMAG))
}

// HasPVH reports whether the ELF file has the note XEN_ELFNOTE_PHYS32_ENTRY, which
// QEMU uses to boot a vmlinux directly (include/xen/interface/elfnote.h).
func (img *Image) HasPVH() bool {
	data, ok := img.VmlinuxELF()
	return ok && HasPVH(bytes.NewReader(data))
}

// HasPVH is [Image.HasPVH] for an ELF file that is not in memory.
func HasPVH(r io.ReaderAt) bool {
	f, err := elf.NewFile(r)
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err == nil && hasNote(notes, f.ByteOrder, "Xen", 18) {
			return true
		}
	}
	return false
}

// hasNote reports whether the ELF notes in b include one. A note is name size,
// descriptor size, type, then name and descriptor, each padded to four bytes.
func hasNote(b []byte, order binary.ByteOrder, name string, typ uint32) bool {
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(b) >= 12 {
		namesz, descsz := order.Uint32(b), order.Uint32(b[4:])
		total := 12 + pad(namesz) + pad(descsz)
		if total > uint64(len(b)) {
			return false
		}
		if order.Uint32(b[8:]) == typ && string(bytes.TrimRight(b[12:12+namesz], "\x00")) == name {
			return true
		}
		b = b[total:]
	}
	return false
}

// BTF returns the kernel's raw BTF blob (Documentation/bpf/btf.rst), nil if it has
// none. In an ELF file it is the .BTF section; in a flat image it is found by its
// header, and the largest blob is the kernel's.
func (img *Image) BTF() []byte {
	if data, ok := img.VmlinuxELF(); ok {
		if f, err := elf.NewFile(bytes.NewReader(data)); err == nil {
			if s := f.Section(".BTF"); s != nil && s.Type != elf.SHT_NOBITS && s.Flags&elf.SHF_COMPRESSED == 0 {
				if b, err := slice(data, int64(s.Offset), int64(s.Size)); err == nil {
					if n := btfSize(b); n > 0 {
						return b[:n]
					}
				}
			}
		}
	}
	var best []byte
	magic := []byte{0x9f, 0xeb, 1}
	for off := 0; ; {
		i := bytes.Index(img.Kernel[off:], magic)
		if i < 0 {
			return best
		}
		off += i
		if n := btfSize(img.Kernel[off:]); n > len(best) {
			best = img.Kernel[off : off+n]
		}
		off += len(magic)
	}
}

// btfSize returns the length of the BTF blob at the start of b, 0 if there is none.
// The header is magic (2), version, flags, hdr_len (4), then offset and length of
// types and of strings, relative to the header's end. The kernel puts types first
// and strings, which start and end with NUL, last.
func btfSize(b []byte) int {
	const hdrLen = 24
	le := binary.LittleEndian
	if len(b) < hdrLen || le.Uint16(b) != 0xeb9f || b[2] != 1 || b[3] != 0 || le.Uint32(b[4:]) != hdrLen {
		return 0
	}
	typeOff, typeLen, strOff, strLen := uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:])), uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:]))
	end := hdrLen + strOff + strLen
	if typeOff != 0 || typeLen == 0 || typeLen%4 != 0 || strOff < typeLen || strLen < 2 || end > uint64(len(b)) {
		return 0
	}
	if b[hdrLen+strOff] != 0 || b[end-1] != 0 {
		return 0
	}
	return int(end)
}

// Config returns the configuration embedded by CONFIG_IKCONFIG, the contents of
// /proc/config.gz (kernel/configs.c), nil if there is none.
func (img *Image) Config() []byte {
	_, rest, ok := bytes.Cut(img.Kernel, []byte("IKCFG_ST"))
	if !ok {
		return nil
	}
	packed, _, ok := bytes.Cut(rest[:min(len(rest), 4<<20)], []byte("IKCFG_ED"))
	if !ok || compressionOf(packed) != "gzip" {
		return nil
	}
	cfg, err := decompressMax("gzip", packed, 16<<20)
	if err != nil {
		return nil
	}
	return cfg
}
