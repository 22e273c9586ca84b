package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/outcome"
)

// across bridges a connection to the agent of c. done gets what Run returns.
func across(t *testing.T, c *Client) (peer net.Conn, b *Bridge, done chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	b = c.NewBridge(theirs, wire.Hello{Version: wire.Version, Arch: "bridged"}, nil)
	done = make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() { ours.Close() })
	return ours, b, done
}

// bridged returns another client of the agent of c.
func bridged(t *testing.T, c *Client) (*Client, *Bridge, chan error) {
	t.Helper()
	conn, b, done := across(t, c)
	other := New(conn, nil) // what is cut short when a client leaves is stray
	if h, err := other.Hello(within(t, 20*time.Second)); err != nil || h.Arch != "bridged" {
		t.Fatalf("Hello() = %+v, %v", h, err)
	}
	return other, b, done
}

func ended(t *testing.T, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the bridge goes on")
		return nil
	}
}

// TestBridge has three clients of one agent work at the same time.
func TestBridge(t *testing.T) {
	c := connect(t)
	clients := []*Client{c}
	var bridges []*Bridge
	var ends []chan error
	for range 2 {
		other, b, done := bridged(t, c)
		clients, bridges, ends = append(clients, other), append(bridges, b), append(ends, done)
	}
	in := noise(3 << 20)
	var wg sync.WaitGroup
	for n, c := range clients {
		for i := range 4 {
			wg.Go(func() {
				var out bytes.Buffer
				code := n*16 + i
				res, err := c.Exec(within(t, 120*time.Second), sh(fmt.Sprintf("cat; exit %d", code)), IO{Stdin: bytes.NewReader(in), Stdout: &out})
				if err != nil || res.Code != code || !bytes.Equal(out.Bytes(), in) {
					t.Errorf("client %d: Exec = %+v, %v, and %d bytes; want status %d and its input", n, res, err, out.Len(), code)
				}
			})
		}
	}
	wg.Wait()
	for i, b := range bridges {
		if b.Programs() != 0 || b.Busy() {
			t.Errorf("bridge %d has %d programs, busy %t; want none", i, b.Programs(), b.Busy())
		}
		clients[1+i].Close()
		if err := ended(t, ends[i]); err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	if _, err := c.Stat(within(t, 20*time.Second)); err != nil {
		t.Errorf("Stat after the bridges = %v", err)
	}
}

// TestBridgeLeft has clients leave while their programs run: those are killed.
func TestBridgeLeft(t *testing.T) {
	c := connect(t)
	for _, line := range []string{
		"echo $$; exec sleep 1000",
		"echo $$; exec yes", // its client reads nothing more
		"echo $$; exec cat",
	} {
		other, b, done := bridged(t, c)
		r, w := io.Pipe()
		stdin, hold := io.Pipe()
		go other.Exec(context.Background(), sh(line), IO{Stdin: stdin, Stdout: w})
		var pid int
		if _, err := fmt.Fscanln(r, &pid); err != nil {
			t.Fatal(err)
		}
		if b.Programs() != 1 || !b.Busy() {
			t.Errorf("%s: %d programs, busy %t; want 1", line, b.Programs(), b.Busy())
		}
		time.Sleep(50 * time.Millisecond)
		other.conn.Close()
		if err := ended(t, done); err != nil {
			t.Errorf("%s: Run = %v", line, err)
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("%s: kill(%d, 0) = %v, want that it is gone", line, pid, err)
		}
		hold.Close()
		r.Close()
	}
	if _, err := c.Stat(within(t, 20*time.Second)); err != nil {
		t.Errorf("Stat after the clients have left = %v", err)
	}
}

// TestBridgeRefuses has clients break the protocol: they are dropped, and the link to
// the guest is not.
func TestBridgeRefuses(t *testing.T) {
	c := connect(t)
	exec := func(w *wire.Writer, ch uint32) {
		q, err := wire.NewRequest(wire.OpExec, wire.ExecParams{Argv: []string{"/bin/sleep", "1000"}, Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		w.Send(wire.KindRequest, ch, q)
	}
	for name, send := range map[string]func(conn net.Conn, w *wire.Writer){
		"noise":      func(conn net.Conn, _ *wire.Writer) { conn.Write(bytes.Repeat([]byte("x"), 100)) },
		"hello":      func(_ net.Conn, w *wire.Writer) { w.Send(wire.KindHello, 0, wire.Hello{}) },
		"result":     func(_ net.Conn, w *wire.Writer) { w.Send(wire.KindResult, 1, wire.Result{}) },
		"no request": func(_ net.Conn, w *wire.Writer) { w.Send(wire.KindRequest, 1, "x") },
		"two":        func(_ net.Conn, w *wire.Writer) { exec(w, 1); exec(w, 1) },
		"control":    func(_ net.Conn, w *wire.Writer) { exec(w, 1); w.Send(wire.KindControl, 1, "x") },
		"credit":     func(_ net.Conn, w *wire.Writer) { exec(w, 1); w.Write(wire.Frame{Kind: wire.KindCredit, Chan: 1}) },
		"bad params": func(_ net.Conn, w *wire.Writer) {
			w.Send(wire.KindRequest, 1, wire.Request{Op: wire.OpExec, Params: []byte(`{"x":1}`)})
		},
		"wrong way": func(_ net.Conn, w *wire.Writer) {
			exec(w, 1)
			w.Write(wire.Frame{Kind: wire.KindData, Stream: wire.Stdout, Chan: 1})
		},
		"a lost one": func(conn net.Conn, w *wire.Writer) {
			b, _ := wire.AppendFrame(nil, wire.Frame{Kind: wire.KindData, Chan: 9}, 0)
			conn.Write(b)
			b, _ = wire.AppendFrame(nil, wire.Frame{Kind: wire.KindData, Chan: 9}, 7)
			conn.Write(b)
		},
		"no credit": func(_ net.Conn, w *wire.Writer) {
			exec(w, 1)
			for range 8 * wire.Window / wire.MaxPayload {
				w.Write(wire.Frame{Kind: wire.KindData, Chan: 1, Payload: make([]byte, wire.MaxPayload)})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, done := across(t, c)
			go io.Copy(io.Discard, conn)
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			send(conn, wire.NewWriter(conn))
			if err := ended(t, done); err == nil || outcome.Of(err) != outcome.BadInput || strings.Contains(err.Error(), "\n") {
				t.Errorf("Run = %v, want that it may not, in a line", err)
			}
		})
	}
	// What is refused without harm.
	other, _, _ := bridged(t, c)
	if _, err := other.Resume(within(t, 20*time.Second), wire.ResumeParams{}); err == nil || !strings.Contains(err.Error(), "restored") {
		t.Errorf("Resume = %v, want that it is refused", err)
	}
	var out bytes.Buffer
	if res, err := other.Exec(within(t, 20*time.Second), sh("echo still"), IO{Stdout: &out}); err != nil || !res.Exited || out.String() != "still\n" {
		t.Errorf("Exec = %+v, %v, %q", res, err, out.String())
	}
	if err := c.Err(); err != nil {
		t.Errorf("the link has ended: %v", err)
	}
}

// TestBridgeEnd ends the guest's link while a client's program runs: the client has what
// came before, and is told.
func TestBridgeEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, served := serve(ctx, t, nil)
	if _, err := c.Hello(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	other, _, done := bridged(t, c)
	r, w := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		_, err := other.Exec(context.Background(), sh("echo last words; exec sleep 1000"), IO{Stdout: w})
		failed <- err
	}()
	buf := make([]byte, 11)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "last words\n" {
		t.Fatalf("read %q, %v", buf, err)
	}
	cancel()
	<-served
	select {
	case err := <-failed:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Exec = %v, want %v", err, ErrClosed)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Exec goes on without its guest")
	}
	if err := ended(t, done); err != nil {
		t.Errorf("Run = %v", err)
	}
	c.Close()
}

// FuzzBridge sends what a client may send, and what it may not.
func FuzzBridge(f *testing.F) {
	frame := func(fr wire.Frame, seq uint16) []byte {
		b, err := wire.AppendFrame(nil, fr, seq)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(frame(wire.Frame{Kind: wire.KindRequest, Chan: 1, Payload: []byte(`{"op":"stat"}`)}, 0))
	f.Add(bytes.Join([][]byte{
		frame(wire.Frame{Kind: wire.KindRequest, Chan: 1, Payload: []byte(`{"op":"exec","params":{"argv":["/bin/true"],"stdin":true}}`)}, 0),
		frame(wire.Frame{Kind: wire.KindData, Chan: 1, Payload: []byte("x")}, 1),
		frame(wire.Frame{Kind: wire.KindControl, Chan: 1, Payload: []byte(`{"signal":9}`)}, 2),
		frame(wire.Frame{Kind: wire.KindCredit, Stream: wire.Stdout, Chan: 1, Payload: []byte{1, 0, 0, 0}}, 3),
	}, nil))
	f.Add([]byte("noise"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		// A guest that takes frames, and holds each against the protocol.
		ours, theirs := net.Pipe()
		c := New(ours, nil)
		guest := make(chan error, 1)
		go func() {
			guest <- func() error {
				open := map[uint32]bool{}
				r := wire.NewReader(theirs, func(b []byte) { t.Errorf("stray bytes %q", b) })
				for {
					fr, err := r.Read()
					if err != nil {
						return nil
					}
					switch fr.Kind {
					case wire.KindRequest:
						if open[fr.Chan] {
							return errors.New("a request twice")
						}
						open[fr.Chan] = true
					case wire.KindControl:
						if _, err := wire.Decode[wire.Control](fr.Payload); err != nil {
							return err
						}
					case wire.KindCredit:
						if _, err := wire.ParseCredit(fr.Payload); err != nil {
							return err
						}
					case wire.KindData:
					default:
						return errors.New("a frame of kind " + strconv.Itoa(int(fr.Kind)))
					}
					if !open[fr.Chan] {
						return errors.New("a frame without a request")
					}
				}
			}()
		}()
		peer, theirPeer := net.Pipe()
		b := c.NewBridge(theirPeer, wire.Hello{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		go io.Copy(io.Discard, peer)
		peer.Write(sent)
		peer.Close()
		cancel()
		<-done
		c.Close()
		theirs.Close()
		if err := <-guest; err != nil {
			t.Error(err)
		}
	})
}
