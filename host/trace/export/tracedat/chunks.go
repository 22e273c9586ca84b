package tracedat

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// unpacker uncompresses b, whose content has size bytes.
type unpacker func(b []byte, size int) ([]byte, error)

var unpackers = map[string]unpacker{"zstd": unzstd, "zlib": unzlib}

var zstdReader = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxText), zstd.WithDecodeAllCapLimit(true))
})

func unzstd(b []byte, size int) ([]byte, error) {
	d, err := zstdReader()
	if err != nil {
		return nil, err
	}
	out, err := d.DecodeAll(b, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("uncompress %d bytes: %w", len(b), err)
	}
	return whole(out, size)
}

func unzlib(b []byte, size int) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("uncompress %d bytes: %w", len(b), err)
	}
	out := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := out.ReadFrom(io.LimitReader(z, int64(size)+1)); err != nil {
		return nil, fmt.Errorf("uncompress %d bytes: %w", len(b), err)
	}
	return whole(out.Bytes(), size)
}

func whole(b []byte, size int) ([]byte, error) {
	if len(b) != size {
		return nil, fmt.Errorf("%d uncompressed bytes or more; %d are promised", len(b), size)
	}
	return b, nil
}

// chunk is some of a CPU's pages, compressed together.
type chunk struct {
	at     int64 // in the file
	start  int64 // in the pages
	packed uint32
	size   uint32
}

// maxChunks is 40 GB of pages in trace-cmd's chunks of 40 KiB.
const maxChunks = 1 << 20

// chunked reads pages that are compressed. It keeps the last chunk.
type chunked struct {
	r      io.ReaderAt
	unpack unpacker
	what   string
	chunks []chunk
	size   int64

	mu     sync.Mutex
	last   int // of chunks, in pages; -1 for none
	pages  []byte
	packed []byte
}

// packed lists the chunks in [off, end). Where the file was cut, it keeps those
// that are whole.
func (p *parser) packed(off, end int64, what string, cut bool) (io.ReaderAt, int64, error) {
	// The size does not count the number of chunks when trace-cmd 3.1 wrote it.
	end = min(end+4, p.size)
	c := at(p.r, off, end, what, p.order, p.budget)
	pages := &chunked{r: p.r, unpack: p.unpack, what: what, last: -1}
	promised := c.u32()
	for n := promised; n > 0 && c.err == nil; n-- {
		// Each header is read on its own: the pages between them stay unread.
		k := at(p.r, c.off, end, what, p.order, p.budget)
		if cut && k.left() < 8 {
			break
		}
		packed, size := k.u32(), k.u32()
		switch {
		case k.err != nil:
		case cut && int64(packed) > k.left():
		case size == 0 || size > maxChunk || int(size)%p.f.PageSize != 0:
			k.fail("a chunk of %d bytes of pages of %d", size, p.f.PageSize)
		case packed == 0 || packed > maxChunk || int64(packed) > k.left():
			k.fail("a chunk of %d compressed bytes; %d are left", packed, k.left())
		case p.chunks == maxChunks:
			k.fail("more than %d chunks", maxChunks)
		default:
			p.chunks++
			pages.chunks = append(pages.chunks, chunk{k.off, pages.size, packed, size})
			pages.size += int64(size)
			c.off = k.off + int64(packed)
			continue
		}
		if c.err = k.err; c.err == nil {
			break
		}
	}
	if c.err != nil {
		return nil, 0, c.err
	}
	p.take(off, c.off, what)
	if missing := int(promised) - len(pages.chunks); missing > 0 {
		p.note("%s: the file is cut short: %d of %d chunks of pages are missing", what, missing, promised)
	}
	return pages, pages.size, nil
}

func (c *chunked) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d", c.what, off)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		i, found := slices.BinarySearchFunc(c.chunks, off, func(k chunk, off int64) int {
			switch {
			case off < k.start:
				return 1
			case off >= k.start+int64(k.size):
				return -1
			}
			return 0
		})
		if !found {
			return n, io.EOF
		}
		if err := c.load(i); err != nil {
			return n, err
		}
		m := copy(p[n:], c.pages[off-c.chunks[i].start:])
		n, off = n+m, off+int64(m)
	}
	return n, nil
}

func (c *chunked) load(i int) error {
	if i == c.last {
		return nil
	}
	k := c.chunks[i]
	c.packed = slices.Grow(c.packed[:0], int(k.packed))[:k.packed]
	if _, err := c.r.ReadAt(c.packed, k.at); err != nil {
		return fmt.Errorf("read %s at offset %d: %w", c.what, k.at, err)
	}
	pages, err := c.unpack(c.packed, int(k.size))
	if err != nil {
		return &BadFile{c.what, k.at, err.Error()}
	}
	c.last, c.pages = i, pages
	return nil
}
