package warm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"labctl/host/bounded"
	"labctl/host/stamp"
)

// stored is a file of a template as it was completed. Nobody writes to it after that:
// QEMU maps the memory privately.
type stored struct {
	SHA256 string `json:"sha256"` // see sparseSum
	stamp.Stamp
}

// storedAs describes a file that is complete and has its name, which is part of its
// state.
func storedAs(f *os.File) (s stored, err error) {
	if s.SHA256, err = sparseSum(f); err != nil {
		return s, err
	}
	st, err := f.Stat()
	if err == nil {
		s.Stamp, _ = stamp.Of(st)
	}
	return s, err
}

// same reports whether a file is as it was stored. It is read only if it was touched
// since, or copied: then moved has its new stamp.
func (s stored) same(path string) (ok bool, moved *stored, err error) {
	f, err := bounded.Open(path)
	if err != nil {
		return false, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, nil, err
	}
	now, ok := stamp.Of(st)
	if ok && now == s.Stamp {
		return true, nil, nil
	}
	if now.Size != s.Size {
		return false, nil, nil
	}
	sum, err := sparseSum(f)
	if err != nil || sum != s.SHA256 {
		return false, nil, err
	}
	return true, &stored{sum, now}, nil
}

// sparseSum hashes a file's pages that are not zero, with their offsets: it is the same
// however much of the file is holes, and a guest's memory is mostly that.
func sparseSum(f *os.File) (string, error) {
	const page = 4096
	h := sha256.New()
	buf, zero := make([]byte, 256*page), make([]byte, page)
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) { // no more data
			break
		}
		if err != nil {
			return "", err
		}
		off = data &^ (page - 1)
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return "", err
		}
		for off < hole {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), (hole-off+page-1)&^(page-1))], off)
			for b := buf[:n]; len(b) > 0; b, off = b[min(page, len(b)):], off+page {
				if p := b[:min(page, len(b))]; !bytes.Equal(p, zero[:len(p)]) {
					var at [8]byte
					binary.LittleEndian.PutUint64(at[:], uint64(off))
					h.Write(at[:])
					h.Write(p)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return "", err
			}
		}
		off = max(off, hole)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
