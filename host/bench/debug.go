package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"labctl/guest/wire"
	"labctl/host/debug"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outside"
	"labctl/host/record"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// hitBound is what a hit may take until its frame is printed, in seconds.
const hitBound = 0.15

// debug measures the time from a breakpoint's hit to the printed stack.
func (b *bench) debug() error {
	cache, err := kernel.Open("")
	if err != nil {
		return err
	}
	env := machine.Env{Cache: cache, Say: func(s string) { b.say("  %s", s) }}
	for _, arch := range b.arches {
		if err := b.hits(arch, env); err != nil {
			return err
		}
	}
	return nil
}

// hits stops a machine that forks all the time at kernel_clone.
func (b *bench) hits(arch string, env machine.Env) error {
	m, err := machine.Prepare(b.ctx, env, machine.Spec{Arch: arch, Kernel: b.kernel})
	if err != nil {
		return err
	}
	v, err := m.Boot(b.ctx, env, record.Dir{}, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	g, err := outside.Open(b.ctx, v, m.Kernel, nil)
	if err != nil {
		return err
	}
	defer g.Close()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	forking := make(chan struct{})
	go func() { // until the machine ends
		defer close(forking)
		for ctx.Err() == nil {
			_, _ = v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "fork"}}, agent.IO{})
		}
	}()
	w := &stopwatch{Inspector: v}
	s, err := debug.Open(ctx, w, g, debug.Options{Out: w})
	if err != nil {
		return err
	}
	if err := s.Do(ctx, "break kernel_clone"); err != nil {
		return err
	}
	r := row{what: arch + ": from a breakpoint's hit to the printed stack", baseline: fmt.Sprintf("the bound, %v s", hitBound), bound: "1.00", unit: "s", digits: 4}
	for range 4 * b.pairs {
		w.printed = 0
		if err := s.Do(ctx, "go"); err != nil {
			return err
		}
		if w.printed == 0 {
			return fmt.Errorf("%s: a stop was not printed", arch)
		}
		took := w.printed.Seconds()
		r.got, r.base, r.ratios = append(r.got, took), append(r.base, hitBound), append(r.ratios, took/hitBound)
	}
	b.table.add(r)
	b.say("  %s: %s", arch, r.got.text("s", 4))
	cancel()
	err = s.Close()
	<-forking
	return err
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
