// Package serve is the page of labctl serve: lessons, runs of labs, exercises that are
// graded at every save, the gradebook of a class, and a live machine, whose tasks, stacks
// and page tables are read from outside while a terminal works in it.
//
//	guard     who is let in: Host, Origin, token, cookie
//	hub       the open tabs, and what each is told
//	page      pages, from templates
//	run       labs that are run
//	machine   the live machine; live: what is seen of it from outside; term: terminals
//	exercise  a learner's folder, graded when it changes; hints, answers
//	class     the gradebook of a class that is graded, as it fills
//
// Everything that comes from a browser is bounded and checked; everything that comes from
// a guest or a learner is shown as text.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/session"
)

// Options are a page.
type Options struct {
	Env  session.Env
	Spec machine.Spec // of the machines that labs, exercises and the live view run in
	In   string       // the machine to show that another labctl keeps; empty: one of its own
	Labs fs.FS
	Lang string // to begin with
	Port int    // 0: one that is free
	// Dir is where learners' folders are, at any depth.
	Dir string
	// Class is the directory of a class that is graded, with --out or in labctl-out.
	Class string
	// Progress is where a learner's progress is kept.
	Progress *progress.Store
	// Ready gets the link.
	Ready func(link string) error
}

// Server is a page that is served.
type Server struct {
	o      Options
	ctx    context.Context
	guard  *guard
	hub    *hub
	labs   map[string]*lab.Lab
	order  []*lab.Lab
	broken []error
	root   *os.Root

	live  *live
	terms terminals
	runs  runs
	work  exercises
	class *class

	wg sync.WaitGroup // of all that goes on beside requests
}

// Serve serves the page until ctx ends. Then all that it has started is ended.
func Serve(ctx context.Context, o Options) error {
	s, err := newServer(ctx, o)
	if err != nil {
		return err
	}
	defer s.root.Close()
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", o.Port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return outcome.Inputf("--port %d is in use; leave it out for a free one", o.Port)
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("--port %d: %w", o.Port, err))
	}
	return s.serve(ctx, l)
}

// serve serves the page on a listener, which it closes.
func (s *Server) serve(ctx context.Context, l net.Listener) (err error) {
	defer l.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.start(ctx, l.Addr())
	h := &http.Server{
		Handler:           s.guard.wrap(s.routes()),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // a browser that went away is no news
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	if s.o.Ready != nil {
		err = s.o.Ready(s.guard.link())
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-served:
		}
	}
	cancel()
	h.Close()
	s.live.wg.Wait()
	s.terms.wg.Wait()
	s.wg.Wait()
	return outcome.Default(outcome.HostLacks, err)
}

func newServer(ctx context.Context, o Options) (*Server, error) {
	set, err := lab.Load(o.Labs)
	if err != nil {
		return nil, err
	}
	if err := checkMachine(ctx, o); err != nil {
		return nil, err
	}
	s := &Server{o: o, hub: newHub(), labs: map[string]*lab.Lab{}, order: set.Labs, broken: set.Broken}
	for _, l := range set.Labs {
		s.labs[l.ID] = l
	}
	s.live = &live{s: s, state: machineState{State: "none", Own: o.In == ""}}
	s.terms.all = map[string]*terminal{}
	s.runs.all = map[string]*runState{}
	s.work.all = map[string]*exercise{}
	if _, err := o.Progress.Read(); err != nil {
		return nil, err
	}
	if o.Class != "" {
		if s.class, err = openClass(s, o.Class); err != nil {
			return nil, err
		}
	}
	if s.root, err = os.OpenRoot(o.Dir); err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	return s, nil
}

// start begins what goes on beside requests.
func (s *Server) start(ctx context.Context, addr net.Addr) {
	s.ctx, s.guard = ctx, newGuard(addr)
	s.wg.Go(s.work.watch(s))
	if s.o.In != "" { // it runs already
		s.live.start()
	}
	if s.class != nil {
		s.wg.Go(func() { s.class.watch(ctx) })
	}
}
