package trace

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/trace/collect"
	"labctl/host/trace/plan"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Run records while program runs in v, whose kernel is k. What the capture
// took goes into plan and t. The program's own error comes back beside what was
// recorded until then; the Result is nil when nothing was, and has else to be
// closed. live is shown the trace as it comes, nil for nobody.
func Run(ctx context.Context, v *vm.VM, k *kernel.Kernel, plan *plan.Plan, t *record.Trace, sleepers bool, live collect.Follower, program func() (wire.ExecResult, error)) (*collect.Result, error) {
	plan.Params.Live = live != nil
	rec, err := collect.Follow(ctx, v.Agent(), k, plan.Params, live)
	if err != nil {
		return nil, err
	}
	plan.Took(rec.Armed)
	t.Lines, t.Armed, t.PIDOnly = plan.Lines, &rec.Armed, plan.Params.PIDOnly

	var look *watch
	if sleepers {
		look = startWatch(ctx, v.Agent())
	}
	exit, perr := program()
	if perr == nil {
		t.Exit = &exit
	}
	if look != nil {
		var serr error
		if t.Sleepers, serr = look.stop(); serr != nil && perr == nil {
			perr = serr
		}
	}
	res, err := rec.Stop(ctx)
	if res != nil {
		readHists(t, res.Hists)
		t.Truncated, t.Left = res.Stopped.Truncated, res.Stopped.Left
		for _, c := range res.Stopped.CPUs {
			t.CPUs = append(t.CPUs, record.TraceCPU{CPU: c.CPU, Bytes: c.Bytes, Lost: c.Lost()})
		}
	}
	return res, errors.Join(perr, err)
}

// watch looks at sleeping tasks over and over.
type watch struct {
	quit, done chan struct{}
	once       sync.Once
	all        places
	err        error
}

// between is the pause between two looks, which take the guest a few
// milliseconds for each task.
const between = 100 * time.Millisecond

func startWatch(ctx context.Context, c *agent.Client) *watch {
	w := &watch{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			// The last look is after the program's end, so that there is one.
			last := false
			select {
			case <-w.quit:
				last = true
			case <-time.After(between):
			}
			if !last || w.all.samples == 0 {
				if w.err = w.all.look(ctx, c); w.err != nil {
					w.err = fmt.Errorf("look at sleeping tasks: %w", w.err)
					return
				}
			}
			if last {
				return
			}
		}
	}()
	return w
}

func (w *watch) stop() (*record.Sleepers, error) {
	w.once.Do(func() { close(w.quit) })
	<-w.done
	return w.all.sleepers(), w.err
}
