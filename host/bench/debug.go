package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"labctl/guest/wire"
	"labctl/host/debug"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outside"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// hitBound is what a hit may take until its frame is printed, in seconds.
const hitBound = 0.15

// debug measures the time from a breakpoint's hit to the printed stack.
func (b *bench) debug() error { return b.onEach(b.hits) }

// hits stops a machine that forks all the time at kernel_clone: in sessions of their own,
// as labctl debug has them, once in each, and in one session again and again.
func (b *bench) hits(arch string, m *machine.Machine, v *vm.VM) error {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	forking := make(chan struct{})
	go func() { // until the machine ends
		defer close(forking)
		for ctx.Err() == nil {
			_, _ = v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "fork"}}, agent.IO{})
		}
	}()
	first := hitRow(arch + ": from a session's first hit to the printed stack")
	for range b.pairs {
		if err := b.session(ctx, m, v, &first, 1); err != nil {
			return err
		}
	}
	later := hitRow(arch + ": from a later hit to the printed stack")
	err := b.session(ctx, m, v, &later, 4*b.pairs+1)
	if err != nil {
		return err
	}
	later.got, later.base, later.ratios = later.got[1:], later.base[1:], later.ratios[1:]
	for _, r := range []row{first, later} {
		b.table.add(r)
		b.say("  %s: %s", r.what, r.got.text("s", 4))
	}
	cancel()
	<-forking
	return nil
}

func hitRow(what string) row {
	return row{what: what, baseline: fmt.Sprintf("the bound, %v s", hitBound), bound: "1.00", unit: "s", digits: 4}
}

// session debugs the machine for some hits. The kernel's symbols and types are read anew
// for it.
func (b *bench) session(ctx context.Context, m *machine.Machine, v *vm.VM, r *row, hits int) (err error) {
	cache, err := kernel.Open("")
	if err != nil {
		return err
	}
	image, err := cache.Find(m.Kernel.Ref, m.Kernel.Arch)
	if err != nil {
		return err
	}
	g, err := outside.Open(ctx, v, image, nil)
	if err != nil {
		return err
	}
	defer g.Close()
	w := &stopwatch{Inspector: v}
	s, err := debug.Open(ctx, w, g, debug.Options{Out: w})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Do(ctx, "break kernel_clone"); err != nil {
		return err
	}
	for range hits {
		w.printed = 0
		if err := s.Do(ctx, "go"); err != nil {
			return err
		}
		if w.printed == 0 {
			return errors.New("a stop was not printed")
		}
		took := w.printed.Seconds()
		r.got, r.base, r.ratios = append(r.got, took), append(r.base, hitBound), append(r.ratios, took/hitBound)
	}
	return nil
}

// stopwatch is a machine, and what a session prints on, that times from one to the other.
type stopwatch struct {
	vm.Inspector
	stopped time.Time
	printed time.Duration
}

func (w *stopwatch) GDB(ctx context.Context) (net.Conn, error) {
	conn, err := w.Inspector.GDB(ctx)
	return &watchedConn{conn, w}, err
}

// Write is for a session, whose requests are before it: no stop comes meanwhile.
func (w *stopwatch) Write(p []byte) (int, error) {
	w.printed = time.Since(w.stopped)
	return len(p), nil
}

type watchedConn struct {
	net.Conn
	w *stopwatch
}

// Read notes when a stop at a breakpoint comes.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte("T05")) {
		c.w.stopped = time.Now()
	}
	return n, err
}
