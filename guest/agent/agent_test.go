package agent

import (
	"bytes"
	"context"
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
	"time"

	"labctl/guest/wire"
)

// host is the other end of a session, as plain as can be: it grants at once
// what it reads, except on streams that a test stalls.
type host struct {
	t    *testing.T
	link net.Conn
	out  *wire.Writer
	done chan error // what Serve returned

	mu    sync.Mutex
	calls map[uint32]*call
	next  uint32
}

// call is one request as the host sees it.
type call struct {
	h     *host
	ch    uint32
	stdin *wire.Sender
	stall bool // no grants for stdout

	mu     sync.Mutex
	bytes  [wire.Extra + 1]bytes.Buffer
	ended  [wire.Extra + 1]bool
	got    chan struct{} // a token after each Data frame, when there is room
	result chan wire.Result
}

// The collector takes every child of the process, so sessions of tests do not
// run side by side.
func serve(t *testing.T) *host {
	t.Helper()
	ours, theirs := net.Pipe()
	h := &host{t: t, link: ours, out: wire.NewWriter(ours), done: make(chan error, 1), calls: make(map[uint32]*call)}
	hello := make(chan wire.Hello, 1)
	go func() {
		h.done <- Serve(context.Background(), theirs, Guest{Tracefs: t.TempDir(), Proc: "/proc"}, wire.Hello{Version: wire.Version, Arch: "test"})
		theirs.Close()
	}()
	go h.read(hello)
	select {
	case got := <-hello:
		if got.Version != wire.Version || got.Arch != "test" {
			t.Fatalf("hello = %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no hello")
	}
	t.Cleanup(func() {
		ours.Close()
		select {
		case <-h.done:
		case <-time.After(10 * time.Second):
			t.Error("Serve goes on after the link was closed")
		}
	})
	return h
}

func (h *host) read(hello chan wire.Hello) {
	r := wire.NewReader(h.link, func(b []byte) { h.t.Errorf("stray bytes: %q", b) })
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		if f.Kind == wire.KindHello {
			v, err := wire.Decode[wire.Hello](f.Payload)
			if err != nil {
				h.t.Error(err)
			}
			hello <- v
			continue
		}
		h.mu.Lock()
		c := h.calls[f.Chan]
		h.mu.Unlock()
		if c == nil {
			h.t.Errorf("frame %d for unknown chan %d", f.Kind, f.Chan)
			continue
		}
		c.frame(f)
	}
}

func (c *call) frame(f wire.Frame) {
	switch f.Kind {
	case wire.KindData:
		c.mu.Lock()
		c.bytes[f.Stream].Write(f.Payload)
		if c.ended[f.Stream] {
			c.h.t.Errorf("data on stream %d after its end", f.Stream)
		}
		c.ended[f.Stream] = len(f.Payload) == 0
		stall := c.stall && f.Stream == wire.Stdout
		c.mu.Unlock()
		if n := len(f.Payload); n > 0 && !stall {
			// In a goroutine: net.Pipe has no buffer, and both ends may write.
			go c.h.out.SendCredit(c.ch, f.Stream, uint32(n))
		}
		select {
		case c.got <- struct{}{}:
		default:
		}
	case wire.KindCredit:
		n, err := wire.ParseCredit(f.Payload)
		if err != nil {
			c.h.t.Error(err)
		}
		if f.Stream != wire.Stdin {
			c.h.t.Errorf("credit for stream %d", f.Stream)
		}
		c.stdin.Grant(n)
	case wire.KindResult:
		res, err := wire.Decode[wire.Result](f.Payload)
		if err != nil {
			c.h.t.Error(err)
		}
		c.result <- res
	default:
		c.h.t.Errorf("guest sent kind %d", f.Kind)
	}
}

func (h *host) newCall() *call {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	c := &call{h: h, ch: h.next, got: make(chan struct{}, 1), result: make(chan wire.Result, 1)}
	c.stdin = wire.NewSender(h.out, c.ch, wire.Stdin, 0)
	h.calls[c.ch] = c
	return c
}

func (h *host) start(op wire.Op, params any) *call {
	h.t.Helper()
	c := h.newCall()
	c.send(op, params)
	return c
}

func (c *call) send(op wire.Op, params any) {
	c.h.t.Helper()
	q, err := wire.NewRequest(op, params)
	if err == nil {
		err = c.h.out.Send(wire.KindRequest, c.ch, q)
	}
	if err != nil {
		c.h.t.Fatal(err)
	}
}

func (c *call) control(v wire.Control) {
	c.h.t.Helper()
	if err := c.h.out.Send(wire.KindControl, c.ch, v); err != nil {
		c.h.t.Fatal(err)
	}
}

func (c *call) wait() wire.Result {
	c.h.t.Helper()
	select {
	case res := <-c.result:
		return res
	case <-time.After(20 * time.Second):
		c.h.t.Fatal("no result")
		return wire.Result{}
	}
}

// exec waits for an exec's end, which must follow the end of its streams.
func (c *call) exec(streams ...wire.Stream) wire.ExecResult {
	c.h.t.Helper()
	res := c.wait()
	if res.Err != "" {
		c.h.t.Fatalf("exec: %s", res.Err)
	}
	v, err := wire.Decode[wire.ExecResult](res.Value)
	if err != nil {
		c.h.t.Fatal(err)
	}
	if v.Exited == v.Signaled || v.PID <= 0 {
		c.h.t.Errorf("result %+v is neither exit nor signal", v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range streams {
		if !c.ended[s] {
			c.h.t.Errorf("result came before the end of stream %d", s)
		}
	}
	return v
}

func (c *call) text(s wire.Stream) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes[s].String()
}

// until waits for want on stdout.
func (c *call) until(want string) {
	c.h.t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(c.text(wire.Stdout), want) {
		select {
		case <-c.got:
		case <-deadline:
			c.h.t.Fatalf("stdout = %q, want %q in it", c.text(wire.Stdout), want)
		}
	}
}

func sh(script string) wire.ExecParams { return wire.ExecParams{Argv: []string{"sh", "-c", script}} }

func TestExec(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name           string
		params         wire.ExecParams
		stdout, stderr string
		want           wire.ExecResult // PID apart
	}{
		{"echo", wire.ExecParams{Argv: []string{"/bin/echo", "a b", "c"}}, "a b c\n", "", wire.ExecResult{Exited: true}},
		{"path", wire.ExecParams{Argv: []string{"echo", "x"}}, "x\n", "", wire.ExecResult{Exited: true}},
		{"two streams", sh("echo out; echo err >&2"), "out\n", "err\n", wire.ExecResult{Exited: true}},
		{"exit code", sh("exit 41"), "", "", wire.ExecResult{Exited: true, Code: 41}},
		{"killed", sh("kill -TERM $$"), "", "", wire.ExecResult{Signaled: true, Signal: int(syscall.SIGTERM)}},
		{"no stdin", wire.ExecParams{Argv: []string{"cat"}}, "", "", wire.ExecResult{Exited: true}},
		{"dir", wire.ExecParams{Argv: []string{"pwd"}, Dir: dir}, dir + "\n", "", wire.ExecResult{Exited: true}},
		{"env", wire.ExecParams{Argv: []string{"sh", "-c", "echo $LAB $HOME"}, Env: []string{"LAB=7", "HOME=/lab"}}, "7 /lab\n", "", wire.ExecResult{Exited: true}},
		{"own group", sh("read -r pid comm state ppid pgrp rest </proc/$$/stat; test $pgrp = $$ && echo leader"), "leader\n", "", wire.ExecResult{Exited: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t).start(wire.OpExec, tt.params)
			got := c.exec(wire.Stdout, wire.Stderr)
			got.PID, got.Core, got.Tainted = 0, false, 0
			if got != tt.want {
				t.Errorf("result = %+v, want %+v", got, tt.want)
			}
			if c.text(wire.Stdout) != tt.stdout || c.text(wire.Stderr) != tt.stderr {
				t.Errorf("stdout = %q, stderr = %q; want %q, %q", c.text(wire.Stdout), c.text(wire.Stderr), tt.stdout, tt.stderr)
			}
		})
	}
}

func TestEnviron(t *testing.T) {
	got := environ([]string{"A=1", "B=2"}, []string{"A=3", "C=4"})
	if want := []string{"B=2", "A=3", "C=4"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("environ() = %q, want %q", got, want)
	}
}

func TestExecCat(t *testing.T) {
	want := make([]byte, 8<<20)
	rnd := rand.NewChaCha8([32]byte{})
	rnd.Read(want)
	c := serve(t).newCall()
	c.send(wire.OpExec, wire.ExecParams{Argv: []string{"cat"}, Stdin: true})
	if _, err := c.stdin.Write(want); err != nil {
		t.Fatal(err)
	}
	c.stdin.Close()
	if res := c.exec(wire.Stdout, wire.Stderr); res.Code != 0 {
		t.Errorf("cat exited %d", res.Code)
	}
	if got := c.text(wire.Stdout); got != string(want) {
		t.Errorf("cat gave back %d bytes that differ from the %d sent", len(got), len(want))
	}
}

// A program that does not read its input must not stop the host from sending it.
func TestExecIgnoresStdin(t *testing.T) {
	c := serve(t).newCall()
	c.send(wire.OpExec, wire.ExecParams{Argv: []string{"sh", "-c", "exec <&-; echo closed; sleep 1"}, Stdin: true})
	c.until("closed")
	sent := make(chan error, 1)
	go func() {
		_, err := c.stdin.Write(make([]byte, 3*wire.Window))
		sent <- err
	}()
	if err := <-sent; err != nil {
		t.Errorf("send to a program that does not read = %v", err)
	}
	c.exec(wire.Stdout, wire.Stderr)
}

func TestExecSignal(t *testing.T) {
	c := serve(t).start(wire.OpExec, sh(`trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done`))
	c.until("ready")
	c.control(wire.Control{Signal: int(syscall.SIGUSR1)})
	if res := c.exec(wire.Stdout); res.Code != 3 {
		t.Errorf("result = %+v, want code 3", res)
	}

	// The whole group dies, the sleep with the shell.
	c = c.h.start(wire.OpExec, sh(`sleep 100 & echo $!; wait`))
	c.until("\n")
	var pid int
	fmt.Sscan(c.text(wire.Stdout), &pid)
	c.control(wire.Control{Signal: int(syscall.SIGKILL)})
	if res := c.exec(wire.Stdout); res.Signal != int(syscall.SIGKILL) {
		t.Errorf("result = %+v, want signal 9", res)
	}
	waitGone(t, pid)
}

// A Control that overtakes the program's start is delivered after it.
func TestExecEarlySignal(t *testing.T) {
	c := serve(t).newCall()
	q, err := wire.NewRequest(wire.OpExec, wire.ExecParams{Argv: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	c.h.out.Send(wire.KindRequest, c.ch, q)
	c.control(wire.Control{Signal: int(syscall.SIGTERM)})
	if res := c.exec(); res.Signal != int(syscall.SIGTERM) {
		t.Errorf("result = %+v, want signal 15", res)
	}
}

func TestExecTTY(t *testing.T) {
	c := serve(t).start(wire.OpExec, wire.ExecParams{
		Argv: []string{"sh", "-c", `trap 'stty size; exit 0' WINCH; stty size; tty; echo to-stderr >&2; while :; do sleep 0.05; done`},
		TTY:  true, Rows: 41, Cols: 133,
	})
	c.until("to-stderr")
	if got := c.text(wire.Stdout); !strings.HasPrefix(got, "41 133\r\n/dev/pts/") {
		t.Errorf("terminal said %q, want 41 133 and its name", got)
	}
	c.control(wire.Control{Rows: 50, Cols: 200})
	c.until("50 200")
	if res := c.exec(wire.Stdout); res.Code != 0 || c.text(wire.Stderr) != "" {
		t.Errorf("result = %+v, stderr = %q; want code 0 and nothing", res, c.text(wire.Stderr))
	}
}

// Typed bytes reach the program through the line discipline: ^C is a signal,
// the end of input is an end of file.
func TestExecTTYInput(t *testing.T) {
	h := serve(t)
	c := h.start(wire.OpExec, wire.ExecParams{Argv: []string{"sh", "-c", "read a; echo got $a; cat; echo end"}, TTY: true, Stdin: true})
	io.WriteString(c.stdin, "line\nmore\n")
	c.until("got line\r\nmore\r\n")
	c.stdin.Close()
	c.until("end")
	c.exec(wire.Stdout)

	c = h.start(wire.OpExec, wire.ExecParams{Argv: []string{"sh", "-c", "echo ready; exec sleep 100"}, TTY: true, Stdin: true})
	c.until("ready")
	c.stdin.Write([]byte{3})
	if res := c.exec(wire.Stdout); res.Signal != int(syscall.SIGINT) {
		t.Errorf("after ^C result = %+v, want signal 2", res)
	}
}

// The program leaves a process behind that holds its output open.
func TestExecGrace(t *testing.T) {
	start := time.Now()
	c := serve(t).start(wire.OpExec, sh(`sleep 30 & echo out`))
	c.exec(wire.Stdout, wire.Stderr)
	if d := time.Since(start); d < grace || d > 10*time.Second {
		t.Errorf("result after %v, want the grace of %v and little more", d, grace)
	}
	if got := c.text(wire.Stdout); got != "out\n" {
		t.Errorf("stdout = %q, want %q", got, "out\n")
	}
}

// The host stalls a program's output beyond the grace; then all of it must
// come, though the pipe is still held open.
func TestExecStalledPastGrace(t *testing.T) {
	const size = wire.Window + 100_000 // the window and a part of the pipe
	h := serve(t)
	c := h.newCall()
	c.stall = true
	c.send(wire.OpExec, sh(fmt.Sprintf(`sleep 30 & head -c %d /dev/zero`, size)))
	for len(c.text(wire.Stdout)) < wire.Window {
		<-c.got
	}
	time.Sleep(3 * grace)
	c.mu.Lock()
	c.stall = false
	c.mu.Unlock()
	if err := h.out.SendCredit(c.ch, wire.Stdout, wire.Window); err != nil {
		t.Fatal(err)
	}
	c.exec(wire.Stdout, wire.Stderr)
	if got := len(c.text(wire.Stdout)); got != size {
		t.Errorf("got %d bytes, want %d", got, size)
	}
}

// A reader that stalls one stream holds up neither the other stream nor other
// requests, and gets no more than the window.
func TestCreditStall(t *testing.T) {
	h := serve(t)
	stalled := h.newCall()
	stalled.stall = true
	stalled.send(wire.OpExec, sh(`head -c 2000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait`))
	for len(stalled.text(wire.Stdout)) < wire.Window || len(stalled.text(wire.Stderr)) < 2000000 {
		select {
		case <-stalled.got:
		case <-time.After(20 * time.Second):
			t.Fatalf("stdout %d, stderr %d bytes; want the window and all", len(stalled.text(wire.Stdout)), len(stalled.text(wire.Stderr)))
		}
	}
	other := h.start(wire.OpExec, sh(`head -c 1000000 /dev/zero`))
	other.exec(wire.Stdout)
	if got := len(other.text(wire.Stdout)); got != 1000000 {
		t.Errorf("other request got %d bytes, want 1000000", got)
	}
	if got := len(stalled.text(wire.Stdout)); got != wire.Window {
		t.Errorf("stalled stream got %d bytes, want the window of %d", got, wire.Window)
	}
	stalled.control(wire.Control{Signal: int(syscall.SIGKILL)})
	stalled.mu.Lock()
	stalled.stall = false
	stalled.mu.Unlock()
	h.out.SendCredit(stalled.ch, wire.Stdout, wire.Window)
	stalled.exec()
}

func TestRequestErrors(t *testing.T) {
	h := serve(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		op     wire.Op
		params any
		err    string
	}{
		{wire.OpExec, wire.ExecParams{}, "argv is empty"},
		{wire.OpExec, wire.ExecParams{Argv: []string{"no-such-program"}}, "not found"},
		{wire.OpExec, wire.ExecParams{Argv: []string{"/no/such/program"}}, "exec /no/such/program: no such file"},
		{wire.OpExec, wire.ExecParams{Argv: []string{file}}, "permission denied"},
		{wire.OpExec, map[string]any{"argv": []string{"true"}, "nice": 3}, "unknown field"},
		{wire.OpExec, nil, "decode"},
		{wire.OpExec, wire.ExecParams{Argv: []string{"true"}, Watch: true}, "watched from a mark on, and it has none"},
		{wire.OpExec, wire.ExecParams{Argv: []string{"true"}, Sandbox: &wire.Sandbox{Privileges: []string{"realtime", "magic"}}}, `no privilege "magic"`},
		{wire.OpExec, wire.ExecParams{Argv: []string{"true"}, Sandbox: &wire.Sandbox{Privileges: []string{"realtime", "namespaces"}}}, "a user namespace goes with no others"},
		{wire.OpReadFile, wire.FileParams{Path: "/no/such", Max: 1}, "no such file"},
		{wire.OpReadFile, wire.FileParams{Path: "/tmp", Max: 1}, "not a regular file"},
		{wire.OpReadFile, wire.FileParams{Path: file, Max: 9}, "more than 9 bytes"},
		{wire.OpReadFile, wire.FileParams{Path: file, Max: -1}, "max is -1"},
		{wire.OpStat, wire.FileParams{}, "takes no parameters"},
		{"dance", nil, `unknown operation "dance"`},
	} {
		res := h.start(tt.op, tt.params).wait()
		if !strings.Contains(res.Err, tt.err) || res.Err == "" {
			t.Errorf("%s %+v: err = %q, want %q in it", tt.op, tt.params, res.Err, tt.err)
		}
	}
	// A request that is not even one.
	c := h.newCall()
	h.out.Write(wire.Frame{Kind: wire.KindRequest, Chan: c.ch, Payload: []byte("{]")})
	if res := c.wait(); !strings.Contains(res.Err, "decode") {
		t.Errorf("bad JSON: err = %q", res.Err)
	}
	// Frames of requests that are gone, or never were.
	for _, k := range []wire.Kind{wire.KindData, wire.KindControl, wire.KindCredit} {
		h.out.Write(wire.Frame{Kind: k, Chan: 4711, Payload: []byte("??")})
	}
	if res := h.start(wire.OpStat, nil).wait(); res.Err != "" {
		t.Errorf("stat after frames for an unknown chan: %s", res.Err)
	}
}

func TestReadFile(t *testing.T) {
	h := serve(t)
	want := strings.Repeat("0123456789", 50_000)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	c := h.start(wire.OpReadFile, wire.FileParams{Path: file, Max: int64(len(want))})
	if res := c.wait(); res.Err != "" || c.text(wire.Stdout) != want || !c.ended[wire.Stdout] {
		t.Errorf("read-file: err %q, %d bytes, ended %v; want %d", res.Err, len(c.text(wire.Stdout)), c.ended[wire.Stdout], len(want))
	}
	c = h.start(wire.OpReadFile, wire.FileParams{Path: "/proc/self/status", Max: 1 << 20})
	if res := c.wait(); res.Err != "" || !strings.HasPrefix(c.text(wire.Stdout), "Name:") {
		t.Errorf("read-file of proc: err %q, %.20q", res.Err, c.text(wire.Stdout))
	}
}

func TestStat(t *testing.T) {
	res := serve(t).start(wire.OpStat, nil).wait()
	st, err := wire.Decode[wire.Stat](res.Value)
	if err != nil || res.Err != "" || st.BootSec <= 0 || len(strings.Fields(st.Load)) != 5 {
		t.Errorf("stat = %+v, %v, err %q", st, err, res.Err)
	}
}

func TestServeEnds(t *testing.T) {
	t.Run("link closed, programs killed", func(t *testing.T) {
		h := serve(t)
		c := h.start(wire.OpExec, sh("echo $$; exec sleep 100"))
		c.until("\n")
		var pid int
		fmt.Sscan(c.text(wire.Stdout), &pid)
		h.link.Close()
		if err := <-h.done; !errors.Is(err, io.EOF) {
			t.Errorf("Serve() = %v, want EOF", err)
		}
		h.done <- nil
		waitGone(t, pid)
	})
	t.Run("busy chan", func(t *testing.T) {
		h := serve(t)
		c := h.start(wire.OpExec, sh("sleep 100"))
		c.send(wire.OpStat, nil)
		if err := <-h.done; err == nil || !strings.Contains(err.Error(), "has one running") {
			t.Errorf("Serve() = %v", err)
		}
		h.done <- nil
	})
	t.Run("lost frame", func(t *testing.T) {
		h := serve(t)
		h.out.Write(wire.Frame{Kind: wire.KindData, Chan: 9})
		b, err := wire.AppendFrame(nil, wire.Frame{Kind: wire.KindData, Chan: 9}, 3)
		if err != nil {
			t.Fatal(err)
		}
		h.link.Write(b)
		if err := <-h.done; err == nil || !strings.Contains(err.Error(), "2 frames lost") {
			t.Errorf("Serve() = %v, want 2 frames lost", err)
		}
		h.done <- nil
	})
	t.Run("overrun", func(t *testing.T) {
		h := serve(t)
		c := h.start(wire.OpExec, wire.ExecParams{Argv: []string{"sleep", "100"}, Stdin: true})
		// The pipe and what is on its way to it take some; no host may send this much.
		for range 4 * wire.Window / wire.MaxPayload {
			if h.out.Write(wire.Frame{Kind: wire.KindData, Chan: c.ch, Payload: make([]byte, wire.MaxPayload)}) != nil {
				break
			}
		}
		if err := <-h.done; !errors.Is(err, wire.ErrOverrun) {
			t.Errorf("Serve() = %v, want %v", err, wire.ErrOverrun)
		}
		h.done <- nil
	})
}

// waitGone waits until pid is dead: killed, if not yet collected.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d lives on", pid)
}
