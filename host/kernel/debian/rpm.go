package debian

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/cavaliergopher/cpio"
)

// The start of an RPM's file: its lead, and the headers' own magic number
// (rpm.org, "RPM V4 Package format").
const (
	rpmMagic       = "\xed\xab\xee\xdb"
	rpmLead        = 96
	rpmHeaderMagic = "\x8e\xad\xe8\x01"
	maxRPMHeader   = 64 << 20 // bytes; a kernel's has the names of some thousand files
)

// rpm unpacks the files of an RPM package: a lead, a header with signatures, padded to
// eight bytes, the header, and the files as a compressed cpio archive. Signatures are
// not checked: the caller knows the package by its checksum.
func (u *unpacker) rpm(r *bufio.Reader) error {
	if _, err := io.CopyN(io.Discard, r, rpmLead); err != nil {
		return errors.New("not an RPM: its lead is cut")
	}
	for _, what := range []string{"signatures", "header"} {
		n, err := rpmHeader(r)
		if err != nil {
			return fmt.Errorf("read RPM: %s: %w", what, err)
		}
		if what == "signatures" {
			if _, err := io.CopyN(io.Discard, r, -n&7); err != nil {
				return fmt.Errorf("read RPM: %s: %w", what, io.ErrUnexpectedEOF)
			}
		}
	}
	head, err := r.Peek(6)
	if err != nil {
		return errors.New("read RPM: it has no files")
	}
	suffix := ""
	for _, c := range []struct{ magic, suffix string }{{"\x1f\x8b", ".gz"}, {"\xfd7zXZ\x00", ".xz"}, {"\x28\xb5\x2f\xfd", ".zst"}, {"070701", ""}} {
		if string(head[:len(c.magic)]) == c.magic {
			suffix = c.suffix
			break
		}
		suffix = "?"
	}
	if suffix == "?" {
		return fmt.Errorf("read RPM: files that begin with %x: known are gzip, xz, zstd and plain cpio", head)
	}
	data, err := decompressor(suffix, r)
	if err != nil {
		return fmt.Errorf("read RPM: %w", err)
	}
	defer data.Close()
	return u.cpio(data)
}

// rpmHeader passes over one header and returns its size in bytes.
//
//	magic/4 reserved/4 entries/4 data/4, entries of 16 bytes, data; big endian
func rpmHeader(r io.Reader) (int64, error) {
	var h [16]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	if string(h[:4]) != rpmHeaderMagic {
		return 0, fmt.Errorf("it begins with %x, want %x", h[:4], rpmHeaderMagic)
	}
	n := 16*int64(binary.BigEndian.Uint32(h[8:])) + int64(binary.BigEndian.Uint32(h[12:]))
	if n > maxRPMHeader {
		return 0, fmt.Errorf("%d bytes: %d at most", n, maxRPMHeader)
	}
	if _, err := io.CopyN(io.Discard, r, n); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	return n + int64(len(h)), nil
}

func (u *unpacker) cpio(r io.Reader) error {
	cr := cpio.NewReader(bufio.NewReaderSize(r, 256<<10))
	for {
		h, err := cr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read RPM: %w", err)
		}
		if !h.Mode.IsRegular() {
			continue
		}
		if err := u.one(h.Name, h.Size); err != nil {
			return err
		}
		if err := u.take(path.Clean("/" + h.Name)[1:], h.Size, cr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// IsPackage reports whether a file that begins so, 8 bytes at least, is a package that
// Unpack reads.
func IsPackage(head []byte) bool {
	return bytes.HasPrefix(head, []byte(rpmMagic)) || bytes.HasPrefix(head, []byte(arMagic))
}
