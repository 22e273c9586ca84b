package wire

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func TestPrefix(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 5000)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	var p prefix
	for range 500 {
		from := random.IntN(len(b) + 1)
		to := from + random.IntN(len(b)+1-from)
		if got, want := p.between(b, from, to), crc32.Checksum(b[from:to], castagnoli); got != want {
			t.Fatalf("checksum of [%d:%d] is %#x, want %#x", from, to, got, want)
		}
	}
}

// TestFalseHeaders reads 3 MB of headers of frames as large as can be, none of which is
// one, and the frames behind and between them.
func TestFalseHeaders(t *testing.T) {
	header, err := AppendFrame(nil, Frame{Kind: KindData, Payload: make([]byte, MaxPayload)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	header = header[:headerLen]
	good, err := AppendFrame(nil, Frame{Kind: KindData, Stream: Stdout, Chan: 7, Payload: []byte("found")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	noise := bytes.Repeat(header, (3<<20)/len(header))
	stray := 0
	r := NewReader(bytes.NewReader(bytes.Join([][]byte{noise, good, noise[:len(noise)/2], good}, nil)), func(b []byte) { stray += len(b) })
	for range 2 {
		f, err := r.Read()
		if err != nil || f.Chan != 7 || string(f.Payload) != "found" {
			t.Fatalf("Read: %+v, %v; want the frame", f, err)
		}
	}
	if _, err := r.Read(); err == nil {
		t.Error("a third frame")
	}
	if want := len(noise) + len(noise)/2; stray != want {
		t.Errorf("%d stray bytes, want %d", stray, want)
	}
}

func BenchmarkFalseHeaders(b *testing.B) {
	header, err := AppendFrame(nil, Frame{Kind: KindData, Payload: make([]byte, MaxPayload)}, 1)
	if err != nil {
		b.Fatal(err)
	}
	noise := bytes.Repeat(header[:headerLen], (3<<20)/headerLen)
	b.SetBytes(int64(len(noise)))
	for b.Loop() {
		r := NewReader(bytes.NewReader(noise), nil)
		if f, err := r.Read(); err == nil {
			b.Fatalf("a frame: %+v", f)
		}
	}
}
