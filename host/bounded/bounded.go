// Package bounded keeps no more of what programs write, and of what files hold, than
// was agreed: the beginning of it, the end of it, or all of it or an error.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
)

// Head keeps the first Max bytes that are written to it. Writes never fail. It is
// safe for concurrent use.
type Head struct {
	Max int
	// Full, if set, is called once, by the first Write that brings more.
	Full func()

	mu   sync.Mutex
	buf  []byte
	over bool
}

func (h *Head) Write(p []byte) (int, error) {
	h.mu.Lock()
	room := max(0, h.Max-len(h.buf))
	h.buf = append(h.buf, p[:min(len(p), room)]...)
	first := len(p) > room && !h.over
	h.over = h.over || first
	h.mu.Unlock()
	if first && h.Full != nil {
		h.Full()
	}
	return len(p), nil
}

// Over says that more than Max bytes were written.
func (h *Head) Over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over
}

// Bytes is what was kept. It is valid until the next Write.
func (h *Head) Bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf
}

func (h *Head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.buf)
}

// Tail keeps the last Max bytes that are written to it. Writes never fail. It is
// safe for concurrent use.
type Tail struct {
	Max int

	mu  sync.Mutex
	buf []byte
}

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-t.Max):]...)
	if len(t.buf) > 2*t.Max { // seldom, so that not every write moves all
		t.buf = append(t.buf[:0], t.last()...)
	}
	return len(p), nil
}

func (t *Tail) last() []byte { return t.buf[max(0, len(t.buf)-t.Max):] }

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last())
}

// Writer hands the first max bytes on to w and drops the rest.
func Writer(w io.Writer, max int) io.Writer { return &writer{w, max} }

type writer struct {
	w    io.Writer
	left int
}

func (w *writer) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n == 0 {
		return len(p), nil
	}
	if _, err := w.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TooLargeError is something larger than its bound.
type TooLargeError struct {
	Max int64 // bytes
}

func (e *TooLargeError) Error() string {
	switch {
	case e.Max >= 1<<20 && e.Max%(1<<20) == 0:
		return fmt.Sprintf("more than %d MB", e.Max>>20)
	case e.Max >= 1<<10 && e.Max%(1<<10) == 0:
		return fmt.Sprintf("more than %d KB", e.Max>>10)
	}
	return fmt.Sprintf("more than %d bytes", e.Max)
}

// Outcome is BadInput.
func (e *TooLargeError) Outcome() outcome.Kind { return outcome.BadInput }

// ReadAll reads to the end of r. More than max bytes are a *TooLargeError, and at
// most one byte beyond them is read.
func ReadAll(r io.Reader, max int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, &TooLargeError{max}
	}
	return b, nil
}

// ReadFile reads a regular file, which a pipe, a device or a directory is not. A file
// of more than max bytes is an error. Its errors name the file.
func ReadFile(name string, max int64) ([]byte, error) {
	// A pipe without a writer would not open otherwise, and never end.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	b, err := ReadAll(f, max)
	var large *TooLargeError
	if errors.As(err, &large) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return b, err
}
