// Package look reads from outside the guest what a lab asks for at the points of a step.
//
// A program marks a point by a line of its output, wire.Look, and waits for a line of
// input, which it gets when the guest's memory was read. The mark is no evidence: what is
// judged is what was read, of tasks that came to be in the step. Other points nobody marks:
// that a task sleeps in a function, or comes to one, is seen from outside.
package look

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/task"
	"labctl/host/vm"
)

// Bounds of one step.
const (
	maxLooks    = 64 // beyond which a program is let go on without a look
	maxReadings = 256
)

// settle is how long a task is waited for to go to sleep; vm.Patient scales it. pause is
// between two looks at whether it has.
const (
	settle = 10 * time.Second
	pause  = 50 * time.Millisecond
)

// Watcher looks at one step.
type Watcher struct {
	v      *vm.VM
	g      *outside.Guest
	points []lab.Point
	before map[key]bool // the tasks that were there before the step
	blind  error        // the kernel's structures are not known: that is the error of every look

	mu    sync.Mutex
	looks []result.Look

	ctx     context.Context
	cancel  context.CancelFunc
	pollers sync.WaitGroup

	turn sync.Mutex // of who has the guest stopped
	trap *armed     // waits for tasks that come to functions; nil when none does
	left []int      // by point, how often to look where a function is reached
}

// key is a task. Its number alone may be used again.
type key struct {
	addr uint64
	tid  int
}

// Begin opens the guest's memory before a step. End must follow when there is no error.
func Begin(ctx context.Context, v *vm.VM, k *kernel.Kernel, points []lab.Point) (*Watcher, error) {
	known, keep := outside.Known(v.Template())
	g, err := outside.Open(ctx, v, k, known)
	if err != nil {
		return nil, fmt.Errorf("look from outside: %w", err)
	}
	if known == nil || *known != g.Anchor() {
		keep(g.Anchor())
	}
	w := &Watcher{v: v, g: g, points: points, before: map[key]bool{}, left: make([]int, len(points))}
	err = g.Stopped(ctx, func() error {
		tasks, err := task.Read(g.Kernel, nil)
		if err != nil {
			return err
		}
		for _, t := range tasks.List {
			w.before[key{t.Addr, t.TID}] = true
		}
		return nil
	})
	var untyped *kern.NoTypesError
	if errors.As(err, &untyped) {
		w.blind = untyped // what the program shows from inside is worth a run all the same
	} else if err != nil {
		g.Close()
		return nil, fmt.Errorf("look from outside: %w", err)
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.arm()
	for i := range points {
		p := &points[i]
		switch {
		case len(p.SleepsIn) == 0:
		case w.blind != nil:
			w.keep(result.Look{At: p.At, Error: w.blind.Error()})
		default:
			w.pollers.Go(func() { w.poll(p) })
		}
	}
	return w, nil
}

// End gives what was read, in its order. Calling it again does nothing.
func (w *Watcher) End() []result.Look {
	w.cancel()
	w.pollers.Wait()
	w.disarm()
	if w.g != nil {
		w.g.Close()
		w.g = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks
}

// keep adds a look, unless there are too many.
func (w *Watcher) keep(l result.Look) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.looks) < maxLooks {
		w.looks = append(w.looks, l)
	}
}

func (w *Watcher) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.looks) >= maxLooks
}

// mark does what a line of the program's asks for.
func (w *Watcher) mark(line string) {
	said, err := wire.ParseLook(line)
	if err != nil {
		w.keep(result.Look{At: said.Name, Error: err.Error()})
		return
	}
	i := slices.IndexFunc(w.points, func(p lab.Point) bool { return p.At == said.Name && p.Marked() })
	if i < 0 || w.full() {
		return
	}
	p := &w.points[i]
	l := result.Look{At: p.At, Said: said.Said}
	if w.blind != nil {
		l.Error = w.blind.Error()
		w.keep(l)
		return
	}
	defer w.alone()()
	ctx, cancel := context.WithTimeout(w.ctx, w.v.Patient(settle))
	defer cancel()
	var seen sleepers
	for {
		var awake string
		err := w.g.Stopped(ctx, func() error {
			tasks, err := w.g.Tasks(ctx)
			if err != nil {
				return err
			}
			if awake = seen.awake(tasks, p.Asleep, said.Said); awake == "" {
				w.read(&l, p, tasks)
			}
			return nil
		})
		if err == nil && awake == "" {
			break
		}
		if err == nil {
			err = w.wait(ctx)
		}
		if err != nil {
			l.Error = err.Error()
			if awake != "" && errors.Is(err, context.DeadlineExceeded) {
				l.Error = awake
			}
			break
		}
	}
	w.keep(l)
}

func (w *Watcher) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// sleepers tells tasks that have gone to sleep from those that are about to: a task sleeps
// when it has not run between two looks.
type sleepers struct{ last map[key]uint64 }

// awake says which of the named tasks does not sleep, "" when all do.
func (s *sleepers) awake(tasks *task.Tasks, names []string, said map[string][]int64) string {
	now := map[key]uint64{}
	defer func() { s.last = now }()
	why := ""
	for _, name := range names {
		tids := tidsOf(name, said)
		if len(tids) == 0 {
			return fmt.Sprintf("the program's mark does not say what task %s is", name)
		}
		for _, tid := range tids {
			t := tasks.Find(int(tid))
			if t == nil {
				why = fmt.Sprintf("there is no task %d, %s", tid, name)
				continue
			}
			k := key{t.Addr, t.TID}
			now[k] = t.Switches
			if n, ok := s.last[k]; !asleep(t) || !ok || n != t.Switches {
				why = fmt.Sprintf("task %d, %s, does not go to sleep", tid, name)
			}
		}
	}
	return why
}

func asleep(t *task.Task) bool { return !t.OnCPU && t.State != "R" }

// own reports whether a task came to be in the step, and is not the kernel's.
func (w *Watcher) own(t *task.Task) bool { return !t.Kernel && !w.before[key{t.Addr, t.TID}] }

// poll looks until a task of the program sleeps where the point wants it.
func (w *Watcher) poll(p *lab.Point) {
	for w.wait(w.ctx) == nil {
		if len(w.there(p, func() (*task.Tasks, error) { return task.Read(w.g.Kernel, nil) })) == 0 {
			continue
		}
		done := false
		others := w.alone()
		_ = w.g.Stopped(w.ctx, func() error { // an error ends the context, or passes
			var tasks *task.Tasks
			tids := w.there(p, func() (_ *task.Tasks, err error) { tasks, err = w.g.Tasks(w.ctx); return tasks, err })
			if len(tids) > 0 {
				l := result.Look{At: p.At, Said: map[string][]int64{lab.SleeperName: tids}}
				w.read(&l, p, tasks)
				w.keep(l)
				done = true
			}
			return nil
		})
		others()
		if done {
			return
		}
	}
}

// there are the program's tasks that sleep where the point wants them.
func (w *Watcher) there(p *lab.Point, read func() (*task.Tasks, error)) (tids []int64) {
	tasks, err := read()
	if err != nil {
		return nil // torn: the next look may do
	}
	for i := range tasks.List {
		t := &tasks.List[i]
		if !w.own(t) || !asleep(t) {
			continue
		}
		s, err := tasks.Stack(t)
		if err != nil {
			continue
		}
		for _, f := range s.Frames {
			if slices.Contains(p.SleepsIn, f.Base()) {
				tids = append(tids, int64(t.TID))
				break
			}
		}
	}
	return tids
}

// tidsOf are the numbers of the tasks of a name.
func tidsOf(name string, said map[string][]int64) []int64 {
	if tid, ok := lab.KnownTasks[name]; ok {
		return []int64{tid}
	}
	return said[name]
}

// Stdout returns what the program's standard output is written to: all but the marks goes
// on to out. Each mark is answered on the program's standard input, Stdin.
func (w *Watcher) Stdout(out io.Writer) (*Marks, io.Reader) {
	m := &Marks{w: w, out: out, answers: make(chan struct{}, maxLooks*4)}
	return m, answers{w.ctx, m.answers}
}

// Marks takes marks out of a program's output.
type Marks struct {
	w       *Watcher
	out     io.Writer
	line    []byte // what may be the beginning of a mark
	in      bool   // within a line that is none
	answers chan struct{}
}

func (m *Marks) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		part := p
		if end > 0 {
			part = p[:end]
		}
		p = p[len(part):]
		if m.in {
			m.in = end == 0
			if _, err := m.out.Write(part); err != nil {
				return 0, err
			}
			continue
		}
		m.line = append(m.line, part...)
		if end == 0 && len(m.line) <= wire.MaxLookLine && maybeLook(m.line) {
			continue
		}
		line := m.line
		m.line, m.in = nil, end == 0
		if end > 0 && len(line) <= wire.MaxLookLine && wire.IsLook(string(line)) {
			m.w.mark(string(bytes.TrimRight(line, "\r\n")))
			select {
			case m.answers <- struct{}{}:
			default: // it asks without waiting
			}
			continue
		}
		if _, err := m.out.Write(line); err != nil {
			return 0, err
		}
	}
	return all, nil
}

// Flush writes what is left of a line without an end.
func (m *Marks) Flush() {
	if len(m.line) > 0 {
		_, _ = m.out.Write(m.line) // to memory
		m.line = nil
	}
}

// maybeLook reports whether a line that has not ended may become a mark.
func maybeLook(line []byte) bool {
	return wire.IsLook(string(line)) || len(line) < len("@look ") && bytes.HasPrefix([]byte("@look "), line)
}

// answers is an endless input that has a line for each mark.
type answers struct {
	ctx context.Context
	ch  <-chan struct{}
}

func (a answers) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	select {
	case <-a.ch:
		p[0] = '\n'
		return 1, nil
	case <-a.ctx.Done():
		return 0, io.EOF
	}
}
