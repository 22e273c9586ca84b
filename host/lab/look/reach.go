package look

import (
	"cmp"
	"context"
	"fmt"

	"labctl/host/debug"
	"labctl/host/lab"
	"labctl/host/lab/result"
)

// armed is a trap that is set.
type armed struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// arm has the guest stop where functions are reached that points wait for. Why that cannot
// be is the error of their looks.
func (w *Watcher) arm() {
	var waiting []*lab.Point
	var functions [][]string
	for i := range w.points {
		p := &w.points[i]
		if len(p.Reaches) == 0 || w.left[i] < 0 {
			continue
		}
		if w.left[i] == 0 {
			w.left[i] = cmp.Or(p.Times, 1)
		}
		if w.blind != nil {
			w.fail(p, w.blind)
			continue
		}
		waiting, functions = append(waiting, p), append(functions, p.Reaches)
	}
	if len(waiting) == 0 || w.ctx.Err() != nil {
		return
	}
	t, err := debug.Set(w.ctx, w.v, w.g, functions)
	if err != nil {
		for _, p := range waiting {
			w.fail(p, err)
		}
		return
	}
	for i, err := range t.Missing {
		if err != nil {
			w.fail(waiting[i], err)
		}
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.trap = &armed{cancel, make(chan struct{})}
	go func(done chan struct{}) {
		defer close(done)
		err := t.Run(ctx, func(ctx context.Context, h debug.Hit) (bool, error) {
			more := false
			for i, p := range waiting {
				for _, n := range h.Lists {
					if n == i && w.wants(p) {
						w.reached(ctx, p, h)
					}
				}
				more = more || w.wants(p)
			}
			return !more, nil
		})
		if err != nil && w.ctx.Err() == nil { // else the step has ended, or the guest has
			for _, p := range waiting {
				if w.wants(p) {
					w.fail(p, err)
				}
			}
		}
	}(w.trap.done)
}

// disarm undoes arm. A hit that is looked at is looked at to its end.
func (w *Watcher) disarm() {
	if w.trap != nil {
		w.trap.cancel()
		<-w.trap.done
		w.trap = nil
	}
}

// alone has the guest for one who is to stop it, with no trap set, until the function that
// it returns is called.
func (w *Watcher) alone() (end func()) {
	w.turn.Lock()
	w.disarm()
	return func() {
		w.arm()
		w.turn.Unlock()
	}
}

// index is a point's number.
func (w *Watcher) index(p *lab.Point) int {
	for i := range w.points {
		if p == &w.points[i] {
			return i
		}
	}
	panic("not a point of the step")
}

// wants reports whether a point is to be looked at again.
func (w *Watcher) wants(p *lab.Point) bool { return w.left[w.index(p)] > 0 }

// fail ends a point with an error as its look.
func (w *Watcher) fail(p *lab.Point, err error) {
	w.left[w.index(p)] = -1
	w.keep(result.Look{At: p.At, Error: err.Error()})
}

// reached looks at the guest as a task comes to a point's function, if it is a task of the
// program's.
func (w *Watcher) reached(ctx context.Context, p *lab.Point, h debug.Hit) {
	if w.before[key{h.Task, h.TID}] {
		return
	}
	tasks, err := w.g.Tasks(ctx)
	if err == nil {
		one := tasks.Find(h.TID)
		if one == nil || one.TID != h.TID {
			err = fmt.Errorf("the list of tasks lacks %d, which comes to %s", h.TID, h.Function)
		} else if !w.own(one) {
			return
		} else if leader := tasks.Find(one.PID); leader != nil && w.before[key{leader.Addr, leader.TID}] {
			return // a new thread of the agent's
		}
	}
	l := result.Look{At: p.At, Reached: h.Function, Said: map[string][]int64{lab.SleeperName: {int64(h.TID)}}}
	look := w.g.Look()
	for name, n := range p.Tasks {
		if err != nil {
			break
		}
		if n > len(h.Args) {
			err = fmt.Errorf("argument %d of %s is in no register", n, h.Function)
			break
		}
		o := look.Object("task_struct", h.Args[n-1])
		tid := o.Int("pid")
		if err = o.Err(); err == nil {
			l.Said[name] = []int64{tid}
		}
	}
	if err != nil {
		l.Error = err.Error()
	} else {
		w.read(&l, p, tasks)
	}
	w.keep(l)
	if i := w.index(p); w.left[i] == 1 {
		w.left[i] = -1
	} else {
		w.left[i]--
	}
}
