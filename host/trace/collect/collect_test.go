package collect

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/vm/agent"
)

// fakeGuest answers the one request that it gets by play, which has a ChunkWriter
// on Extra and is notified of Control.Stop, and closes the link when that says so.
func fakeGuest(t *testing.T, play func(w *wire.ChunkWriter, stop <-chan struct{}) (res *wire.Result)) *agent.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		out := wire.NewWriter(theirs)
		stop := make(chan struct{})
		requests := make(chan uint32, 1)
		var sender *wire.Sender
		go func() {
			r := wire.NewReader(theirs, nil)
			for {
				f, err := r.Read()
				if err != nil {
					return
				}
				switch f.Kind {
				case wire.KindRequest:
					sender = wire.NewSender(out, f.Chan, wire.Extra, 0)
					requests <- f.Chan
				case wire.KindControl:
					if c, err := wire.Decode[wire.Control](f.Payload); err == nil && c.Stop {
						close(stop)
					}
				}
			}
		}()
		if err := out.Send(wire.KindHello, 0, wire.Hello{Version: wire.Version}); err != nil {
			return
		}
		ch := <-requests
		w := wire.NewChunkWriter(sender, 64, false)
		res := play(w, stop)
		w.Close()
		if res == nil {
			return
		}
		sender.Close()
		out.Send(wire.KindResult, ch, res)
		io.Copy(io.Discard, theirs)
	}()
	c := agent.New(ours, nil)
	t.Cleanup(func() { c.Close() })
	if _, err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func begin(t *testing.T, w *wire.ChunkWriter) {
	w.Write(wire.ChunkHeaderPage, 0, []byte(headerPage))
	w.Write(wire.ChunkArmed, 0, armed(t, wire.CaptureArmed{PageSize: 4096, CPUs: 1, Tracer: "nop"}))
	w.Write(wire.ChunkPages, 0, make([]byte, 4096))
	w.Flush()
}

func TestStop(t *testing.T) {
	c := fakeGuest(t, func(w *wire.ChunkWriter, stop <-chan struct{}) *wire.Result {
		begin(t, w)
		<-stop
		w.Write(wire.ChunkPages, 0, make([]byte, 4096))
		return &wire.Result{Value: []byte(`{"bytes":8192,"cpus":[{"cpu":0,"bytes":8192,"dropped":7}]}`)}
	})
	r, err := Start(t.Context(), c, nil, wire.CaptureParams{Instance: "x"})
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res.Capture.CPUs[0].Size != 8192 || res.Lost() != 7 || res.Armed.CPUs != 1 {
		t.Errorf("result %+v", res)
	}
	if err := res.Close(); err != nil {
		t.Error(err)
	}
	if _, err := res.Capture.CPUs[0].Pages.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("pages can be read after Close")
	}
}

// A guest that dies leaves what it had sent.
func TestStopAfterLinkEnds(t *testing.T) {
	c := fakeGuest(t, func(w *wire.ChunkWriter, stop <-chan struct{}) *wire.Result {
		begin(t, w)
		return nil
	})
	r, err := Start(t.Context(), c, nil, wire.CaptureParams{Instance: "x"})
	if err != nil {
		t.Fatal(err)
	}
	<-r.done
	res, err := r.Stop(t.Context())
	if !errors.Is(err, agent.ErrClosed) {
		t.Errorf("Stop = %v; want %v", err, agent.ErrClosed)
	}
	if res == nil || len(res.Capture.CPUs) != 1 || res.Capture.CPUs[0].Size != 4096 || res.Stopped.Bytes != 4096 {
		t.Fatalf("result %+v; want the page that came", res)
	}
	res.Close()
}

func TestStartErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(w *wire.ChunkWriter, stop <-chan struct{}) *wire.Result
		want string
	}{
		{"refused", func(*wire.ChunkWriter, <-chan struct{}) *wire.Result { return &wire.Result{Err: "no tracefs"} }, "no tracefs"},
		{"ended before it began", func(*wire.ChunkWriter, <-chan struct{}) *wire.Result { return &wire.Result{} }, "ended before it began"},
		{"link ends", func(*wire.ChunkWriter, <-chan struct{}) *wire.Result { return nil }, "link to the guest ended"},
		{"nonsense", func(w *wire.ChunkWriter, stop <-chan struct{}) *wire.Result {
			w.Write(wire.ChunkPages, 0, []byte("x"))
			w.Flush()
			<-stop // the host gives up by itself
			return &wire.Result{}
		}, "no whole pages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Start(t.Context(), fakeGuest(t, tt.play), nil, wire.CaptureParams{Instance: "x"})
			if r != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v, %v; want %q", r, err, tt.want)
			}
		})
	}
}

// A guest that hangs holds up nobody beyond the context.
func TestStopDeadline(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := fakeGuest(t, func(w *wire.ChunkWriter, stop <-chan struct{}) *wire.Result {
		begin(t, w)
		<-release
		return nil
	})
	r, err := Start(t.Context(), c, nil, wire.CaptureParams{Instance: "x"})
	if err != nil {
		t.Fatal(err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if res, err := r.Stop(ctx); res != nil || !errors.Is(err, late) {
		t.Errorf("Stop = %v, %v; want %v", res, err, late)
	}
}
