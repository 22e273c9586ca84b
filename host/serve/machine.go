package serve

import (
	"context"
	"fmt"
	"sync"
	"time"

	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/session"
	"labctl/host/text"
)

// machineState is what the page says of the live machine.
type machineState struct {
	State   string   `json:"state"` // "none", "starting", "up", "ended"
	Name    string   `json:"name,omitempty"`
	Kernel  string   `json:"kernel,omitempty"`
	Target  string   `json:"target,omitempty"`
	Own     bool     `json:"own"` // this labctl's, which may start and end it
	Line    string   `json:"line,omitempty"`
	Trouble string   `json:"trouble,omitempty"` // what it died of
	Stack   []string `json:"stack,omitempty"`   // of the crash
}

// live is the machine that the page shows: one of its own, or one that another labctl
// keeps.
type live struct {
	s  *Server
	wg sync.WaitGroup

	mu    sync.Mutex
	state machineState
	end   context.CancelFunc
}

func (l *live) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.State != "up" {
		return ""
	}
	return l.state.Name
}

func (l *live) get() machineState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *live) set(change func(*machineState)) {
	l.mu.Lock()
	change(&l.state)
	now := l.state
	l.mu.Unlock()
	l.s.hub.send("machine", now)
}

// start starts the machine, unless there is one.
func (l *live) start() {
	l.mu.Lock()
	if l.state.State == "starting" || l.state.State == "up" {
		l.mu.Unlock()
		return
	}
	ctx, end := context.WithCancel(l.s.ctx)
	l.state = machineState{State: "starting", Own: l.s.o.In == ""}
	l.end = end
	now := l.state
	l.mu.Unlock()
	l.s.hub.send("machine", now)
	l.wg.Go(func() {
		defer end()
		var err error
		var stack []string
		if l.s.o.In != "" {
			err = l.watch(ctx, l.s.o.In)
		} else {
			stack, err = l.keep(ctx)
		}
		l.set(func(m *machineState) {
			m.State, m.Line, m.Stack = "ended", "", stack
			if err != nil && ctx.Err() == nil {
				m.Trouble = text.Line(err.Error(), 400)
			}
		})
	})
}

// stop ends the machine, if it is this labctl's.
func (l *live) stop() {
	l.mu.Lock()
	end, own := l.end, l.state.Own
	l.mu.Unlock()
	if end != nil && own {
		end()
	}
}

// keep runs a machine of the page's own until ctx ends.
func (l *live) keep(ctx context.Context) (stack []string, err error) {
	name, err := freeName(ctx)
	if err != nil {
		return nil, err
	}
	env := l.s.o.Env
	env.Say = func(line string) {
		l.set(func(m *machineState) { m.Line = text.Line(line, 200) })
	}
	var run *session.Session
	watched := make(chan error, 1)
	err = session.Up(ctx, env, session.UpOptions{
		Options: session.Options{Name: "serve", Machine: name, Keep: session.KeepTrouble, Spec: l.s.o.Spec, FailOn: record.FailOnNone},
		Ready: func(s *session.Session, _ registry.Info) error {
			run = s
			go func() { watched <- l.watch(ctx, name) }()
			return nil
		},
	})
	if run != nil {
		werr := <-watched
		if err == nil && ctx.Err() == nil {
			err = werr
		}
		if len(run.Run.Reports) > 0 {
			r := run.Run.Reports[0]
			stack = append(stack, text.Line(r.Title, 200))
			if r.Stack != nil {
				for _, f := range r.Stack.Frames[:min(len(r.Stack.Frames), maxFrames)] {
					stack = append(stack, "  "+f.String())
				}
			}
		}
	}
	return stack, err
}

// freeName is a name for the page's machine that no other has.
func freeName(ctx context.Context) (string, error) {
	name := "serve"
	for i := 2; ; i++ {
		err := registry.CheckFree(ctx, name)
		if err == nil || i > 40 {
			return name, err
		}
		name = fmt.Sprintf("serve-%d", i)
	}
}

// endsSoon is how long after a look that failed the machine may be found to have ended.
const endsSoon = 5 * time.Second

// watch looks at a machine until it has ended, or ctx has. It returns what the guest
// died of.
func (l *live) watch(ctx context.Context, name string) error {
	m, err := registry.Find(ctx, name)
	if err != nil {
		return err
	}
	defer m.Close()
	l.set(func(s *machineState) {
		*s = machineState{State: "up", Name: m.Name, Kernel: m.Kernel.Release, Target: m.Target, Own: s.Own}
	})
	ended, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		w, err := l.s.openWatcher(ended, m)
		if err == nil {
			defer w.g.Close()
			err = w.run(ended)
		}
		if err == nil {
			return
		}
		select { // of a machine that is ending its end says more
		case <-ended.Done():
		case <-time.After(endsSoon):
			l.set(func(s *machineState) { s.Trouble = text.Line(err.Error(), 300) })
		}
	})
	err = m.Wait(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = &registry.EndedError{Name: m.Name}
	}
	return err
}

// checkMachine says early what is wrong with the machine that the user asks for.
func checkMachine(ctx context.Context, o Options) error {
	if o.In == "" {
		return machine.Settle(o.Env.Env, &o.Spec)
	}
	m, err := registry.Find(ctx, o.In)
	if err != nil {
		return err
	}
	return m.Close()
}
