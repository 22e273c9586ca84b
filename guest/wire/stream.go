package wire

import (
	"errors"
	"io"
	"sync"
)

// ErrOverrun says that the other side sent more than it was granted.
var ErrOverrun = errors.New("stream got more bytes than were granted")

// Sender is the sending end of one stream of one Chan: an io.WriteCloser that
// cuts what is written into Data frames and waits for credit. Grant and Abort
// may be called while a Write waits.
type Sender struct {
	w      *Writer
	ch     uint32
	stream Stream
	chunk  int
	credit *Credit
}

// NewSender returns a Sender with the first Window granted. chunk is the most
// bytes a frame; 0 means MaxPayload.
func NewSender(w *Writer, ch uint32, s Stream, chunk int) *Sender {
	if chunk <= 0 || chunk > MaxPayload {
		chunk = MaxPayload
	}
	return &Sender{w: w, ch: ch, stream: s, chunk: chunk, credit: NewCredit()}
}

// Write sends p. It fails with io.ErrClosedPipe after Abort.
func (s *Sender) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n := s.credit.Take(min(s.chunk, len(p)-sent))
		if n == 0 {
			return sent, io.ErrClosedPipe
		}
		if err := s.w.Write(Frame{Kind: KindData, Stream: s.stream, Chan: s.ch, Payload: p[sent : sent+n]}); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// Close sends the end of file, which needs no credit.
func (s *Sender) Close() error {
	return s.w.Write(Frame{Kind: KindData, Stream: s.stream, Chan: s.ch})
}

// Grant adds credit, from a Credit frame.
func (s *Sender) Grant(n uint32) { s.credit.Grant(n) }

// Abort makes a waiting Write and all later ones fail: the request is over.
func (s *Sender) Abort() { s.credit.Close() }

// Receiver is the receiving end of one stream of one Chan: Push takes Data
// frames from the loop that reads the link and never blocks; Read hands the
// bytes to the consumer and grants the sender as many again. At most Window
// bytes wait in it.
type Receiver struct {
	grant func(n uint32) error

	mu   sync.Mutex
	more sync.Cond
	buf  []byte // bytes not yet read are buf[off:]
	off  int
	owed int   // read, but not granted yet
	end  error // what Read gives when the bytes are used up
}

// NewReceiver returns a Receiver that calls grant, outside any lock and from
// the consumer's goroutine, whenever a good part of the window is free again.
func NewReceiver(grant func(n uint32) error) *Receiver {
	r := &Receiver{grant: grant}
	r.more.L = &r.mu
	return r
}

// Push adds the payload of a Data frame, which is copied; an empty one is the
// end of file. Bytes after the end are dropped.
func (r *Receiver) Push(p []byte) error {
	if len(p) == 0 {
		r.CloseWithError(io.EOF)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		return nil
	}
	if len(r.buf)-r.off+r.owed+len(p) > Window {
		return ErrOverrun
	}
	if r.off > 0 && len(r.buf)+len(p) > cap(r.buf) {
		r.buf = r.buf[:copy(r.buf, r.buf[r.off:])]
		r.off = 0
	}
	r.buf = append(r.buf, p...)
	r.more.Broadcast()
	return nil
}

// CloseWithError ends the stream: Read gives what is left, then err. Only the
// first call counts.
func (r *Receiver) CloseWithError(err error) {
	r.mu.Lock()
	if r.end == nil {
		r.end = err
	}
	r.mu.Unlock()
	r.more.Broadcast()
}

// Read waits for bytes. It is an io.Reader for one consumer.
func (r *Receiver) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.mu.Lock()
	for r.off == len(r.buf) && r.end == nil {
		r.more.Wait()
	}
	if r.off == len(r.buf) {
		defer r.mu.Unlock()
		return 0, r.end
	}
	n := copy(p, r.buf[r.off:])
	r.off += n
	if r.off == len(r.buf) {
		r.buf, r.off = r.buf[:0], 0
	}
	r.owed += n
	grant := 0
	if r.end == nil && r.owed >= Window/4 {
		grant, r.owed = r.owed, 0
	}
	r.mu.Unlock()
	if grant > 0 {
		if err := r.grant(uint32(grant)); err != nil {
			return n, err
		}
	}
	return n, nil
}
