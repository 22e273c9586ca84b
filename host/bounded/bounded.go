// Package bounded keeps no more of what programs write, and of what files hold, than
// was agreed: the beginning of it, the end of it, or all of it or an error.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Open opens a regular file for reading, which a directory, a pipe, a socket or a
// device is not: they may not open, never end, or act on being opened.
func Open(name string) (*os.File, error) {
	st, err := os.Stat(name)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		path.Op = "open"
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, notRegular(name)
	}
	// It may have been replaced by a pipe meanwhile.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = notRegular(name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func notRegular(name string) error { return outcome.Inputf("%s: not a regular file", name) }

// CheckDir returns nil for a directory, and otherwise what the name stands for instead:
// "no such directory", "a file, not a directory". The errors do not name it.
func CheckDir(name string) error {
	st, err := os.Stat(name)
	switch path := (*fs.PathError)(nil); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return outcome.Inputf("no such directory")
	case errors.As(err, &path):
		return outcome.Default(outcome.BadInput, path.Err)
	case err != nil:
		return outcome.Default(outcome.BadInput, err)
	case st.Mode().IsRegular():
		return outcome.Inputf("a file, not a directory")
	case !st.IsDir():
		return outcome.Inputf("not a directory")
	}
	return nil
}

// ReadFile reads a regular file. A file of more than max bytes is an error. Its errors
// name the file.
func ReadFile(name string, max int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > max {
		return nil, fmt.Errorf("%s: %w", name, &TooLargeError{max})
	}
	return readNamed(f, name, max)
}

// ReadFileFS is ReadFile for a file of a file system.
func ReadFileFS(fsys fs.FS, name string, max int64) ([]byte, error) {
	st, err := fs.Stat(fsys, name) // before it is opened, as in Open
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, notRegular(name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readNamed(f, name, max)
}

func readNamed(r io.Reader, name string, max int64) ([]byte, error) {
	b, err := ReadAll(r, max)
	var large *TooLargeError
	if errors.As(err, &large) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return b, err
}
