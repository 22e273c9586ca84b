package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// Overhead is how many bytes a frame adds to its payload.
const Overhead = headerLen + sumLen

const (
	headerLen = 16
	sumLen    = 4
	maxFrame  = Overhead + MaxPayload
)

var (
	magic      = []byte{0x1e, 'l', 'c', 0x1f}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrTooLarge says that a payload does not fit one frame.
var ErrTooLarge = errors.New("payload is larger than a frame")

// AppendFrame appends f in its form on the link, with the sequence number seq.
func AppendFrame(b []byte, f Frame, seq uint16) ([]byte, error) {
	if len(f.Payload) > MaxPayload {
		return b, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(f.Payload), MaxPayload)
	}
	start := len(b)
	b = append(b, magic...)
	b = append(b, byte(f.Kind), byte(f.Stream))
	b = binary.LittleEndian.AppendUint16(b, seq)
	b = binary.LittleEndian.AppendUint32(b, f.Chan)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Payload)))
	b = append(b, f.Payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start+len(magic):], castagnoli)), nil
}

// Writer puts frames on a link. It is safe for concurrent use.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	seq uint16
	buf []byte
	err error
}

// NewWriter returns a Writer on w, which gets one Write call a frame.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends f and does not keep its payload. After a failed write to the link
// the stream may hold half a frame, so every later Write fails the same way.
func (w *Writer) Write(f Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	b, err := AppendFrame(w.buf[:0], f, w.seq)
	if err != nil {
		return err
	}
	w.buf = b[:0]
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("write frame: %w", err)
		return w.err
	}
	w.seq++
	return nil
}

// Send writes v as the JSON payload of a frame.
func (w *Writer) Send(k Kind, ch uint32, v any) error {
	p, err := Marshal(v)
	if err != nil {
		return err
	}
	return w.Write(Frame{Kind: k, Chan: ch, Payload: p})
}

// SendCredit grants n more bytes on a stream.
func (w *Writer) SendCredit(ch uint32, s Stream, n uint32) error {
	return w.Write(Frame{Kind: KindCredit, Stream: s, Chan: ch, Payload: binary.LittleEndian.AppendUint32(nil, n)})
}

// Reader finds frames in a stream of bytes that may hold anything between them.
// It is not safe for concurrent use.
type Reader struct {
	r     io.Reader
	stray func([]byte)
	buf   []byte
	lo    int // buf[lo:hi] is not yet judged
	hi    int
	eof   error // what ended r; the buffer is judged to its end first

	started bool
	seq     uint16 // expected next
	lost    uint64

	wasted int    // bytes whose checksum was computed for nothing since the last frame
	sums   prefix // of buf, once that is more than a frame
}

// NewReader returns a Reader on r. Bytes that belong to no frame go to stray,
// in order and as soon as they are known not to begin one; stray must not keep
// its argument, and may be nil. Memory is bounded to two frames.
func NewReader(r io.Reader, stray func([]byte)) *Reader {
	if stray == nil {
		stray = func([]byte) {}
	}
	return &Reader{r: r, stray: stray, buf: make([]byte, 2*maxFrame)}
}

// Lost is how many frames the sequence numbers show to be missing since the
// first frame, modulo 65536 a gap. A frame numbered 0 is a new Writer at the
// other end and no gap. A Reader cannot mend a loss: whoever needs all frames
// must give up when Lost is not zero.
func (r *Reader) Lost() uint64 { return r.lost }

// Read returns the next frame. Its Payload is valid until the next Read. What
// looks like a frame but is not (bad header, bad checksum) costs only its first
// byte: the scan goes on from the next one, so a good frame behind or inside
// damage is found. At the end of the link Read gives the link's error, io.EOF
// included.
func (r *Reader) Read() (Frame, error) {
	for {
		f, n, more := r.parse()
		switch {
		case n > 0:
			r.lo += n
			return f, nil
		case more && r.eof == nil:
			r.fill()
		case more: // cut short by the end of the link
			if r.lo == r.hi {
				return Frame{}, r.eof
			}
			r.skip(1)
		}
	}
}

// parse judges the bytes at lo. It returns a frame and its length, or more when
// it cannot tell yet, or neither after it has skipped what is not a frame.
func (r *Reader) parse() (f Frame, n int, more bool) {
	b := r.buf[r.lo:r.hi]
	if i := bytes.Index(b, magic); i > 0 {
		r.skip(i)
		b = b[i:]
	} else if i < 0 {
		r.skip(len(b) - magicPrefix(b))
		return Frame{}, 0, true
	}
	if len(b) < headerLen {
		return Frame{}, 0, true
	}
	f.Kind, f.Stream = Kind(b[4]), Stream(b[5])
	f.Chan = binary.LittleEndian.Uint32(b[8:])
	size := binary.LittleEndian.Uint32(b[12:])
	if f.Kind < KindHello || f.Kind > KindControl || f.Stream > Extra || size > MaxPayload {
		r.skip(1)
		return Frame{}, 0, false
	}
	end := headerLen + int(size)
	if len(b) < end+sumLen {
		return Frame{}, 0, true
	}
	if r.sum(r.lo+len(magic), r.lo+end) != binary.LittleEndian.Uint32(b[end:]) {
		r.wasted += end
		r.skip(1)
		return Frame{}, 0, false
	}
	r.wasted = 0
	seq := binary.LittleEndian.Uint16(b[6:])
	if r.started && seq != 0 {
		r.lost += uint64(seq - r.seq)
	}
	r.started, r.seq = true, seq+1
	f.Payload = b[headerLen:end:end]
	return f, end + sumLen, false
}

// sum is the checksum of buf[from:to]. Bytes that only look like headers, one after the
// other, would have it computed over a frame's length for each: then it is taken from
// checksums of all beginnings of the buffer, which cost the same for any number of them.
func (r *Reader) sum(from, to int) uint32 {
	if r.wasted < maxFrame {
		return crc32.Checksum(r.buf[from:to], castagnoli)
	}
	return r.sums.between(r.buf, from, to)
}

// magicPrefix is the length of the longest end of b that may begin a magic.
func magicPrefix(b []byte) int {
	for n := min(len(magic)-1, len(b)); n > 0; n-- {
		if bytes.HasPrefix(magic, b[len(b)-n:]) {
			return n
		}
	}
	return 0
}

func (r *Reader) skip(n int) {
	if n > 0 {
		r.stray(r.buf[r.lo : r.lo+n])
		r.lo += n
	}
}

// fill reads once. What is not judged yet is less than one frame, so that there
// is room for another.
func (r *Reader) fill() {
	if r.lo == r.hi {
		r.lo, r.hi, r.sums.n = 0, 0, 0
	} else if len(r.buf)-r.hi < maxFrame {
		r.hi = copy(r.buf, r.buf[r.lo:r.hi])
		r.lo = 0
		r.sums.n = 0
	}
	n, err := r.r.Read(r.buf[r.hi:])
	r.hi += n
	r.eof = err
}

// Marshal encodes v as the payload of one frame.
func Marshal(v any) ([]byte, error) {
	p, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(p) > MaxPayload {
		return nil, fmt.Errorf("encode %T: %w: %d bytes, at most %d", v, ErrTooLarge, len(p), MaxPayload)
	}
	return p, nil
}

// Unmarshal decodes one JSON document from the other side into v. An unknown
// field, a second document, or more than MaxPayload bytes is an error.
func Unmarshal(p []byte, v any) error {
	if len(p) > MaxPayload {
		return fmt.Errorf("decode %T: %w: %d bytes", v, ErrTooLarge, len(p))
	}
	if err := Strict(p, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

// Strict decodes one JSON document into v. A field that v does not have and bytes
// after the document are errors.
func Strict(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes after the document")
	}
	return nil
}

// Decode is Unmarshal into a new T: wire.Decode[wire.Hello](f.Payload).
func Decode[T any](p []byte) (T, error) {
	var v T
	err := Unmarshal(p, &v)
	return v, err
}

// ParseCredit decodes the payload of a KindCredit frame.
func ParseCredit(p []byte) (uint32, error) {
	if len(p) != 4 {
		return 0, fmt.Errorf("decode credit: %d bytes, want 4", len(p))
	}
	return binary.LittleEndian.Uint32(p), nil
}

// NewRequest makes a Request for op; params may be nil.
func NewRequest(op Op, params any) (Request, error) {
	if params == nil {
		return Request{Op: op}, nil
	}
	p, err := Marshal(params)
	return Request{Op: op, Params: p}, err
}
