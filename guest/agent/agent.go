// Package agent answers the host's requests in the guest: it serves the
// protocol of package wire over any link.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// maxRequests bounds how many requests run at once, and with it the memory that
// the host can make the agent use.
const maxRequests = 64

// Guest is where the agent finds what only a real guest has.
type Guest struct {
	Tracefs string // root of tracefs, "/sys/kernel/tracing"
	Proc    string // root of procfs, "/proc"
	// Chunk is the most bytes of one Data frame; 0 means the protocol's bound. A
	// serial line wants small frames: others wait behind a frame, and console
	// text in the middle of one costs it all.
	Chunk int
	// Window is memory that the host writes; nil for none.
	Window []byte
	// Kept is the directory for programs that are kept (wire.KeepRecord); empty for
	// none.
	Kept string
	// Sandbox has the sandbox of programs without privileges made before the hello, so
	// that a guest that is restored has it. It takes root.
	Sandbox bool
	// SetClock and AddEntropy do what only a guest's init may; nil ones make
	// OpResume an error.
	SetClock   func(time.Time) error
	AddEntropy func([]byte) error
}

// Serve says hello and then answers requests until the link ends, the host breaks
// the protocol, or ctx is done; the error says which. When it returns, the programs it started are killed. A Read of the link that is under
// way goes on until the link is closed.
//
// Serve collects every child of its process, as PID 1 has to, so nothing else
// in the process may start programs while it runs.
func Serve(ctx context.Context, link io.ReadWriter, guest Guest, hello wire.Hello) error {
	s := &session{
		out:      wire.NewWriter(link),
		guest:    guest,
		hello:    hello,
		children: newChildren(), captures: newCaptures(),
		kept:     kept{dir: guest.Kept},
		requests: make(map[uint32]*request),
		openFS: sync.OnceValues(func() (*tracefs.FS, error) {
			return tracefs.Open(guest.Tracefs, guest.Proc)
		}),
	}
	if f, err := os.Open(guest.Proc + taintedFile); err == nil {
		s.tainted = f
		defer f.Close()
	}
	ctx, cancel := context.WithCancel(ctx)
	go s.children.collect(ctx)
	defer s.end(cancel)

	if guest.Sandbox {
		if _, err := s.sandboxes.get(nil); err != nil && len(s.hello.Notes) < 64 {
			s.hello.Notes = append(s.hello.Notes, clip(err.Error(), 200)) // who asks for it is told again
		}
		if now, err := BootTime(); err == nil {
			s.hello.HelloSec = now
		}
	}
	if err := s.out.Send(wire.KindHello, 0, s.hello); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	broken := make(chan error, 1)
	go func() { broken <- s.read(wire.NewReader(link, nil)) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-broken:
		return err
	}
}

type session struct {
	out      *wire.Writer
	guest    Guest
	hello    wire.Hello // as it was sent
	children *children

	mu       sync.Mutex
	requests map[uint32]*request

	openFS func() (*tracefs.FS, error)

	kept kept

	captures *captures

	tainted *os.File // taintedFile, nil if it cannot be opened

	sandboxes sandboxes
}

// request is one open Chan. The read loop finds its streams here; they are made
// before the loop sees the next frame, so no frame is missed.
type request struct {
	ch      uint32
	stdin   *wire.Receiver
	senders [wire.Extra + 1]*wire.Sender
	over    chan struct{} // closed by stop
	once    sync.Once

	mu      sync.Mutex
	control func(wire.Control) // nil until there is something to control
	early   []wire.Control     // came before
}

// read acts on frames until the link ends. It never waits for a request.
func (s *session) read(r *wire.Reader) error {
	for {
		f, err := r.Read()
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}
		if n := r.Lost(); n > 0 {
			return fmt.Errorf("read link: %d frames lost", n)
		}
		s.mu.Lock()
		req := s.requests[f.Chan]
		s.mu.Unlock()
		switch {
		case f.Kind == wire.KindRequest && req != nil:
			return fmt.Errorf("request on chan %d, which has one running", f.Chan)
		case f.Kind == wire.KindRequest:
			s.open(f)
		case req == nil: // ended while the frame was on its way
		default:
			err = req.frame(f)
		}
		if err != nil {
			return fmt.Errorf("chan %d: %w", f.Chan, err)
		}
	}
}

func (r *request) frame(f wire.Frame) error {
	switch f.Kind {
	case wire.KindData:
		if f.Stream == wire.Stdin {
			return r.stdin.Push(f.Payload)
		}
	case wire.KindCredit:
		n, err := wire.ParseCredit(f.Payload)
		if err != nil {
			return err
		}
		if s := r.senders[f.Stream]; s != nil {
			s.Grant(n)
		}
	case wire.KindControl:
		c, err := wire.Decode[wire.Control](f.Payload)
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.control != nil {
			r.control(c)
		} else if len(r.early) < 16 {
			r.early = append(r.early, c)
		}
	}
	return nil
}

// onControl names what acts on Control frames and catches up with early ones.
func (r *request) onControl(f func(wire.Control)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.control = f
	for _, c := range r.early {
		f(c)
	}
	r.early = nil
}

// open starts a request in a goroutine of its own.
func (s *session) open(f wire.Frame) {
	ch := f.Chan
	q, err := wire.Decode[wire.Request](f.Payload)
	if err != nil {
		s.refuse(ch, err.Error())
		return
	}
	r := &request{ch: ch, over: make(chan struct{}), stdin: wire.NewReceiver(func(n uint32) error {
		return s.out.SendCredit(ch, wire.Stdin, n)
	})}
	for _, st := range []wire.Stream{wire.Stdout, wire.Stderr, wire.Extra} {
		r.senders[st] = wire.NewSender(s.out, ch, st, s.chunk())
	}
	s.mu.Lock()
	full := len(s.requests) >= maxRequests
	if !full {
		s.requests[ch] = r
	}
	s.mu.Unlock()
	if full {
		s.refuse(ch, fmt.Sprintf("more than %d requests at once", maxRequests))
		return
	}
	go func() {
		value, err := s.do(r, q)
		s.mu.Lock()
		delete(s.requests, ch)
		s.mu.Unlock()
		r.stop(io.ErrClosedPipe)
		// A link that fails here fails the read loop too.
		s.out.Send(wire.KindResult, ch, result(value, err))
	}()
}

// refuse ends a Chan that was not opened. The read loop must not wait for the
// link, hence the goroutine.
func (s *session) refuse(ch uint32, why string) {
	go s.out.Send(wire.KindResult, ch, result(nil, errors.New(why)))
}

// stop frees whoever waits on the request's streams.
func (r *request) stop(err error) {
	r.once.Do(func() { close(r.over) })
	r.stdin.CloseWithError(err)
	for _, s := range r.senders {
		if s != nil {
			s.Abort()
		}
	}
}

// result makes a Result that fits a frame.
func result(value any, err error) wire.Result {
	var res wire.Result
	if err != nil {
		res.Err = clip(err.Error(), 4<<10)
	}
	if value != nil {
		p, merr := wire.Marshal(value)
		// Room for Err, each byte of which JSON may write as six, and the frame of both.
		if merr == nil && len(p) <= wire.MaxPayload-6*len(res.Err)-64 {
			res.Value = p
		} else if res.Err == "" {
			res.Err = fmt.Sprintf("result of %d bytes does not fit a frame", len(p))
		}
	}
	return res
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// do runs one request to its result.
func (s *session) do(r *request, q wire.Request) (any, error) {
	switch q.Op {
	case wire.OpExec:
		p, err := wire.Decode[wire.ExecParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.exec(r, p)
	case wire.OpReadFile:
		p, err := wire.Decode[wire.FileParams](q.Params)
		if err != nil {
			return nil, err
		}
		return nil, s.readFile(r.senders[wire.Stdout], p)
	case wire.OpCapture:
		p, err := wire.Decode[wire.CaptureParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.capture(r, p)
	case wire.OpSleepers:
		p, err := wire.Decode[wire.SleepersParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.sleepers(r.senders[wire.Extra], p)
	case wire.OpUnpack:
		p, err := wire.Decode[wire.UnpackParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.kept.unpack(s.guest.Window, r.stdin, p)
	case wire.OpRemove:
		p, err := wire.Decode[wire.RemoveParams](q.Params)
		if err != nil {
			return nil, err
		}
		return nil, remove(p)
	case wire.OpPack:
		p, err := wire.Decode[wire.PackParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.pack(r.senders[wire.Stdout], p)
	case wire.OpResume:
		p, err := wire.Decode[wire.ResumeParams](q.Params)
		if err != nil {
			return nil, err
		}
		return s.resume(p)
	}
	if len(q.Params) != 0 {
		return nil, fmt.Errorf("operation %q takes no parameters", clip(string(q.Op), 40))
	}
	switch q.Op {
	case wire.OpStat:
		return s.stat()
	}
	return nil, fmt.Errorf("unknown operation %q", clip(string(q.Op), 40))
}

// end leaves nothing running, and no trace armed.
func (s *session) end(cancel context.CancelFunc) {
	s.mu.Lock()
	for _, r := range s.requests {
		r.stop(io.ErrUnexpectedEOF)
	}
	s.mu.Unlock()
	s.children.killAll()
	s.sandboxes.end()
	s.captures.end()
	cancel()
}

func (s *session) stat() (any, error) {
	sec, err := BootTime()
	if err != nil {
		return nil, err
	}
	load, err := readSome(s.guest.Proc+"/loadavg", 256)
	return wire.Stat{BootSec: sec, Load: load}, err
}

// BootTime is CLOCK_BOOTTIME in seconds.
func BootTime() (float64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot time: %w", err)
	}
	return float64(ts.Nano()) / 1e9, nil
}

func readSome(path string, max int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max))
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b), err
}

// readFile sends a regular file, as those of proc and sysfs are too. A file
// longer than p.Max is an error, after p.Max bytes.
func (s *session) readFile(out *wire.Sender, p wire.FileParams) error {
	if p.Max < 0 {
		return fmt.Errorf("read %s: max is %d, want 0 or more", p.Path, p.Max)
	}
	if fi, err := os.Stat(p.Path); err != nil {
		return err
	} else if !fi.Mode().IsRegular() {
		return fmt.Errorf("read %s: not a regular file", p.Path)
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = copyWhole(out, io.LimitReader(f, p.Max), s.chunk())
	if err == nil {
		var one [1]byte
		if n, _ := f.Read(one[:]); n > 0 {
			err = fmt.Errorf("read %s: more than %d bytes", p.Path, p.Max)
		}
	}
	return errors.Join(err, out.Close())
}

func (s *session) pack(out *wire.Sender, p wire.PackParams) (any, error) {
	w := newWholeWriter(out, s.chunk())
	packed, err := pack(w, p)
	return packed, errors.Join(err, w.Flush(), out.Close())
}

func (s *session) chunk() int {
	if s.guest.Chunk <= 0 {
		return frameChunk
	}
	return s.guest.Chunk
}
