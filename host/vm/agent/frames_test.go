package agent

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/bounded"
)

// guestOf is a link whose guest sends bytes once it was asked something, and hangs up.
type guestOf struct {
	from  io.Reader
	asked chan struct{}
	once  sync.Once
}

func (g *guestOf) Read(p []byte) (int, error) {
	<-g.asked
	return g.from.Read(p)
}

func (g *guestOf) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.asked) })
	return len(p), nil
}

func (g *guestOf) Close() error { return nil }

// FuzzFrames sends frames that fuzzing has made to a client with a program running: it
// ends, keeps no more than it was to, and says why.
func FuzzFrames(f *testing.F) {
	frame := func(k wire.Kind, s wire.Stream, ch byte, payload string) string {
		return string([]byte{byte(k), byte(s), ch, byte(len(payload))}) + payload
	}
	hello := frame(wire.KindHello, 0, 0, `{"version":1}`)
	f.Add([]byte(hello + frame(wire.KindData, wire.Stdout, 1, "text") + frame(wire.KindResult, 0, 1, `{"value":{"pid":1,"exited":true,"code":0}}`)))
	f.Add([]byte(hello + hello))
	f.Add([]byte(frame(wire.KindCredit, wire.Stdin, 1, "\xff\xff\xff\xff") + frame(wire.KindResult, 0, 1, `{"err":"x"}`)))
	f.Add([]byte(frame(wire.KindResult, 0, 1, "nonsense")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var link bytes.Buffer
		w := wire.NewWriter(&link)
		for len(in) >= 4 {
			n := min(int(in[3]), len(in)-4)
			if err := w.Write(wire.Frame{Kind: wire.Kind(in[0]), Stream: wire.Stream(in[1]), Chan: uint32(in[2]), Payload: in[4 : 4+n]}); err != nil {
				t.Fatal(err)
			}
			in = in[4+n:]
		}
		c := New(&guestOf{from: &link, asked: make(chan struct{})}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out := &bounded.Head{Max: 1 << 20}
		res, err := c.Exec(ctx, wire.ExecParams{Argv: []string{"x"}}, IO{Stdout: out, Stderr: out})
		if ctx.Err() != nil {
			t.Fatal("the call does not end")
		}
		if err == nil && !res.Exited && !res.Signaled {
			t.Errorf("a program that did not end: %+v", res)
		}
		<-c.Done()
		if c.Err() == nil {
			t.Error("the link ended without an error")
		}
	})
}
