package text

import (
	"io"
	"unicode/utf8"
)

// Writer cleans what is written through it as Clean does, keeping characters
// whole over the borders of writes. CRs before LF are dropped.
type Writer struct {
	w    io.Writer
	rest []byte // the start of a character, or a CR
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write cleans p. It reports all of p as written unless w fails.
func (t *Writer) Write(p []byte) (int, error) {
	b := append(t.rest, p...)
	t.rest = nil
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if b[0] == '\r' {
			if len(b) == 1 {
				break
			}
			if b[1] == '\n' || b[1] == '\r' {
				b = b[1:]
				continue
			}
		}
		if !utf8.FullRune(b) {
			break
		}
		r, n := utf8.DecodeRune(b)
		if unsafe(r, n) {
			r = utf8.RuneError
		}
		out = utf8.AppendRune(out, r)
		b = b[n:]
	}
	t.rest = append(t.rest, b...)
	if len(out) == 0 {
		return len(p), nil
	}
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what is left of an unfinished character.
func (t *Writer) Flush() error {
	rest := t.rest
	t.rest = nil
	if len(rest) == 0 {
		return nil
	}
	_, err := io.WriteString(t.w, string(utf8.RuneError))
	return err
}
