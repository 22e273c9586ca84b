// Package synth builds small ELF files and Debian packages for tests.
package synth

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Section is one section of an ELF file.
type Section struct {
	Name string
	Data []byte
}

// ELF types and machines, as in debug/elf.
const (
	Rel     = 1
	Exec    = 2
	X86_64  = 62
	AArch64 = 183
)

// ELF returns a little-endian 64-bit ELF file of the given type and machine with
// the given sections. A section .notes also gets a program header PT_NOTE.
func ELF(typ, machine uint16, sections ...Section) []byte {
	le := binary.LittleEndian
	const ehdr, phdr, shdr = 64, 56, 64
	names := []byte{0}
	var body bytes.Buffer
	type place struct{ name, off, size uint64 }
	var places []place
	phnum := 0
	for _, s := range sections {
		if s.Name == ".notes" {
			phnum = 1
		}
	}
	base := uint64(ehdr + phnum*phdr)
	for _, s := range append(sections, Section{Name: ".shstrtab"}) {
		p := place{name: uint64(len(names)), off: base + uint64(body.Len()), size: uint64(len(s.Data))}
		names = append(append(names, s.Name...), 0)
		if s.Name == ".shstrtab" {
			p.size = uint64(len(names))
			body.Write(names)
		}
		body.Write(s.Data)
		for body.Len()%8 != 0 {
			body.WriteByte(0)
		}
		places = append(places, p)
	}
	out := make([]byte, ehdr)
	copy(out, "\x7fELF\x02\x01\x01")
	le.PutUint16(out[16:], typ)
	le.PutUint16(out[18:], machine)
	le.PutUint32(out[20:], 1)
	le.PutUint64(out[40:], base+uint64(body.Len())) // e_shoff
	le.PutUint16(out[52:], ehdr)
	le.PutUint16(out[54:], phdr)
	le.PutUint16(out[58:], shdr)
	le.PutUint16(out[60:], uint16(len(places)+1))
	le.PutUint16(out[62:], uint16(len(places))) // e_shstrndx
	for i, s := range sections {
		if s.Name == ".notes" {
			le.PutUint64(out[32:], ehdr)
			le.PutUint16(out[56:], 1)
			ph := make([]byte, phdr)
			le.PutUint32(ph, 4) // PT_NOTE
			le.PutUint64(ph[8:], places[i].off)
			le.PutUint64(ph[32:], places[i].size)
			le.PutUint64(ph[40:], places[i].size)
			out = append(out, ph...)
		}
	}
	out = append(out, body.Bytes()...)
	out = append(out, make([]byte, shdr)...)
	for i, p := range places {
		sh := make([]byte, shdr)
		le.PutUint32(sh, uint32(p.name))
		le.PutUint32(sh[4:], 1) // SHT_PROGBITS
		if i == len(places)-1 {
			le.PutUint32(sh[4:], 3) // SHT_STRTAB
		}
		le.PutUint64(sh[24:], p.off)
		le.PutUint64(sh[32:], p.size)
		le.PutUint64(sh[48:], 1)
		out = append(out, sh...)
	}
	return out
}

// Module returns a kernel module that depends on others.
func Module(depends string) []byte {
	return ELF(Rel, X86_64, Section{".modinfo", []byte("license=GPL\x00depends=" + depends + "\x00retpoline=Y\x00")})
}

// BzImage returns an x86 bzImage, boot protocol 2.15, with a compressed payload, to
// which the kernel's build appends the length.
func BzImage(payload []byte) []byte {
	le := binary.LittleEndian
	const setup = 2
	b := make([]byte, (setup+1)*512)
	b[0x1f1] = setup
	b[0x1fe], b[0x1ff] = 0x55, 0xaa
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint16(b[0x236:], 1) // XLF_KERNEL_64
	le.PutUint32(b[0x248:], 32)
	le.PutUint32(b[0x24c:], uint32(len(payload)+4))
	b = append(b, make([]byte, 32)...)
	return append(append(b, payload...), 1, 2, 3, 4)
}

// Banner returns a kernel's version banner.
func Banner(release string) []byte {
	return []byte("\x00Linux version %s (%s)\x00Linux version " + release + " (build@host) (gcc 12) #1 SMP\n\x00")
}

// Gzip and Zstd compress b.
func Gzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func Zstd(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

// File is a file in a package.
type File struct {
	Name string
	Data []byte
}

// Tar returns a tar archive.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Ar returns an ar archive.
func Ar(members ...File) []byte {
	out := []byte("!<arch>\n")
	for _, m := range members {
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, 0, 0, 0, "100644", len(m.Data))
		if out = append(out, m.Data...); len(m.Data)%2 == 1 {
			out = append(out, '\n')
		}
	}
	return out
}

// Deb returns a Debian package with gzip-compressed data.
func Deb(t testing.TB, files ...File) []byte {
	t.Helper()
	return Ar(
		File{"debian-binary", []byte("2.0\n")},
		File{"control.tar.gz", Gzip(Tar(t, File{"./control", []byte("Package: x\n")}))},
		File{"data.tar.gz", Gzip(Tar(t, files...))},
	)
}
