package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func mustFrame(tb testing.TB, f Frame, seq uint16) []byte {
	tb.Helper()
	b, err := AppendFrame(nil, f, seq)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// readAll returns every frame, as text, and all stray bytes of one stream.
func readAll(tb testing.TB, r io.Reader) (frames []string, stray []byte, lost uint64) {
	tb.Helper()
	rd := NewReader(r, func(b []byte) { stray = append(stray, b...) })
	for {
		f, err := rd.Read()
		if err == io.EOF {
			return frames, stray, rd.Lost()
		}
		if err != nil {
			tb.Fatalf("Read() = %v", err)
		}
		frames = append(frames, frameText(f))
	}
}

func frameText(f Frame) string {
	return fmt.Sprintf("%d/%d/%d %d:%.40q", f.Kind, f.Stream, f.Chan, len(f.Payload), f.Payload)
}

func TestAppendFrameLayout(t *testing.T) {
	got := mustFrame(t, Frame{Kind: KindData, Stream: Stderr, Chan: 0x01020304, Payload: []byte("hi")}, 0x0a0b)
	want := []byte{0x1e, 'l', 'c', 0x1f, 4, 2, 0x0b, 0x0a, 4, 3, 2, 1, 2, 0, 0, 0, 'h', 'i', 0xb7, 0x92, 0x36, 0x07}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("AppendFrame (-want +got):\n%s", diff)
	}
	if _, err := AppendFrame(nil, Frame{Payload: make([]byte, MaxPayload+1)}, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("AppendFrame(too large) = %v, want ErrTooLarge", err)
	}
}

func TestReader(t *testing.T) {
	hello := Frame{Kind: KindHello, Payload: []byte(`{"version":1}`)}
	data := Frame{Kind: KindData, Stream: Stdout, Chan: 7, Payload: []byte("output")}
	full := Frame{Kind: KindData, Stream: Extra, Chan: 1 << 31, Payload: bytes.Repeat([]byte{0x1e}, MaxPayload)}
	end := Frame{Kind: KindData, Chan: 7}
	H, D, F, E := mustFrame(t, hello, 0), mustFrame(t, data, 1), mustFrame(t, full, 2), mustFrame(t, end, 3)

	damage := func(b []byte, i int, v byte) []byte {
		b = bytes.Clone(b)
		b[i] = v
		return b
	}
	// A frame whose checksum is right, but not what it is of.
	odd := func(k Kind, s Stream) []byte { return mustFrame(t, Frame{Kind: k, Stream: s, Payload: []byte("x")}, 1) }
	cat := func(p ...[]byte) []byte { return bytes.Join(p, nil) }
	text := []byte("[    0.1] Linux\r\n")

	for _, tt := range []struct {
		name   string
		in     []byte
		frames []Frame
		stray  []byte
		lost   uint64
	}{
		{"nothing", nil, nil, nil, 0},
		{"frames", cat(H, D, F, E), []Frame{hello, data, full, end}, nil, 0},
		{"console text between", cat(text, H, text, D, text), []Frame{hello, data}, cat(text, text, text), 0},
		{"magic alone", cat(magic, H), []Frame{hello}, magic, 0},
		{"half a magic at each end", cat(magic[:3], H, magic[:2]), []Frame{hello}, cat(magic[:3], magic[:2]), 0},
		{"bad kind", cat(damage(D, 4, 99), E), []Frame{end}, damage(D, 4, 99), 0},
		{"bad stream", cat(damage(D, 5, 4), E), []Frame{end}, damage(D, 5, 4), 0},
		{"a kind before the first", cat(odd(0, Stdout), E), []Frame{end}, odd(0, Stdout), 0},
		{"a kind after the last", cat(odd(KindControl+1, Stdout), E), []Frame{end}, odd(KindControl+1, Stdout), 0},
		{"a stream after the last", cat(odd(KindData, Extra+1), E), []Frame{end}, odd(KindData, Extra+1), 0},
		{"more than the buffer, out of step with it", cat(text, H, F, F, F, F, F, E), []Frame{hello, full, full, full, full, full, end}, text, 4*65535 + 1},
		{"oversized length", cat(damage(D, 15, 0x80), E), []Frame{end}, damage(D, 15, 0x80), 0},
		{"length over the next frames", cat(H, damage(D, 13, 0x10), F, E), []Frame{hello, full, end}, damage(D, 13, 0x10), 1},
		{"bad checksum", cat(H, damage(D, 20, 'X'), F), []Frame{hello, full}, damage(D, 20, 'X'), 1},
		{"text inside a frame", cat(H, D[:18], text, D[18:], F), []Frame{hello, full}, cat(D[:18], text, D[18:]), 1},
		{"frame inside a cut frame", cat(F[:100], D), []Frame{data}, F[:100], 0},
		{"cut at the end", cat(H, D[:len(D)-1]), []Frame{hello}, D[:len(D)-1], 0},
		{"payload is a frame", mustFrame(t, Frame{Kind: KindData, Payload: D}, 0), []Frame{{Kind: KindData, Payload: D}}, nil, 0},
		{"new writer", cat(D, F, H, D), []Frame{data, full, hello, data}, nil, 0},
		{"sequence wraps", cat(mustFrame(t, data, 65535), H), []Frame{data, hello}, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, f := range tt.frames {
				want = append(want, frameText(f))
			}
			for name, r := range map[string]io.Reader{
				"whole":    bytes.NewReader(tt.in),
				"bytewise": iotest.OneByteReader(bytes.NewReader(tt.in)),
				"with EOF": iotest.DataErrReader(bytes.NewReader(tt.in)),
			} {
				frames, stray, lost := readAll(t, r)
				if diff := cmp.Diff(want, frames); diff != "" {
					t.Errorf("%s: frames (-want +got):\n%s", name, diff)
				}
				if !bytes.Equal(stray, tt.stray) {
					t.Errorf("%s: stray = %q, want %q", name, stray, tt.stray)
				}
				if lost != tt.lost {
					t.Errorf("%s: Lost() = %d, want %d", name, lost, tt.lost)
				}
			}
		})
	}
}

// Console text must be shown when it comes, not when the next frame does.
func TestReaderStrayAtOnce(t *testing.T) {
	pr, pw := io.Pipe()
	defer pw.Close()
	got := make(chan string, 1)
	go NewReader(pr, func(b []byte) { got <- string(b) }).Read()
	io.WriteString(pw, "login: ")
	if s := <-got; s != "login: " {
		t.Errorf("stray = %q, want %q", s, "login: ")
	}
}

func TestReaderLinkError(t *testing.T) {
	broken := errors.New("link broke")
	r := NewReader(io.MultiReader(bytes.NewReader(mustFrame(t, Frame{Kind: KindHello}, 0)), iotest.ErrReader(broken)), nil)
	if _, err := r.Read(); err != nil {
		t.Fatalf("Read() = %v, want the frame", err)
	}
	if _, err := r.Read(); !errors.Is(err, broken) {
		t.Errorf("Read() = %v, want %v", err, broken)
	}
}

type countWriter struct {
	bytes.Buffer
	calls int
	fail  error
}

func (w *countWriter) Write(p []byte) (int, error) {
	w.calls++
	if w.fail != nil {
		return 0, w.fail
	}
	return w.Buffer.Write(p)
}

func TestWriterConcurrent(t *testing.T) {
	const writers, each = 8, 50
	var out countWriter
	w := NewWriter(&out)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if err := w.Write(Frame{Kind: KindData, Chan: uint32(i), Payload: bytes.Repeat([]byte{byte(j)}, j)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if out.calls != writers*each {
		t.Errorf("link got %d writes, want %d: one a frame", out.calls, writers*each)
	}
	frames, stray, lost := readAll(t, &out.Buffer)
	if len(frames) != writers*each || len(stray) != 0 || lost != 0 {
		t.Errorf("read %d frames, %d stray bytes, %d lost; want %d, 0, 0", len(frames), len(stray), lost, writers*each)
	}
}

func TestWriterFailsForGood(t *testing.T) {
	out := &countWriter{fail: io.ErrClosedPipe}
	w := NewWriter(out)
	for range 2 {
		if err := w.Write(Frame{Kind: KindHello}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write() = %v, want %v", err, io.ErrClosedPipe)
		}
	}
	if out.calls != 1 {
		t.Errorf("link got %d writes after it broke, want 1", out.calls)
	}
}

func TestUnmarshal(t *testing.T) {
	for _, tt := range []struct {
		in, err string // err is a part of the message, empty for none
	}{
		{`{"op":"stat"}`, ""},
		{` {"op":"exec","params":{"argv":["a"]}} `, ""},
		{`{"op":"stat","extra":1}`, "unknown field"},
		{`{"op":"stat"}{}`, "after the document"},
		{`{"op":"stat"} x`, "after the document"},
		{`{"op":1}`, "cannot unmarshal"},
		{``, "EOF"},
		{strings.Repeat("[", 20000), "decode"},
		{`{"op":"` + strings.Repeat("x", MaxPayload-9) + `"}`, ""},
		{`{"op":"` + strings.Repeat("x", MaxPayload-8) + `"}`, ErrTooLarge.Error()},
	} {
		_, err := Decode[Request]([]byte(tt.in))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Decode(%.40q) = %v, want %q", tt.in, err, tt.err)
		}
	}
}

func TestMarshalTooLarge(t *testing.T) {
	if p, err := Marshal(strings.Repeat("e", MaxPayload-2)); err != nil || len(p) != MaxPayload {
		t.Errorf("Marshal of what just fits = %d bytes, %v", len(p), err)
	}
	if _, err := Marshal(strings.Repeat("e", MaxPayload-1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Marshal of a byte more = %v, want ErrTooLarge", err)
	}
	if err := NewWriter(io.Discard).Send(KindResult, 1, func() {}); err == nil {
		t.Error("Send of a function: no error")
	}
}

func TestNewRequest(t *testing.T) {
	if r, err := NewRequest(OpExec, nil); err != nil || r.Op != OpExec || r.Params != nil {
		t.Errorf("NewRequest without parameters = %+v, %v", r, err)
	}
	if r, err := NewRequest(OpExec, ExecParams{Argv: []string{"a"}}); err != nil || !strings.Contains(string(r.Params), `"argv":["a"]`) {
		t.Errorf("NewRequest = %s, %v", r.Params, err)
	}
}

func TestLost(t *testing.T) {
	if got := (CaptureCPU{Overrun: 1, Commit: 2, Dropped: 4}).Lost(); got != 7 {
		t.Errorf("Lost() = %d, want 7", got)
	}
}

func TestCreditFrame(t *testing.T) {
	var out bytes.Buffer
	if err := NewWriter(&out).SendCredit(9, Stderr, 0x01020304); err != nil {
		t.Fatal(err)
	}
	f, err := NewReader(&out, nil).Read()
	if err != nil || f.Kind != KindCredit || f.Chan != 9 || f.Stream != Stderr {
		t.Fatalf("Read() = %v, %v", f, err)
	}
	if n, err := ParseCredit(f.Payload); n != 0x01020304 || err != nil {
		t.Errorf("ParseCredit() = %#x, %v; want 0x1020304", n, err)
	}
	if _, err := ParseCredit(f.Payload[:3]); err == nil {
		t.Error("ParseCredit(3 bytes) gave no error")
	}
}

// FuzzReader reads damage with good frames in it. The bytes of data make the
// stream: each step is a length and that many bytes of noise, then a good frame
// or, for odd lengths, one with a flipped byte. Every good frame must be found,
// in order, and every byte must come back once.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x04text\x00\x03odd\x02ok"), uint64(1))
	f.Add([]byte("\x04\x1elc\x1f\x10\x1elc\x1f\x04\x01\x00\x00\x01\x00\x00\x00\x00\x7f\x00\x00"), uint64(2))
	f.Add([]byte("\x03\x1elc\x02\x1el\x01\x1e"), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var in []byte
		var want []string
		for i := 0; len(data) > 0 && i < 64; i++ {
			n := min(int(data[0]), len(data)-1)
			noise := data[1 : 1+n]
			odd := data[0]&1 == 1
			data = data[1+n:]
			in = append(in, noise...)
			fr := Frame{Kind: KindHello + Kind(rnd.IntN(6)), Stream: Stream(rnd.IntN(4)), Chan: rnd.Uint32(), Payload: make([]byte, rnd.IntN(2000))}
			for j := range fr.Payload {
				fr.Payload[j] = byte(rnd.Uint32())
			}
			copy(fr.Payload, noise) // payloads may hold magics too
			b := mustFrame(t, fr, uint16(i))
			if odd {
				b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
			} else {
				want = append(want, frameText(fr))
			}
			in = append(in, b...)
		}
		for _, r := range []io.Reader{bytes.NewReader(in), iotest.HalfReader(bytes.NewReader(in))} {
			got, stray, _ := readAll(t, r)
			at := 0
			for _, g := range got {
				if at < len(want) && g == want[at] {
					at++
				}
			}
			if at != len(want) {
				t.Errorf("found %d of %d good frames; first missing %s", at, len(want), want[at])
			}
			if len(stray) > len(in) || len(got) == 0 && len(stray) != len(in) {
				t.Errorf("%d stray bytes of %d with %d frames", len(stray), len(in), len(got))
			}
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"op":"exec","params":{"argv":["/bin/true"],"tty":true}}`))
	f.Add([]byte(`{"err":"x","value":{"pid":1}}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, v := range []any{&Hello{}, &Request{}, &Result{}, &Control{}, &ExecParams{}, &CaptureParams{}} {
			if Unmarshal(p, v) == nil {
				if _, err := Marshal(v); err != nil && !errors.Is(err, ErrTooLarge) {
					t.Errorf("Marshal(Unmarshal(%q)) = %v", p, err)
				}
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{0, 2 << 10, MaxPayload} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			one, _ := AppendFrame(nil, Frame{Kind: KindData, Payload: make([]byte, size)}, 0)
			stream := bytes.Repeat(one, 64)
			b.SetBytes(int64(len(one)))
			src := bytes.NewReader(stream)
			r := NewReader(src, nil)
			for b.Loop() {
				if _, err := r.Read(); err == io.EOF {
					src.Reset(stream)
					r = NewReader(src, nil)
				}
			}
		})
	}
}

func BenchmarkWriter(b *testing.B) {
	f := Frame{Kind: KindData, Payload: make([]byte, MaxPayload)}
	b.SetBytes(MaxPayload)
	w := NewWriter(io.Discard)
	for b.Loop() {
		if err := w.Write(f); err != nil {
			b.Fatal(err)
		}
	}
}
