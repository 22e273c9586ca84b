package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCredit()
		if n := c.Take(Window + 1); n != Window {
			t.Fatalf("first Take() = %d, want %d", n, Window)
		}
		got := make(chan int, 1)
		go func() { got <- c.Take(100) }()
		synctest.Wait()
		select {
		case n := <-got:
			t.Fatalf("Take() without credit = %d, want it to wait", n)
		default:
		}
		c.Grant(60)
		if n := <-got; n != 60 {
			t.Errorf("Take() = %d, want 60", n)
		}
		c.Grant(1 << 31)
		c.Grant(1 << 31)
		if n := c.Take(1 << 30); n != Window {
			t.Errorf("Take() after huge grants = %d, want %d", n, Window)
		}
		go func() { got <- c.Take(1) }()
		synctest.Wait()
		c.Close()
		if n := <-got; n != 0 {
			t.Errorf("Take() on a closed Credit = %d, want 0", n)
		}
	})
}

// Send a few windows through a Sender and a Receiver, joined by real frames.
func TestSenderReceiver(t *testing.T) {
	want := make([]byte, 5*Window+17)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	link, peer := io.Pipe()
	s := NewSender(NewWriter(peer), 3, Extra, 1000)
	r := NewReceiver(func(n uint32) error { s.Grant(n); return nil })
	var wg sync.WaitGroup
	wg.Go(func() {
		rd := NewReader(link, nil)
		for {
			f, err := rd.Read()
			if err == io.EOF {
				return
			}
			if err != nil || f.Chan != 3 || f.Stream != Extra || len(f.Payload) > 1000 {
				t.Errorf("Read() = %d/%d %d bytes, %v", f.Chan, f.Stream, len(f.Payload), err)
				return
			}
			if err := r.Push(f.Payload); err != nil {
				t.Errorf("Push() = %v", err)
			}
		}
	})
	wg.Go(func() {
		if n, err := s.Write(want); n != len(want) || err != nil {
			t.Errorf("Write() = %d, %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		peer.Close()
	})
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAll() = %d bytes, %v; want the %d that were sent", len(got), err, len(want))
	}
	wg.Wait()
}

func TestSenderChunk(t *testing.T) {
	for chunk, want := range map[int]int{-1: MaxPayload, 0: MaxPayload, 1: 1, MaxPayload - 1: MaxPayload - 1, MaxPayload: MaxPayload, MaxPayload + 1: MaxPayload} {
		if got := NewSender(nil, 1, Stdout, chunk).chunk; got != want {
			t.Errorf("NewSender(chunk %d) sends %d bytes a frame, want %d", chunk, got, want)
		}
	}
}

// TestReceiverMemory: however long the stream, and though the consumer is never
// done with all of it, no more than two windows are held.
func TestReceiverMemory(t *testing.T) {
	r := NewReceiver(func(uint32) error { return nil })
	r.Push([]byte{0})
	p := make([]byte, MaxPayload)
	for range 20 * Window / len(p) {
		if err := r.Push(p); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(r, p); n != len(p) || err != nil {
			t.Fatalf("Read() = %d, %v", n, err)
		}
	}
	if cap(r.buf) > 2*Window {
		t.Errorf("%d bytes are held, want at most %d", cap(r.buf), 2*Window)
	}
}

func TestReceiverGrants(t *testing.T) {
	var grants []uint32
	broken := errors.New("link broke")
	var fail error
	r := NewReceiver(func(n uint32) error { grants = append(grants, n); return fail })
	read := func(n int) error {
		if err := r.Push(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		_, err := r.Read(make([]byte, n))
		return err
	}
	for _, n := range []int{Window / 4, 1, Window/4 - 2, 1} {
		if err := read(n); err != nil {
			t.Fatal(err)
		}
	}
	if want := []uint32{Window / 4, Window / 4}; !slices.Equal(grants, want) {
		t.Errorf("granted %d, want %d", grants, want)
	}
	if fail = broken; read(Window/4) != broken {
		t.Error("Read hides that the link broke when it granted more")
	}
}

func TestReceiverOverrun(t *testing.T) {
	granted := 0
	r := NewReceiver(func(n uint32) error { granted += int(n); return nil })
	for range Window / MaxPayload {
		if err := r.Push(make([]byte, MaxPayload)); err != nil {
			t.Fatalf("Push within the window = %v", err)
		}
	}
	if err := r.Push([]byte{1}); !errors.Is(err, ErrOverrun) {
		t.Errorf("Push over the window = %v, want ErrOverrun", err)
	}
	// What was read but not granted does not count as free.
	r.Read(make([]byte, 10))
	if err := r.Push([]byte{1}); granted != 0 || !errors.Is(err, ErrOverrun) {
		t.Errorf("Push before the grant = %v with %d granted, want ErrOverrun", err, granted)
	}
	r.Read(make([]byte, Window/4))
	if err := r.Push([]byte{1}); granted == 0 || err != nil {
		t.Errorf("Push after a grant of %d = %v", granted, err)
	}
}

func TestReceiverEnd(t *testing.T) {
	r := NewReceiver(func(uint32) error { return nil })
	r.Push([]byte("last"))
	broken := errors.New("link broke")
	r.CloseWithError(broken)
	r.Push([]byte("late"))
	r.Push(nil)
	got, err := io.ReadAll(r)
	if string(got) != "last" || err != broken {
		t.Errorf("ReadAll() = %q, %v; want \"last\", %v", got, err, broken)
	}
}

func TestSenderAbort(t *testing.T) {
	s := NewSender(NewWriter(io.Discard), 1, Stdout, 0)
	done := make(chan error)
	go func() {
		_, err := s.Write(make([]byte, 2*Window))
		done <- err
	}()
	s.Abort()
	if err := <-done; err != io.ErrClosedPipe {
		t.Errorf("Write() after Abort = %v, want %v", err, io.ErrClosedPipe)
	}
}
