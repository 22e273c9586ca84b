package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

func oneFile(t *testing.T, name string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	w.Write(body)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackAndPack(t *testing.T) {
	c := connect(t)
	dir := t.TempDir()
	want := noise(8 << 20)
	un, err := c.Unpack(within(t, 60*time.Second), dir, bytes.NewReader(oneFile(t, "a/prog", want)))
	if err != nil || !cmp.Equal(un, wire.Unpacked{Files: 1, Bytes: 8 << 20}) {
		t.Fatalf("Unpack = %+v, %v", un, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/prog")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("unpacked: %d bytes that differ, %v", len(got), err)
	}
	var out bytes.Buffer
	pk, err := c.Pack(within(t, 60*time.Second), wire.PackParams{Dir: dir, Paths: []string{"a/prog", "none"}, Max: 8 << 20}, &out)
	if err != nil || !cmp.Equal(pk, wire.Packed{Files: 1, Bytes: 8 << 20, Missing: 1}) {
		t.Fatalf("Pack = %+v, %v", pk, err)
	}
	r := tar.NewReader(&out)
	h, err := r.Next()
	if err != nil || h.Name != "a/prog" || h.Mode != 0o755 {
		t.Fatalf("archive: %+v, %v", h, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("packed: %d bytes that differ, %v", len(got), err)
	}
}

func TestUnpackErrors(t *testing.T) {
	c := connect(t)
	whole := oneFile(t, "f", noise(3<<20))
	broken := errors.New("broken disk")
	_, err := c.Unpack(within(t, 30*time.Second), t.TempDir(), io.MultiReader(bytes.NewReader(whole[:2<<20]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("Unpack = %v, want the reader's error", err)
	}
	// The guest refuses early, and the rest is not sent.
	var g *GuestError
	_, err = c.Unpack(within(t, 30*time.Second), t.TempDir(), io.MultiReader(bytes.NewReader(oneFile(t, "../f", nil)[:1024]), bytes.NewReader(whole)))
	if !errors.As(err, &g) || !strings.Contains(g.Msg, "leads out") {
		t.Errorf("Unpack = %v, want the guest's refusal", err)
	}
	if _, err = c.Pack(within(t, 30*time.Second), wire.PackParams{Dir: "/", Paths: []string{"../f"}, Max: 1}, io.Discard); !errors.As(err, &g) {
		t.Errorf("Pack = %v, want a GuestError", err)
	}
	// A blocked reader does not delay the return after a deadline.
	pr, pw := io.Pipe()
	defer pw.Close()
	ctx := within(t, 300*time.Millisecond)
	if _, err := c.Unpack(ctx, t.TempDir(), pr); err == nil || ctx.Err() == nil {
		t.Errorf("Unpack of a reader that blocks = %v, want the deadline", err)
	}
	if _, err := c.Stat(within(t, 20*time.Second)); err != nil {
		t.Errorf("Stat afterwards = %v", err)
	}
}

func TestResume(t *testing.T) {
	p, c := newPuppet(t, nil)
	answer := func(h wire.Hello) (wire.Hello, error) {
		go func() {
			f := <-p.reqs
			v, err := wire.Marshal(h)
			if err != nil {
				t.Error(err)
			}
			p.Send(wire.KindResult, f.Chan, wire.Result{Value: v})
		}()
		return c.Resume(within(t, 10*time.Second), wire.ResumeParams{UnixNano: 1, Entropy: make([]byte, 32)})
	}
	// No Hello frame came before: the guest is older than this host.
	h, err := answer(wire.Hello{Version: wire.Version, Release: "6.12", Transport: "uart", HelloSec: 7})
	if err != nil || h.Release != "6.12" || h.HelloSec != 7 {
		t.Errorf("Resume = %+v, %v", h, err)
	}
	if _, err := answer(wire.Hello{Version: wire.Version + 1}); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("Resume of another version = %v", err)
	}
	var g *GuestError
	go func() {
		f := <-p.reqs
		p.Send(wire.KindResult, f.Chan, wire.Result{Err: "no clock"})
	}()
	if _, err := c.Resume(within(t, 10*time.Second), wire.ResumeParams{}); !errors.As(err, &g) {
		t.Errorf("Resume = %v, want a GuestError", err)
	}
	// A Hello now is not the one that was missed.
	call, err := c.Start(wire.OpExec, sh("x"))
	if err != nil {
		t.Fatal(err)
	}
	p.Send(wire.KindHello, 0, wire.Hello{Version: wire.Version})
	if err := call.Wait(within(t, 10*time.Second), nil); err == nil || !strings.Contains(err.Error(), "the guest's agent said hello again") {
		t.Errorf("Wait after a hello = %v, want that", err)
	}
}
