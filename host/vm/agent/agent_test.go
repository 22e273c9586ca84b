package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	guest "labctl/guest/agent"
	"labctl/guest/wire"
)

// within returns a context with a timeout, so that a test cannot hang.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("still waiting after %s", d))
	t.Cleanup(cancel)
	return ctx
}

// connect serves the real agent on this machine and returns a Client for it.
// The agent collects every child of the process, so such tests run one by one.
func connect(t *testing.T) *Client {
	t.Helper()
	return connectWith(t, nil)
}

// connectWith is connect for a guest with a window.
func connectWith(t *testing.T, window []byte) *Client {
	t.Helper()
	c, served := serve(context.Background(), t, window)
	t.Cleanup(func() {
		c.Close()
		if !errors.Is(c.Err(), ErrClosed) {
			t.Errorf("after Close Err() = %v, want ErrClosed", c.Err())
		}
		select {
		case <-served:
		case <-time.After(20 * time.Second):
			t.Error("the agent goes on after the link was closed")
		}
	})
	h, err := c.Hello(within(t, 20*time.Second))
	if err != nil || h.Arch != "test" {
		t.Fatalf("Hello() = %+v, %v", h, err)
	}
	return c
}

func serve(ctx context.Context, t *testing.T, window []byte) (*Client, chan error) {
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() {
		g := guest.Guest{Tracefs: t.TempDir(), Proc: "/proc", Window: window}
		served <- guest.Serve(ctx, theirs, g, wire.Hello{Version: wire.Version, Arch: "test"})
		theirs.Close()
	}()
	return New(ours, func(b []byte) { t.Errorf("stray bytes %q", b) }), served
}

func sh(line string) wire.ExecParams { return wire.ExecParams{Argv: []string{"/bin/sh", "-c", line}} }

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestExec(t *testing.T) {
	c := connect(t)
	for _, tt := range []struct {
		name           string
		line           string
		stdin          io.Reader
		want           wire.ExecResult
		stdout, stderr string
	}{
		{name: "status", line: "exit 3", want: wire.ExecResult{Exited: true, Code: 3}},
		{name: "status 255", line: "exit 255", want: wire.ExecResult{Exited: true, Code: 255}},
		{name: "signal", line: "kill -TERM $$", want: wire.ExecResult{Signaled: true, Signal: 15}},
		{name: "stderr apart", line: "echo out; echo err >&2", want: wire.ExecResult{Exited: true}, stdout: "out\n", stderr: "err\n"},
		{name: "no input", line: "cat", want: wire.ExecResult{Exited: true}},
		{name: "empty input", line: "cat; echo end", stdin: strings.NewReader(""), want: wire.ExecResult{Exited: true}, stdout: "end\n"},
		{name: "input not read", line: "exit 1", stdin: bytes.NewReader(noise(4 << 20)), want: wire.ExecResult{Exited: true, Code: 1}},
		{name: "bytes of every value", line: "cat", stdin: strings.NewReader("\x00\r\n\x1elc\x1f\xff"), want: wire.ExecResult{Exited: true}, stdout: "\x00\r\n\x1elc\x1f\xff"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			got, err := c.Exec(within(t, 30*time.Second), sh(tt.line), IO{Stdin: tt.stdin, Stdout: &stdout, Stderr: &stderr})
			if err != nil {
				t.Fatal(err)
			}
			if got.PID <= 0 {
				t.Errorf("pid %d, want one", got.PID)
			}
			got.PID, got.Core, got.Tainted = 0, false, 0
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("stdout %q, stderr %q; want %q, %q", stdout.String(), stderr.String(), tt.stdout, tt.stderr)
			}
		})
	}
}

func TestExecBulk(t *testing.T) {
	c := connect(t)
	in := noise(8 << 20)
	var out, side bytes.Buffer
	res, err := c.Exec(within(t, 120*time.Second), sh("tee /dev/stderr"), IO{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &side})
	if err != nil || !res.Exited || res.Code != 0 {
		t.Fatalf("Exec = %+v, %v", res, err)
	}
	for name, got := range map[string][]byte{"stdout": out.Bytes(), "stderr": side.Bytes()} {
		if sha256.Sum256(got) != sha256.Sum256(in) {
			t.Errorf("%s: %d bytes came back changed, want the %d of the input", name, len(got), len(in))
		}
	}
}

func TestExecAtOnce(t *testing.T) {
	c := connect(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			in := noise(200<<10 + i)
			var out bytes.Buffer
			res, err := c.Exec(within(t, 120*time.Second), sh(fmt.Sprintf("cat; exit %d", i)), IO{Stdin: bytes.NewReader(in), Stdout: &out})
			if err != nil || res.Code != i || !bytes.Equal(out.Bytes(), in) {
				t.Errorf("program %d: %+v, %v, %d bytes; want status %d, %d bytes", i, res, err, out.Len(), i, len(in))
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.calls); n != 0 {
		t.Errorf("%d requests are kept after their end", n)
	}
}

func TestExecNotFound(t *testing.T) {
	c := connect(t)
	_, err := c.Exec(within(t, 20*time.Second), wire.ExecParams{Argv: []string{"no-such-program"}}, IO{})
	var g *GuestError
	if !errors.As(err, &g) || g.Op != wire.OpExec || !strings.Contains(g.Msg, "no-such-program") {
		t.Errorf("Exec = %v, want a GuestError that names the program", err)
	}
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestExecCancel ends a program that floods both streams and ignores signals.
// The buffer is the test's again at once: the race detector watches it.
func TestExecCancel(t *testing.T) {
	c := connect(t)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(within(t, 30*time.Second))
	var out bytes.Buffer
	pid := make(chan int, 1)
	first := writerFunc(func(p []byte) (int, error) {
		if out.Len() == 0 {
			var n int
			fmt.Sscan(string(p), &n)
			pid <- n
			cancel(enough)
		}
		return out.Write(p)
	})
	_, err := c.Exec(ctx, sh("trap '' TERM INT; echo $$; while :; do echo y; echo n >&2; done"), IO{Stdout: first})
	if !errors.Is(err, enough) {
		t.Errorf("Exec = %v, want the context's cause", err)
	}
	n := out.Len()
	p := <-pid
	for end := time.Now().Add(20 * time.Second); alive(p) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if alive(p) {
		t.Errorf("program %d lives on", p)
		syscall.Kill(p, syscall.SIGKILL)
	}
	if out.Len() != n {
		t.Errorf("output was written after Exec returned")
	}
	// The agent can run programs again, and the link is intact.
	for range 100 {
		c.mu.Lock()
		left := len(c.calls)
		c.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if res, err := c.Exec(within(t, 20*time.Second), sh("exit 7"), IO{}); err != nil || res.Code != 7 {
		t.Errorf("the next Exec = %+v, %v", res, err)
	}
}

// TestExecWatched: what watches a program ends with it, or ends it.
func TestExecWatched(t *testing.T) {
	c := connect(t)
	doomed := errors.New("doomed")
	over := make(chan error, 1)
	var verdict error
	began := make(chan struct{}, 1)
	c.Watch(func(ctx context.Context) error {
		if verdict != nil {
			<-began
			return verdict
		}
		<-ctx.Done()
		over <- context.Cause(ctx)
		return nil
	})
	if res, err := c.Exec(within(t, 20*time.Second), sh("exit 3"), IO{}); err != nil || res.Code != 3 {
		t.Errorf("Exec = %+v, %v; want its status", res, err)
	}
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Error("the watch goes on after the program")
	}
	verdict = doomed
	first := writerFunc(func(p []byte) (int, error) {
		began <- struct{}{}
		return len(p), nil
	})
	if _, err := c.Exec(within(t, 20*time.Second), sh("echo x; exec sleep 1000"), IO{Stdout: first}); !errors.Is(err, doomed) {
		t.Errorf("Exec = %v, want what the watch says", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestExecStuckWriter: a Writer that never returns does not delay Exec.
func TestExecStuckWriter(t *testing.T) {
	c := connect(t)
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	release := make(chan struct{})
	defer close(release)
	stuck := writerFunc(func(p []byte) (int, error) {
		cancel()
		<-release
		return len(p), nil
	})
	start := time.Now()
	if _, err := c.Exec(ctx, sh("echo x; exec sleep 100"), IO{Stdout: stuck}); !errors.Is(err, context.Canceled) {
		t.Errorf("Exec = %v, want context.Canceled", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("Exec returned after %s", took)
	}
}

func TestExecBadWriter(t *testing.T) {
	c := connect(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	// More than a window: the guest waits for credit if nobody reads.
	res, err := c.Exec(within(t, 60*time.Second), sh("head -c 3000000 /dev/zero; exit 4"), IO{Stdout: full})
	if !errors.Is(err, syscall.ENOSPC) || res.Code != 4 {
		t.Errorf("Exec = %+v, %v; want status 4 and ENOSPC", res, err)
	}
	if err := c.ReadFile(within(t, 60*time.Second), zeros(t), 4<<20, full); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("ReadFile = %v, want ENOSPC", err)
	}
}

func zeros(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(name, make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExecBadReader(t *testing.T) {
	c := connect(t)
	broken := errors.New("broken disk")
	in := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
	var out bytes.Buffer
	_, err := c.Exec(within(t, 30*time.Second), sh("cat"), IO{Stdin: in, Stdout: &out})
	if !errors.Is(err, broken) || out.String() != "half" {
		t.Errorf("Exec = %v with output %q; want the reader's error and %q", err, out.String(), "half")
	}
}

func TestSignal(t *testing.T) {
	c := connect(t)
	started := func(call *Call) {
		if err := call.Control(wire.Control{Signal: int(syscall.SIGUSR1)}); err != nil {
			t.Errorf("Control = %v", err)
		}
	}
	res, err := c.Exec(within(t, 30*time.Second), wire.ExecParams{Argv: []string{"sleep", "100"}}, IO{Started: started})
	if err != nil || !res.Signaled || res.Signal != int(syscall.SIGUSR1) {
		t.Errorf("Exec = %+v, %v; want an end by SIGUSR1", res, err)
	}
}

func TestReadFile(t *testing.T) {
	c := connect(t)
	name := filepath.Join(t.TempDir(), "f")
	want := noise(3 << 20)
	if err := os.WriteFile(name, want, 0o644); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := c.ReadFile(within(t, 60*time.Second), name, 3<<20, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("ReadFile = %v with %d bytes, want all %d", err, got.Len(), len(want))
	}
	got.Reset()
	var g *GuestError
	if err := c.ReadFile(within(t, 60*time.Second), name, 1000, &got); !errors.As(err, &g) || got.Len() != 1000 {
		t.Errorf("ReadFile of a longer file = %v with %d bytes, want a GuestError and 1000", err, got.Len())
	}
	ctx, cancel := context.WithCancel(within(t, 60*time.Second))
	got.Reset()
	err := c.ReadFile(ctx, name, 3<<20, writerFunc(func(p []byte) (int, error) { cancel(); return got.Write(p) }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ReadFile cancelled = %v", err)
	}
	n := got.Len() // raced with, if it were still written
	if err := c.ReadFile(within(t, 60*time.Second), name, 3<<20, io.Discard); err != nil || got.Len() != n {
		t.Errorf("the next ReadFile = %v; the first one's buffer grew by %d", err, got.Len()-n)
	}
}

func TestGuestLeaves(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	c, served := serve(ctx, t, nil)
	if st, err := c.Stat(within(t, 20*time.Second)); err != nil || st.BootSec <= 0 || st.Load == "" {
		t.Errorf("Stat = %+v, %v", st, err)
	}
	leave()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve = %v, want its context's end", err)
	}
	<-c.Done()
	if _, err := c.Stat(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Stat after the end = %v, want ErrClosed", err)
	}
	if _, err := c.Hello(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
		t.Errorf("Hello after the end = %v", err)
	}
}

// puppet is a guest that does what a test says.
type puppet struct {
	*wire.Writer
	conn net.Conn
	reqs chan wire.Frame // requests as they come
}

func newPuppet(t *testing.T, stray func([]byte)) (*puppet, *Client) {
	ours, theirs := net.Pipe()
	p := &puppet{Writer: wire.NewWriter(theirs), conn: theirs, reqs: make(chan wire.Frame, 100)}
	go func() {
		for r := wire.NewReader(theirs, nil); ; {
			f, err := r.Read()
			if err != nil {
				return
			}
			if f.Kind == wire.KindRequest {
				p.reqs <- wire.Frame{Kind: f.Kind, Chan: f.Chan}
			}
		}
	}()
	c := New(ours, stray)
	t.Cleanup(func() { c.Close(); theirs.Close() })
	return p, c
}

func (p *puppet) hello(t *testing.T) {
	t.Helper()
	if err := p.Send(wire.KindHello, 0, wire.Hello{Version: wire.Version}); err != nil {
		t.Fatal(err)
	}
}

// TestHostileGuest runs a program on guests that send invalid responses.
func TestHostileGuest(t *testing.T) {
	data := func(s wire.Stream, n int) func(*puppet, uint32) {
		return func(p *puppet, ch uint32) {
			p.Write(wire.Frame{Kind: wire.KindData, Stream: s, Chan: ch, Payload: make([]byte, n)})
		}
	}
	result := func(v string) func(*puppet, uint32) {
		return func(p *puppet, ch uint32) {
			p.Write(wire.Frame{Kind: wire.KindResult, Chan: ch, Payload: []byte(v)})
		}
	}
	good := result(`{"value":{"pid":1,"exited":true,"code":0,"signaled":false,"signal":0}}`)
	all := func(steps ...func(*puppet, uint32)) func(*puppet, uint32) {
		return func(p *puppet, ch uint32) {
			for _, f := range steps {
				f(p, ch)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(*puppet, uint32)
		want   string // in the error; "" for none
		broken bool   // the link ends with that
	}{
		{"good", good, "", false},
		{"data and results of unknown chans", all(func(p *puppet, ch uint32) {
			data(wire.Stdout, 5)(p, ch+7)
			result(`{}`)(p, ch+7)
			result(`nonsense`)(p, 0)
		}, good), "", false},
		{"two results", all(good, result(`{"err":"again"}`)), "", false},
		{"data on stdin", all(data(wire.Stdin, 5), good), "", false},
		{"data after the end", all(data(wire.Stdout, 0), data(wire.Stdout, 9), good), "", false},
		{"credit beyond all bounds", all(func(p *puppet, ch uint32) {
			for range 5 {
				p.SendCredit(ch, wire.Stdin, 1<<32-1)
			}
		}, good), "", false},
		{"credit on an output", all(func(p *puppet, ch uint32) { p.SendCredit(ch, wire.Stdout, 4) }, good), "", false},
		{"credit of three bytes", func(p *puppet, ch uint32) {
			p.Write(wire.Frame{Kind: wire.KindCredit, Chan: ch, Payload: []byte("abc")})
		}, "decode credit: 3 bytes", true},
		{"more than was granted", func(p *puppet, ch uint32) {
			// Extra is read by nobody here.
			for range wire.Window/wire.MaxPayload + 1 {
				data(wire.Extra, wire.MaxPayload)(p, ch)
			}
		}, "guest: exec: stream got more bytes than were granted", true},
		{"requests and controls", all(func(p *puppet, ch uint32) {
			p.Send(wire.KindRequest, ch, wire.Request{Op: wire.OpExec})
			p.Send(wire.KindControl, ch, wire.Control{Signal: 9})
		}, good), "", false},
		{"second hello", func(p *puppet, ch uint32) {
			p.Send(wire.KindHello, 0, wire.Hello{Version: wire.Version})
		}, "the guest's agent said hello again", true},
		{"lost frame", func(p *puppet, ch uint32) {
			b, _ := wire.AppendFrame(nil, wire.Frame{Kind: wire.KindData, Stream: wire.Stdout, Chan: ch, Payload: []byte("x")}, 9)
			p.conn.Write(b)
		}, "lost 8 frames", true},
		{"result is not JSON", result("\x1b[2J"), "decode *wire.Result", false},
		{"unknown field", result(`{"value":{},"\u001b[2J":1}`), "unknown field", false},
		{"value of another type", result(`{"value":"x"}`), "decode *wire.ExecResult", false},
		{"exit and signal", result(`{"value":{"pid":1,"exited":true,"code":0,"signaled":true,"signal":9}}`), "neither an exit nor a signal", false},
		{"no end", result(`{}`), "neither an exit nor a signal", false},
		{"status out of range", result(`{"value":{"pid":1,"exited":true,"code":256}}`), "neither an exit nor a signal", false},
		{"signal out of range", result(`{"value":{"pid":1,"signaled":true,"signal":-128}}`), "neither an exit nor a signal", false},
		{"error with escapes", result(`{"err":"bad\u001b]0;x\u0007\nsecond\u202e line"}`), "guest: exec: bad\ufffd]0;x\ufffd second\ufffd line", false},
		{"very long error", result(`{"err":"` + strings.Repeat("x", 20000) + `"}`), "xxx…", false},
		{"link closed", func(p *puppet, ch uint32) { p.conn.Close() }, ErrClosed.Error(), true},
		{"link closed within a frame", func(p *puppet, ch uint32) {
			b, _ := wire.AppendFrame(nil, wire.Frame{Kind: wire.KindResult, Chan: ch, Payload: []byte(`{}`)}, 1)
			p.conn.Write(b[:len(b)-1])
			p.conn.Close()
		}, ErrClosed.Error(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, c := newPuppet(t, nil)
			p.hello(t)
			go func() {
				for f := range p.reqs {
					tt.answer(p, f.Chan)
				}
			}()
			defer close(p.reqs)
			res, err := c.Exec(within(t, 20*time.Second), sh("x"), IO{Stdin: strings.NewReader("input")})
			switch {
			case tt.want == "" && (err != nil || !res.Exited):
				t.Errorf("Exec = %+v, %v; want an exit", res, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Exec = %v, want an error with %q", err, tt.want)
			case err != nil && (strings.ContainsAny(err.Error(), "\x1b\a\n\u202e") || len(err.Error()) > 2100):
				t.Errorf("unclean error %.100q of %d bytes", err.Error(), len(err.Error()))
			}
			if tt.broken {
				<-c.Done()
				if _, err := c.Start(wire.OpStat, nil); !errors.Is(err, c.Err()) || err == nil {
					t.Errorf("Start on a broken link = %v, want %v", err, c.Err())
				}
			} else if err := c.Err(); err != nil {
				t.Errorf("the link ended: %v", err)
			}
		})
	}
}

func TestClosedMidRequest(t *testing.T) {
	p, c := newPuppet(t, nil)
	call, err := c.Start(wire.OpExec, sh("x"))
	if err != nil {
		t.Fatal(err)
	}
	p.Write(wire.Frame{Kind: wire.KindData, Stream: wire.Stdout, Chan: call.id, Payload: []byte("half")})
	p.conn.Close()
	out, rerr := io.ReadAll(call.Stdout())
	if string(out) != "half" || !errors.Is(rerr, ErrClosed) {
		t.Errorf("stdout = %q, %v; want what came and ErrClosed", out, rerr)
	}
	if err := call.Wait(within(t, 10*time.Second), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait = %v, want ErrClosed", err)
	}
	if _, err := c.Hello(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Hello = %v, want ErrClosed", err)
	}
}

// TestHungGuest: a guest that does not read the link cannot delay the return after a
// deadline.
func TestHungGuest(t *testing.T) {
	ours, theirs := net.Pipe() // no buffer, and nobody reads after the request
	c := New(ours, nil)
	defer c.Close()
	go wire.NewReader(theirs, nil).Read()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, sh("x"), IO{Stdin: bytes.NewReader(noise(1 << 20)), Stdout: io.Discard})
		returned <- err
	}()
	select {
	case err := <-returned:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Exec = %v, want the deadline", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Exec waits for a guest that hangs")
	}
}

func TestStray(t *testing.T) {
	var mu sync.Mutex
	var stray []byte
	p, c := newPuppet(t, func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		stray = append(stray, b...)
	})
	p.conn.Write([]byte("[    0.1] Linux\r\n\x1elc"))
	p.hello(t)
	p.conn.Write([]byte("\x1elc\x1f more\n"))
	if _, err := c.Hello(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		f := <-p.reqs
		p.conn.Write([]byte("between "))
		p.Send(wire.KindResult, f.Chan, wire.Result{Value: json.RawMessage(`{"load":"1"}`)})
	}()
	if st, err := c.Stat(within(t, 10*time.Second)); err != nil || st.Load != "1" {
		t.Errorf("Stat among stray bytes = %+v, %v", st, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got, want := string(stray), "[    0.1] Linux\r\n\x1elc\x1elc\x1f more\nbetween "; got != want {
		t.Errorf("stray = %q, want %q", got, want)
	}
}

func TestHelloVersion(t *testing.T) {
	p, c := newPuppet(t, nil)
	go p.Send(wire.KindHello, 0, wire.Hello{Version: wire.Version + 1})
	_, err := c.Hello(within(t, 10*time.Second))
	if want := fmt.Sprintf("version %d, this labctl %d", wire.Version+1, wire.Version); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Hello = %v, want %q", err, want)
	}
}

func TestHelloDeadline(t *testing.T) {
	_, c := newPuppet(t, nil)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("too late"))
	defer cancel()
	if _, err := c.Hello(ctx); err == nil || err.Error() != "too late" {
		t.Errorf("Hello = %v, want the context's cause", err)
	}
}
