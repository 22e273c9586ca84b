// Package schedule runs the cells of a matrix, as many at a time as the host has CPUs
// and memory for. What runs one is handed to it.
package schedule

import (
	"context"
	"slices"
	"time"

	"labctl/host/matrix"
	"labctl/host/usage"
)

// Job is a cell and what it takes of the host while it runs.
type Job struct {
	Cell     matrix.Cell
	CPUs     int // that it keeps busy
	MemoryMB int
	// Machine names what it starts from. Of several jobs of one Machine the first
	// goes ahead until it is Warm: what it makes, the others take. Empty: nothing is
	// shared.
	Machine string
}

// Budget is what may be taken at once. 0 is no limit.
type Budget struct {
	CPUs, MemoryMB int
	Jobs           int
}

// Options say how jobs are run.
type Options struct {
	Budget  Budget
	Retries int // of a cell that has failed
	// Run runs a cell once and fills in what became of it; Cell, Tries, Flaky and
	// the times are Do's. warm, which may be called from anywhere, says that others
	// can start from what this one has made. Of a context that has ended nothing is
	// believed but a pass.
	Run func(ctx context.Context, c matrix.Cell, warm func()) matrix.Result
	// Keep stores a result; its error ends the run.
	Keep func(*matrix.Result) error
	// Tell, when set, hears of every start and end, one at a time.
	Tell func(Event)
}

// Event is a change in a run.
type Event struct {
	Running []matrix.Cell  // now, in the order of their starts
	Started *matrix.Cell   // nil, or
	Ended   *matrix.Result // nil
}

// Do runs jobs, in their order as far as the budget lets it, and returns the results
// of those that ended. One that is too large for the budget runs alone. The error
// is that of the context or of Keep.
func Do(ctx context.Context, jobs []Job, o Options) ([]matrix.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pool{
		ctx: ctx, o: o, waiting: slices.Clone(jobs),
		machines: map[string]machine{}, ended: make(chan *active), warm: make(chan *active), self: usage.Self(),
	}
	for {
		for ctx.Err() == nil && p.startNext() {
		}
		if len(p.running) == 0 {
			return p.results, context.Cause(ctx)
		}
		select {
		case a := <-p.warm:
			p.machines[a.job.Machine] = warmed
		case a := <-p.ended:
			if err := p.end(a); err != nil {
				cancel(err)
			}
		}
	}
}

type machine int

const (
	cold    machine = iota
	warming         // one is at it
	warmed
)

type pool struct {
	ctx      context.Context
	o        Options
	waiting  []Job
	running  []*active
	machines map[string]machine
	results  []matrix.Result
	ended    chan *active
	warm     chan *active
	self     time.Duration // usage.Self at the last change
}

// active is a job that runs.
type active struct {
	job    Job
	meter  usage.Meter
	result matrix.Result
	valid  bool
}

// startNext starts the first job that can be started.
func (p *pool) startNext() bool {
	i := slices.IndexFunc(p.waiting, p.fits)
	if i < 0 {
		return false
	}
	a := &active{job: p.waiting[i]}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.share()
	p.running = append(p.running, a)
	if m := a.job.Machine; m != "" && p.machines[m] == cold {
		p.machines[m] = warming
	}
	p.tell(Event{Started: &a.job.Cell})
	over := make(chan struct{})
	go func() {
		a.run(p.ctx, p.o, func() {
			select {
			case p.warm <- a:
			case <-over: // too late to matter
			}
		})
		close(over)
		p.ended <- a
	}()
	return true
}

func (p *pool) fits(j Job) bool {
	if j.Machine != "" && p.machines[j.Machine] == warming {
		return false
	}
	if len(p.running) == 0 {
		return true
	}
	cpus, memory := j.CPUs, j.MemoryMB
	for _, a := range p.running {
		cpus, memory = cpus+a.job.CPUs, memory+a.job.MemoryMB
	}
	within := func(n, limit int) bool { return limit == 0 || n <= limit }
	return within(cpus, p.o.Budget.CPUs) && within(memory, p.o.Budget.MemoryMB) && within(len(p.running)+1, p.o.Budget.Jobs)
}

// share divides what labctl itself has taken since the last change among those
// that ran.
func (p *pool) share() {
	now := usage.Self()
	for _, a := range p.running {
		a.meter.Count((now - p.self) / time.Duration(len(p.running)))
	}
	p.self = now
}

func (p *pool) end(a *active) error {
	p.share()
	p.running = slices.DeleteFunc(p.running, func(o *active) bool { return o == a })
	if p.machines[a.job.Machine] == warming {
		p.machines[a.job.Machine] = cold // it came to nothing: the next one tries
		if a.valid && !a.result.Status.Failed() {
			p.machines[a.job.Machine] = warmed
		}
	}
	if !a.valid {
		return nil
	}
	a.result.CPUSeconds = a.meter.Total().Seconds()
	if err := p.o.Keep(&a.result); err != nil {
		return err
	}
	p.results = append(p.results, a.result)
	p.tell(Event{Ended: &a.result})
	return nil
}

func (p *pool) tell(e Event) {
	if p.o.Tell == nil {
		return
	}
	for _, a := range p.running {
		e.Running = append(e.Running, a.job.Cell)
	}
	p.o.Tell(e)
}

// run tries the job, again as often as is asked for.
func (a *active) run(ctx context.Context, o Options, warm func()) {
	ctx = usage.With(ctx, &a.meter)
	start := time.Now()
	bad := false
	for try := 1; ; try++ {
		r := o.Run(ctx, a.job.Cell, warm)
		r.Cell, r.Tries, r.Started = a.job.Cell, try, start.UTC()
		r.Flaky = bad && !r.Status.Failed()
		r.Seconds = time.Since(start).Seconds()
		a.result, a.valid = r, ctx.Err() == nil || !r.Status.Failed()
		if !r.Status.Failed() || try > o.Retries || ctx.Err() != nil {
			return
		}
		bad = true
	}
}
