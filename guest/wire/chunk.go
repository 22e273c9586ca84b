package wire

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A capture travels on Extra as a head and chunks. A chunk is
//
//	offset size
//	0      1    ChunkKind
//	1      1    zero
//	2      2    CPU, little endian; 0 for what belongs to none
//	4      4    length of the payload, little endian, at most MaxChunk
//	8      n    payload
//
// Frames are checksummed below, so chunks are not. On a slow line all that
// follows the head is deflated (RFC 1951).

// ChunkKind says what a chunk carries. Except for pages and for what comes in pieces, a
// later chunk of a kind (and CPU, and event) takes the place of
// an earlier one.
type ChunkKind uint8

const (
	ChunkArmed       ChunkKind = 1 + iota // JSON CaptureArmed: the capture begins
	ChunkHeaderPage                       // events/header_page
	ChunkHeaderEvent                      // events/header_event
	ChunkFormat                           // "SYSTEM/EVENT", a NUL, events/SYSTEM/EVENT/format
	ChunkClock                            // trace_clock
	ChunkSymbols                          // lines of /proc/kallsyms, in pieces
	ChunkPrintk                           // printk_formats, in pieces
	ChunkCmdlines                         // saved_cmdlines, in pieces
	ChunkTgids                            // saved_tgids, in pieces
	ChunkModules                          // "NAME SECTION ADDRESS" a line, of loaded modules, in pieces
	ChunkStats                            // per_cpu/cpuN/stats, after the end
	ChunkPages                            // whole pages of one CPU, oldest first
	ChunkHist                             // "SYSTEM/EVENT", a NUL, events/SYSTEM/EVENT/hist, in pieces, after the end
	ChunkRound                            // of a live capture: all that any CPU had recorded when the round began has been sent; lines of saved_cmdlines that are new
	lastChunk        = ChunkRound
)

// MaxChunk bounds one chunk's payload in bytes.
const MaxChunk = 1 << 20

// MaxPages bounds the pages of a capture that asks for no bound, in bytes.
const MaxPages = 256 << 20

const chunkHead = 8

// chunkMagic begins the stream; the byte after it is chunksPlain or chunksDeflated.
const (
	chunkMagic     = "labrec\x01"
	chunksPlain    = 'p'
	chunksDeflated = 'z'
)

// Chunk is one piece of a capture.
type Chunk struct {
	Kind    ChunkKind
	CPU     int
	Payload []byte
}

// ChunkWriter writes chunks. It is safe for concurrent use.
type ChunkWriter struct {
	mu   sync.Mutex
	w    io.Writer     // buf or z
	z    *flate.Writer // in front of buf, on a slow line
	buf  *bufio.Writer
	head [chunkHead]byte
	err  error
}

// NewChunkWriter begins a stream on w, which gets writes of size bytes or more.
// deflate is for lines that are slower than the guest can compress.
func NewChunkWriter(w io.Writer, size int, deflate bool) *ChunkWriter {
	c := &ChunkWriter{buf: bufio.NewWriterSize(w, size)}
	c.w = c.buf
	mode := byte(chunksPlain)
	if deflate {
		mode = chunksDeflated
	}
	_, c.err = c.buf.Write(append([]byte(chunkMagic), mode))
	if deflate {
		// The only error is a level that there is not.
		c.z, _ = flate.NewWriter(c.buf, flate.BestSpeed)
		c.w = c.z
	}
	return c
}

// Write writes one chunk. After an error every later Write fails the same way.
func (c *ChunkWriter) Write(kind ChunkKind, cpu int, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(payload) > MaxChunk || cpu < 0 || cpu > 1<<16-1 {
		return fmt.Errorf("write chunk %d of CPU %d: %w: %d bytes", kind, cpu, ErrTooLarge, len(payload))
	}
	c.head = [chunkHead]byte{byte(kind)}
	binary.LittleEndian.PutUint16(c.head[2:], uint16(cpu))
	binary.LittleEndian.PutUint32(c.head[4:], uint32(len(payload)))
	if _, c.err = c.w.Write(c.head[:]); c.err == nil {
		_, c.err = c.w.Write(payload)
	}
	return c.err
}

// Flush hands on what is held back.
func (c *ChunkWriter) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.z != nil {
		c.err = c.z.Flush()
	}
	if c.err == nil {
		c.err = c.buf.Flush()
	}
	return c.err
}

// Close ends the stream, not the Writer below.
func (c *ChunkWriter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.z != nil {
		c.err = c.z.Close()
	}
	if c.err == nil {
		c.err = c.buf.Flush()
	}
	err := c.err
	c.err = cmp.Or(c.err, io.ErrClosedPipe)
	return err
}

// ErrNoCapture says that a stream is not a capture.
var ErrNoCapture = errors.New("not a capture's stream")

// ChunkReader reads chunks. Its memory is bounded by MaxChunk.
type ChunkReader struct {
	r      io.Reader
	opened bool
	off    int64 // of the next chunk, behind the head and before deflation
	buf    []byte
}

// NewChunkReader returns a ChunkReader on r.
func NewChunkReader(r io.Reader) *ChunkReader { return &ChunkReader{r: r} }

// Next returns the next chunk, whose Payload is valid until the next call. The
// end is io.EOF between two chunks and io.ErrUnexpectedEOF in one.
func (c *ChunkReader) Next() (Chunk, error) {
	if !c.opened {
		if err := c.open(); err != nil {
			return Chunk{}, err
		}
	}
	var head [chunkHead]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return Chunk{}, c.at(err)
	}
	k, n := ChunkKind(head[0]), binary.LittleEndian.Uint32(head[4:])
	if k < ChunkArmed || k > lastChunk || head[1] != 0 || n > MaxChunk {
		return Chunk{}, c.at(fmt.Errorf("no chunk begins with % x", head))
	}
	if int(n) > cap(c.buf) {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Chunk{}, c.at(err)
	}
	c.off += chunkHead + int64(n)
	return Chunk{Kind: k, CPU: int(binary.LittleEndian.Uint16(head[2:])), Payload: c.buf}, nil
}

func (c *ChunkReader) open() error {
	var head [len(chunkMagic) + 1]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return c.at(err)
	}
	mode := head[len(chunkMagic)]
	if !bytes.HasPrefix(head[:], []byte(chunkMagic)) || mode != chunksPlain && mode != chunksDeflated {
		return fmt.Errorf("%w: it begins with %q", ErrNoCapture, head)
	}
	if mode == chunksDeflated {
		c.r = flate.NewReader(c.r)
	}
	c.opened = true
	return nil
}

// at says where an error is; the end of the stream stays as it is.
func (c *ChunkReader) at(err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("read capture at byte %d: %w", c.off, err)
}
