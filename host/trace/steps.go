package trace

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/trace/collect"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/trace/plan"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// Start plans what r asks for on the kernel k of v, and arms it. The plan says what
// became of each part. Collection.Stop must follow.
func Start(ctx context.Context, v *vm.VM, k *kernel.Kernel, r plan.Request) (*plan.Plan, *collect.Collection, error) {
	look, err := Look(ctx, v, k, r)
	if err != nil {
		return nil, nil, err
	}
	p, err := plan.Make(r, look)
	if err != nil {
		return nil, nil, err
	}
	c, err := collect.Start(ctx, v.Agent(), k, p.Params)
	if err != nil {
		return nil, nil, fmt.Errorf("arm the trace: %w", err)
	}
	p.Took(c.Armed)
	return p, c, nil
}

// Steps is programs that run one after another in one guest under one capture. A
// mark in the capture stands where each begins.
type Steps struct {
	v     *vm.VM
	c     *collect.Collection
	plan  *plan.Plan
	names []string
}

// Begin arms the capture, as Start does. End or Drop must follow.
func Begin(ctx context.Context, v *vm.VM, k *kernel.Kernel, r plan.Request) (*Steps, error) {
	p, c, err := Start(ctx, v, k, r)
	if err != nil {
		return nil, err
	}
	return &Steps{v: v, c: c, plan: p}, nil
}

// mark is what the agent leaves in the capture before the step of a number.
func mark(step int) string { return fmt.Sprintf("labctl step %d", step) }

// Exec runs a program as the next step, to its end. name is for errors.
func (s *Steps) Exec(ctx context.Context, name string, p wire.ExecParams, streams agent.IO) (wire.ExecResult, error) {
	p.Instance, p.Mark = s.plan.Params.Instance, mark(len(s.names))
	s.names = append(s.names, name)
	return s.v.Agent().Exec(ctx, p, streams)
}

// Drop gives the capture up. Nobody waits for a guest that may hang.
func (s *Steps) Drop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if res, _ := s.c.Stop(ctx); res != nil {
		res.Close()
	}
}

// Parted is a capture that was parted by the steps.
type Parted struct {
	Steps []Step // one for each Exec
	// Lost is how many events are known to be missing; of which step is not known.
	Lost    int64
	Damaged int64    // places that could not be read
	Damage  []string // the first of them

	res  *collect.Result
	used *used
}

// Step is what the capture has from one mark to the next, or to the step's end mark
// where it has one (wire.ExecParams.Watch).
type Step struct {
	Events    []event.Event       // at most maxStepEvents
	Unkept    int64               // events beyond those
	Creations []creation.Creation // joined from Events
	// Ended says that the end mark is there.
	Ended bool
	// NewTasks counts the events task_newtask up to the next step's mark.
	NewTasks int64
	// Strange are marks that labctl did not make, the first few of them.
	Strange []string
}

// maxStrange bounds Step.Strange.
const maxStrange = 4

// maxStepEvents bounds the events of one step that are held, each with its stack
// some two kilobytes.
const maxStepEvents = 50_000

// End stops the capture and reads it, as Part does. Close must follow when there is
// no error.
func (s *Steps) End(ctx context.Context) (*Parted, error) {
	res, err := s.c.Stop(ctx)
	if err == nil {
		var p *Parted
		if p, err = Part(res, s.names); err == nil {
			return p, nil
		}
	}
	if res != nil {
		err = errors.Join(err, res.Close())
	}
	return nil, fmt.Errorf("read the trace: %w", err)
}

// Part gives steps, which began in the order of their names, their events. An event
// belongs to the last step that had begun by then. A capture that was cut at its
// bound (plan.Request.Max) is an error: the last steps have too little of it.
func Part(res *collect.Result, names []string) (_ *Parted, err error) {
	defer outcome.OrElse(outcome.CheckFailed, &err) // it is not what the kernel should have written
	if why := res.Stopped.Truncated; why != "" {
		return nil, fmt.Errorf("it is cut short: %s", why)
	}
	r, err := NewReader(res.Capture)
	if err != nil {
		return nil, err
	}
	p := &Parted{Steps: make([]Step, len(names)), res: res, used: r.useSymbols()}
	at := -1
	for e := range r.Events() {
		if e.Format.System == "ftrace" { // a mark, or a stack whose event is gone
			said, err := e.String("buf")
			said = strings.TrimSpace(said)
			switch {
			case err != nil:
			case at+1 < len(names) && said == mark(at+1):
				at++
			case at < 0:
			case said == wire.EndMark(mark(at)) && !p.Steps[at].Ended:
				p.Steps[at].Ended = true
			case len(p.Steps[at].Strange) < maxStrange:
				p.Steps[at].Strange = append(p.Steps[at].Strange, text.Line(said, 80))
			}
			continue
		}
		if at < 0 {
			continue
		}
		step := &p.Steps[at]
		if e.Format.Name == "task_newtask" {
			step.NewTasks++
		}
		switch {
		case step.Ended: // somebody else's
		case len(step.Events) < maxStepEvents:
			step.Events = append(step.Events, r.Event(e))
		default:
			step.Unkept++
		}
	}
	p.Damaged, p.Damage = r.Damage()
	p.Lost = max(r.Lost(), res.Lost())
	if at+1 < len(names) && p.Lost+p.Damaged == 0 {
		return nil, fmt.Errorf("it has no mark of step %s", names[at+1])
	}
	for i := range p.Steps {
		step := &p.Steps[i]
		if step.Creations, err = creation.Join(step.Events); err != nil {
			return nil, fmt.Errorf("step %s: %w", names[i], err)
		}
	}
	return p, nil
}

// Armed is what the kernel took of what was asked for.
func (p *Parted) Armed() wire.CaptureArmed { return p.res.Armed }

// WriteFile keeps the capture as a trace.dat, with the symbols that its events have.
func (p *Parted) WriteFile(path string) error { return p.used.writeFile(path, p.res.Capture) }

// Close drops the pages.
func (p *Parted) Close() error { return p.res.Close() }
