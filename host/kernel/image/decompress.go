package image

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
	"github.com/xi2/xz"
)

var magics = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b\x08"},
	{"xz", "\xfd7zXZ\x00"},
	{"zstd", "\x28\xb5\x2f\xfd"},
	{"lz4", "\x02\x21\x4c\x18"},       // the legacy frame format, which the kernel uses
	{"lz4 frame", "\x04\x22\x4d\x18"}, // what lz4(1) makes
	{"bzip2", "BZh"},
}

// isLZMA recognises what lzma(1) makes of a pipe, as the kernel's build does. The format has
// no magic: its first bytes are the usual properties, the dictionary's size, of which two
// bytes are 0 in all presets, and a size that is not known.
func isLZMA(b []byte) bool {
	return len(b) > 13 && b[0] == 0x5d && b[1] == 0 && b[2] == 0 && string(b[5:13]) == "\xff\xff\xff\xff\xff\xff\xff\xff"
}

// unsupported are formats that are recognised to be named.
var unsupported = []struct{ name, magic string }{
	{"lzma", "\x5d\x00\x00"},
	{"lzo", "\x89LZO\x00\r\n\x1a\n"},
}

// compressionOf returns the name of the compression format of b, "" if it is not
// a known one.
func compressionOf(b []byte) string {
	for _, m := range magics {
		if len(b) > len(m.magic) && string(b[:len(m.magic)]) == m.magic {
			return m.name
		}
	}
	if isLZMA(b) {
		return "lzma"
	}
	return ""
}

// errTooLarge protects against decompression bombs.
var errTooLarge = errors.New("decompresses to more than the size of any kernel")

// maxUnpacked bounds what one stream becomes, in bytes, and maxRatio how many times its
// size, beyond a few megabytes: kernels are four times as large.
const (
	maxUnpacked = 256 << 20
	maxRatio    = 32
	smallest    = 32 << 20
)

// decompress decompresses one stream. No header has a bound for its size: init_size of a
// bzImage is less, as it leaves out the symbols.
func decompress(name string, b []byte) ([]byte, error) {
	return decompressMax(name, b, min(maxUnpacked, max(smallest, maxRatio*int64(len(b)))))
}

// decompressMax decompresses one stream and ignores bytes after its end: the
// kernel's build appends the length to all formats but gzip.
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
		// The stream sets the dictionary size, up to this limit; the kernel's
		// xz_wrap.sh uses 32 MiB, newer ones 128 MiB. For x86 it also uses a BCJ
		// filter, which of the xz readers in Go only this one and its forks
		// support.
		z, err := xz.NewReader(bytes.NewReader(b[:xzStreamSize(b)]), 256<<20)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	case "lzma":
		// The dictionary is as large as the header says, up to this limit: presets have
		// 64 MiB at most.
		z, err := lzma.ReaderConfig{DictCap: 128 << 20}.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	case "bzip2":
		r = bzip2.NewReader(bytes.NewReader(b))
	case "lz4 frame":
		r = lz4.NewReader(bytes.NewReader(b))
	case "zstd":
		return unzstd(b, limit)
	case "lz4":
		return unlz4(b, limit)
	default:
		return nil, fmt.Errorf("unknown compression %q", name)
	}
	// Kernels decompress to about four times their compressed size.
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

// xzStreamSize returns how many bytes the first stream has, len(b) if no end of it is found.
// The decoder takes zeros after it for padding, and the appended length may begin with some.
// An end is a footer with an index before it that accounts for all bytes from the start
// (https://tukaani.org/xz/xz-file-format.txt, 2.1.2 and 4).
func xzStreamSize(b []byte) int {
	const header, footer = 12, 12
	le := binary.LittleEndian
	for end := header; ; {
		i := bytes.Index(b[min(end, len(b)):], []byte("YZ"))
		if i < 0 {
			return len(b)
		}
		end += i + 2
		if end%4 != 0 || end < header+footer || !bytes.Equal(b[end-4:end-2], b[6:8]) || crc32.ChecksumIEEE(b[end-8:end-2]) != le.Uint32(b[end-footer:]) {
			continue
		}
		index := (int64(le.Uint32(b[end-8:])) + 1) * 4
		at := int64(end) - footer - index
		if at < header || b[at] != 0 {
			continue
		}
		records := bytes.NewReader(b[at+1 : end-footer])
		n, err := binary.ReadUvarint(records)
		for ; n > 0 && err == nil && at > header; n-- {
			var size uint64
			if size, err = binary.ReadUvarint(records); err == nil {
				at -= int64(min(size, maxUnpacked)+3) &^ 3
				_, err = binary.ReadUvarint(records)
			}
		}
		if n == 0 && err == nil && at == header {
			return end
		}
	}
}

// unzstd decodes the first frame. The decoder would continue with the next frame
// and fail on the appended length, so unzstd passes it the frame only.
func unzstd(b []byte, limit int64) ([]byte, error) {
	n, err := zstdFrameSize(b, limit)
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

// zstdFrameSize returns the size of a frame by walking its blocks (RFC 8878,
// 3.1.1).
func zstdFrameSize(b []byte, limit int64) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, err
	}
	if h.HasFCS && h.FrameContentSize > uint64(limit) {
		return 0, errTooLarge
	}
	n := h.HeaderSize
	for {
		if n+3 > len(b) {
			return 0, io.ErrUnexpectedEOF
		}
		v := uint32(b[n]) | uint32(b[n+1])<<8 | uint32(b[n+2])<<16
		size := int(v >> 3)
		if v>>1&3 == 1 { // RLE: one byte represents size bytes
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

// unlz4 decodes the legacy frame format: magic, then blocks of at most 8 MiB, each
// preceded by its compressed size. There is no end mark; the last block is the
// first that is not full, or the one after which only the appended length is left.
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
