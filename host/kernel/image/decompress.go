package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/xi2/xz"
)

var magics = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b\x08"},
	{"xz", "\xfd7zXZ\x00"},
	{"zstd", "\x28\xb5\x2f\xfd"},
	{"lz4", "\x02\x21\x4c\x18"}, // the legacy frame, which the kernel uses
}

// compressionOf names the compression that b begins with, "" for none known.
func compressionOf(b []byte) string {
	for _, m := range magics {
		if len(b) > len(m.magic) && string(b[:len(m.magic)]) == m.magic {
			return m.name
		}
	}
	return ""
}

// errTooLarge keeps a small file from filling the memory.
var errTooLarge = errors.New("decompresses to more than a kernel has")

func decompress(name string, b []byte) ([]byte, error) { return decompressMax(name, b, MaxSize) }

// decompressMax reads one stream. Bytes after its end are passed over: the
// kernel's build appends the length to all but gzip.
func decompressMax(name string, b []byte, limit int64) ([]byte, error) {
	var r io.Reader
	switch name {
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	case "xz":
		// The dictionary is allocated as the stream asks, up to this bound;
		// the kernel's xz_wrap.sh asks for 32 MiB, newer ones for 128 MiB. For x86
		// it also asks for a BCJ filter, which of the readers in Go only this one
		// and its forks undo.
		z, err := xz.NewReader(bytes.NewReader(b), 256<<20)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	case "zstd":
		return unzstd(b, limit)
	case "lz4":
		return unlz4(b, limit)
	default:
		return nil, fmt.Errorf("compression %q is not known", name)
	}
	// Four times the packed size is about what kernels need.
	out := bytes.NewBuffer(make([]byte, 0, min(int64(len(b))*4+512, limit+512)))
	_, err := io.Copy(out, io.LimitReader(r, limit+1))
	if int64(out.Len()) > limit {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unzstd decodes the first frame. The decoder would go on to the next frame and
// fail on the appended length, so it is given the frame alone.
func unzstd(b []byte, limit int64) ([]byte, error) {
	n, err := zstdFrameSize(b)
	if err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderMaxWindow(1<<29))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	out, err := d.DecodeAll(b[:n], nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return nil, errTooLarge
	}
	return out, err
}

// zstdFrameSize walks the blocks of a frame (RFC 8878, 3.1.1).
func zstdFrameSize(b []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, err
	}
	n := h.HeaderSize
	for {
		if n+3 > len(b) {
			return 0, io.ErrUnexpectedEOF
		}
		v := uint32(b[n]) | uint32(b[n+1])<<8 | uint32(b[n+2])<<16
		size := int(v >> 3)
		if v>>1&3 == 1 { // RLE: one byte stands for size
			size = 1
		}
		if n += 3 + size; n > len(b) {
			return 0, io.ErrUnexpectedEOF
		}
		if v&1 != 0 {
			break
		}
	}
	if h.HasCheckSum {
		n += 4
	}
	if n > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// unlz4 decodes the legacy frame: magic, then blocks of at most 8 MiB, each
// behind its packed size. There is no end mark; the last block is the first that
// is not full, or the one after which only the appended length is left.
func unlz4(b []byte, limit int64) ([]byte, error) {
	const blockMax = 8 << 20
	var out []byte
	block := make([]byte, blockMax)
	for b = b[4:]; len(b) >= 4; {
		size := binary.LittleEndian.Uint32(b)
		if b = b[4:]; len(b) == 0 && len(out) > 0 { // that was the appended length
			break
		}
		if size == 0 || uint64(size) > uint64(len(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		n, err := lz4.UncompressBlock(b[:size], block)
		if err != nil {
			return nil, err
		}
		if int64(len(out)+n) > limit {
			return nil, errTooLarge
		}
		out, b = append(out, block[:n]...), b[size:]
		if n < blockMax {
			return out, nil
		}
	}
	if len(out) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return out, nil
}
