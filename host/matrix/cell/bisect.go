package cell

import (
	"context"
	"fmt"
	"slices"
	"time"

	"labctl/host/lab/judge"
	"labctl/host/matrix"
	"labctl/host/matrix/bisect"
	"labctl/host/matrix/schedule"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Point is one check or claim of a lab, which is looked at on several kernels.
type Point struct {
	Lab, ID string
	Claim   bool
}

func (p Point) String() string { return p.Lab + "/" + p.ID }

// Usual is the verdict that it is thought to have on the oldest kernel.
func (p Point) Usual() string {
	if p.Claim {
		return string(judge.Confirmed)
	}
	return string(judge.Pass)
}

// Step is what a kernel showed of a Point.
type Step struct {
	Kernel  string `json:"kernel"`            // as --kernel takes it
	Release string `json:"release,omitempty"` // that was booted
	// Verdict is empty if the kernel was not run.
	Verdict string `json:"verdict,omitempty"`
	// Told says that the verdict tells something: the lab came to its end, and the
	// point applies there.
	Told   bool   `json:"told"`
	Seen   string `json:"seen,omitempty"` // evidence, or why nothing can be told
	Record string `json:"record,omitempty"`
}

// StepOf is what the result of a lab says of a point.
func StepOf(res *matrix.Result, p Point) Step {
	s := Step{Kernel: res.Cell.Kernel, Release: res.Kernel.Release, Verdict: string(res.Status), Seen: res.Reason, Record: res.Record}
	list := res.Checks
	if p.Claim {
		list = res.Claims
	}
	i := slices.IndexFunc(list, func(c matrix.Check) bool { return c.ID == p.ID })
	if i < 0 || res.Status.Broken() {
		return s
	}
	s.Verdict, s.Seen = list[i].Verdict, list[i].Seen
	switch judge.Verdict(s.Verdict) {
	case judge.Pass, judge.Fail, judge.Confirmed, judge.Refuted, judge.Depends:
		s.Told = true
	}
	return s
}

// Bisection is where a point changes over kernels.
type Bisection struct {
	Point  string `json:"point"`
	Target string `json:"target"`
	Runs   int    `json:"runs"`
	Steps  []Step `json:"kernels"` // in their order, those that were not run as well
	// From and To are the kernels between which it changes; empty if it does not.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Dir  string `json:"-"` // of the records
}

// Bisect runs a lab on as few kernels of a plan as tell between which two of them a
// point changes. The plan is that lab on each kernel, from old to new; old is the
// verdict on the oldest, as far as is known. Its directory is a matrix of what was run.
func (r *Runner) Bisect(ctx context.Context, o Options, p Point, old string) (*Bisection, error) {
	all := &matrix.Results{Name: o.Name, Labctl: r.Env.Version, Started: time.Now().UTC(), CPUs: 1, Plan: o.Plan}
	dir, done, err := directory(&o, all)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	r.Record = dir.Record
	b := &Bisection{Point: p.String(), Target: o.Plan[0].Target, Dir: dir.Path}
	for _, c := range o.Plan {
		b.Steps = append(b.Steps, Step{Kernel: c.Kernel})
	}
	search := bisect.New(len(o.Plan), old)
	saw := func(i int, res *matrix.Result) {
		b.Steps[i] = StepOf(res, p)
		verdict := ""
		if b.Steps[i].Told {
			verdict = b.Steps[i].Verdict
		}
		search.Saw(i, verdict)
		all.Results = append(all.Results, *res)
		all.CPUSeconds += res.CPUSeconds
	}
	for i := range done {
		if at := slices.IndexFunc(o.Plan, done[i].Cell.Equal); !done[i].Status.Broken() {
			saw(at, &done[i])
		}
	}
	for {
		i, ok := search.Next()
		if !ok {
			break
		}
		so := schedule.Options{Budget: schedule.Host(1), Retries: o.Retries, Keep: dir.Keep}
		stop := func() {}
		if o.Watch != nil {
			so.Tell, stop = o.Watch(1, 0)
		}
		ran, rerr := r.Do(ctx, o.Plan[i:i+1], so)
		stop()
		if err = rerr; err != nil {
			break
		}
		saw(i, &ran[0])
		b.Runs++
		if r.Env.Say != nil {
			r.Env.Say(fmt.Sprintf("%s on %s: %s", p, o.Plan[i].Kernel, text.Line(b.Steps[i].Verdict, 60)))
		}
	}
	all.Seconds = time.Since(all.Started).Seconds()
	all.Results = matrix.Sorted(o.Plan, all.Results)
	all.Plan = nil
	for _, res := range all.Results {
		all.Plan = append(all.Plan, res.Cell)
	}
	if len(all.Plan) > 0 {
		if werr := r.leave(dir.Path, all); werr != nil && err == nil {
			err = werr
		}
	}
	if from, to, ok := search.Found(); ok {
		b.From, b.To = o.Plan[from].Kernel, o.Plan[to].Kernel
	}
	if err == nil && !slices.ContainsFunc(b.Steps, func(s Step) bool { return s.Told }) {
		err = outcome.As(all.Worst(), fmt.Errorf("no kernel shows %s: %s", p, text.Line(b.why(), 300)))
		if !all.Worst().Failed() {
			err = outcome.Inputf("%s applies to none of these kernels: %s", p, text.Line(b.why(), 300))
		}
	}
	return b, err
}

// why is why the first kernel that was run tells nothing.
func (b *Bisection) why() string {
	for _, s := range b.Steps {
		if s.Verdict != "" {
			return fmt.Sprintf("on %s it is %s: %s", s.Kernel, s.Verdict, s.Seen)
		}
	}
	return "none was run"
}
