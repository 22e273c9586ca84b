package tracedat

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"labctl/host/text"
)

// cursor reads numbers and texts of one section. The first thing that is wrong
// stays in err, and all that is read after it is zero.
type cursor struct {
	r       io.Reader
	off     int64 // of the next byte
	end     int64 // of the section, or of the file
	section string
	order   binary.ByteOrder
	budget  *int64 // bytes of text that may still be kept
	err     error
}

// at returns a cursor on [off, end) of r.
func at(r io.ReaderAt, off, end int64, section string, order binary.ByteOrder, budget *int64) *cursor {
	return &cursor{
		r: bufio.NewReader(io.NewSectionReader(r, off, end-off)), off: off, end: end,
		section: section, order: order, budget: budget,
	}
}

// in is a cursor on a text that is in memory.
func in(b []byte, section string, order binary.ByteOrder, budget *int64) *cursor {
	return &cursor{r: bytes.NewReader(b), end: int64(len(b)), section: section, order: order, budget: budget}
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = &BadFile{c.section, c.off, fmt.Sprintf(format, args...)}
	}
}

func (c *cursor) left() int64 { return c.end - c.off }

// raw reads n bytes, which the caller has bounded.
func (c *cursor) raw(n int) []byte {
	if c.err == nil && int64(n) > c.left() {
		c.fail("%d bytes wanted, %d are left", n, c.left())
	}
	b := make([]byte, n)
	if c.err != nil {
		return b
	}
	if _, err := io.ReadFull(c.r, b); err != nil {
		c.err = fmt.Errorf("read %s at offset %d: %w", c.section, c.off, err)
		return make([]byte, n)
	}
	c.off += int64(n)
	return b
}

func (c *cursor) u16() uint16 { return c.order.Uint16(c.raw(2)) }
func (c *cursor) u32() uint32 { return c.order.Uint32(c.raw(4)) }
func (c *cursor) u64() uint64 { return c.order.Uint64(c.raw(8)) }

// text reads size bytes that are to be kept.
func (c *cursor) text(size uint64, limit int) []byte {
	switch {
	case c.err != nil:
		return nil
	case size > uint64(c.left()):
		c.fail("size %d is past the end: %d bytes are left", size, c.left())
	case size > uint64(limit):
		c.fail("size %d is more than %d", size, limit)
	case *c.budget < int64(size)+textCost:
		c.fail("the texts of this file are more than %d MB", maxTexts>>20)
	}
	if c.err != nil {
		return nil
	}
	*c.budget -= int64(size) + textCost
	if size == 0 {
		return nil
	}
	return c.raw(int(size))
}

// name reads a short string that ends with a NUL.
func (c *cursor) name() string {
	var b []byte
	for {
		switch ch := c.raw(1)[0]; {
		case c.err != nil:
			return ""
		case ch == 0:
			return string(b)
		case len(b) == maxName:
			c.fail("a name has no end within %d bytes: %q…", maxName, b[:16])
			return ""
		default:
			b = append(b, ch)
		}
	}
}

// expect reads a fixed word with its NUL.
func (c *cursor) expect(word string) {
	start := c.off
	if got := c.raw(len(word)); c.err == nil && string(got) != word {
		c.err = &BadFile{c.section, start, fmt.Sprintf("%q where %q should be", text.Line(string(got), 40), word)}
	}
}
