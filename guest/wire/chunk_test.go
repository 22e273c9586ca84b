package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func chunkText(c Chunk) string {
	return fmt.Sprintf("%d/%d %.20q %d", c.Kind, c.CPU, c.Payload, len(c.Payload))
}

func readChunks(r io.Reader) (got []string, err error) {
	for cr := NewChunkReader(r); ; {
		c, err := cr.Next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, chunkText(c))
	}
}

func TestChunks(t *testing.T) {
	chunks := []Chunk{
		{ChunkArmed, 0, []byte("{}")},
		{ChunkHeaderPage, 0, []byte("field: u64 timestamp;")},
		{ChunkPages, 65535, bytes.Repeat([]byte{7}, MaxChunk)},
		{ChunkStats, 3, nil},
	}
	var want []string
	for _, c := range chunks {
		want = append(want, chunkText(c))
	}
	for _, deflate := range []bool{false, true} {
		t.Run(fmt.Sprintf("deflate %v", deflate), func(t *testing.T) {
			var out bytes.Buffer
			w := NewChunkWriter(&out, 4096, deflate)
			for i, c := range chunks {
				if err := w.Write(c.Kind, c.CPU, c.Payload); err != nil {
					t.Fatal(err)
				}
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				// What is flushed can be read, though the stream goes on.
				r := NewChunkReader(bytes.NewReader(out.Bytes()))
				for range i + 1 {
					if _, err := r.Next(); err != nil {
						t.Fatalf("after %d chunks: %v", i+1, err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := w.Write(ChunkStats, 0, nil); err == nil {
				t.Error("Write after Close: no error")
			}
			if deflate && out.Len() > 100_000 {
				t.Errorf("a megabyte of one byte deflates to %d", out.Len())
			}
			got, err := readChunks(iotest.HalfReader(&out))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("chunks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChunkWriterErrors(t *testing.T) {
	w := NewChunkWriter(io.Discard, 64, false)
	if err := w.Write(ChunkPages, 0, make([]byte, MaxChunk+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Write(too large) = %v, want ErrTooLarge", err)
	}
	if err := w.Write(ChunkPages, 1<<16, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Write(CPU 65536) = %v, want ErrTooLarge", err)
	}
	w = NewChunkWriter(&countWriter{fail: io.ErrClosedPipe}, 64, false)
	for range 2 {
		w.Write(ChunkStats, 0, nil)
		if err := w.Flush(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Flush on a closed link = %v", err)
		}
	}
}

func TestChunkReaderErrors(t *testing.T) {
	head := "labrec\x01p"
	for _, tt := range []struct{ name, in, want string }{
		{"no capture", "hello, world", "not a capture"},
		{"another version", "labrec\x02p", "not a capture"},
		{"another mode", "labrec\x01q", "not a capture"},
		{"cut in the head", "labrec", "unexpected EOF"},
		{"cut in a chunk's head", head + "\x01\x00", "at byte 0: unexpected EOF"},
		{"cut in a payload", head + "\x0c\x00\x00\x00\x02\x00\x00\x00a", "at byte 0: unexpected EOF"},
		{"no payload at all", head + "\x0c\x00\x00\x00\x02\x00\x00\x00", "at byte 0: unexpected EOF"},
		{"unknown kind", head + "\x63\x00\x00\x00\x00\x00\x00\x00", "no chunk begins with 63"},
		{"second chunk", head + "\x04\x00\x00\x00\x01\x00\x00\x00a\x00", "at byte 9: unexpected EOF"},
		{"2 GB", head + "\x04\x00\x00\x00\x00\x00\x00\x80", "no chunk begins"},
		{"no deflate", "labrec\x01z\xff\xff\xff", "corrupt input"},
	} {
		if _, err := readChunks(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if got, err := readChunks(strings.NewReader("")); err != nil || len(got) != 0 {
		t.Errorf("empty stream = %q, %v; want nothing", got, err)
	}
}

func FuzzChunkReader(f *testing.F) {
	for _, deflate := range []bool{false, true} {
		var out bytes.Buffer
		w := NewChunkWriter(&out, 64, deflate)
		w.Write(ChunkFormat, 0, []byte("sched/sched_switch\x00name: sched_switch\nID: 1\n"))
		w.Write(ChunkPages, 1, make([]byte, 4096))
		w.Close()
		f.Add(out.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewChunkReader(bytes.NewReader(in))
		for range 1000 {
			c, err := r.Next()
			if err != nil {
				return
			}
			if len(c.Payload) > MaxChunk || c.Kind == 0 || c.Kind > lastChunk {
				t.Fatalf("chunk %d of %d bytes", c.Kind, len(c.Payload))
			}
		}
	})
}
