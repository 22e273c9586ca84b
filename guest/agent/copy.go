package agent

import (
	"bufio"
	"io"

	"labctl/guest/wire"
)

// frameChunk makes a whole frame 32 KiB, which is the most that virtio-serial
// takes in one write.
const frameChunk = wire.MaxPayload - wire.Overhead

// newWholeWriter gathers what is written into chunks: tracefs and procfs hand
// out a page a read, and small frames are slow.
func newWholeWriter(w io.Writer, chunk int) *bufio.Writer { return bufio.NewWriterSize(w, chunk) }

// copyWhole copies src to w in chunks, however small the reads are.
func copyWhole(w io.Writer, src io.Reader, chunk int) (int64, error) {
	b := newWholeWriter(w, chunk)
	n, err := io.Copy(b, src)
	if ferr := b.Flush(); err == nil {
		err = ferr
	}
	return n, err
}
