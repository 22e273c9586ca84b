package serve

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/progress"
	"labctl/host/lab/result"
	"labctl/host/lab/runner"
	"labctl/host/lab/see"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/text"
	"labctl/host/view"
)

// maxRuns is how many labs may be run at a time: each takes a machine.
const maxRuns = 2

// runState is a run of a lab, as the page shows it.
type runState struct {
	Lab   string   `json:"lab"`
	State string   `json:"state"` // "waiting", "running", "done", "failed"
	Lines []string `json:"lines"`
	// Doing is what goes on in the machine: "step", with Step, the Nth Of the lab's, or
	// "trace", which is read when all steps have run. Decided are the checks that could be
	// judged before.
	Doing   string  `json:"doing,omitempty"`
	Step    string  `json:"step,omitempty"`
	N       int     `json:"n,omitempty"`
	Of      int     `json:"of,omitempty"`
	Decided []check `json:"decided,omitempty"`
	Report  *report `json:"report,omitempty"`
	Trouble string  `json:"trouble,omitempty"`
	Record  string  `json:"record,omitempty"`
	On      string  `json:"on,omitempty"`
	Views   string  `json:"views,omitempty"` // HTML, made by host/view

	end context.CancelFunc
}

type runs struct {
	mu   sync.Mutex
	all  map[string]*runState // the last of each lab
	busy int
}

// report is what was judged, with words in both languages.
type report struct {
	Checks   []check  `json:"checks"`
	Claims   []claim  `json:"claims"`
	Missing  []string `json:"missing,omitempty"`
	Tampered []string `json:"tampered,omitempty"`
	Passed   int      `json:"passed"`
	Failed   int      `json:"failed"`
}

type check struct {
	ID      string    `json:"id"`
	Verdict string    `json:"verdict"`
	Says    lab.Text  `json:"says"`
	Why     *lab.Text `json:"why,omitempty"`
	Hint    *lab.Text `json:"hint,omitempty"`
	Seen    []string  `json:"seen,omitempty"`
}

type claim struct {
	ID       string    `json:"id"`
	Verdict  string    `json:"verdict"`
	Says     lab.Text  `json:"says"`
	Evidence *lab.Text `json:"evidence,omitempty"`
	Why      *lab.Text `json:"why,omitempty"`
	Risk     *lab.Text `json:"risk,omitempty"`
}

const maxLine = 400

func lines(all []string) (out []string) {
	for _, s := range all {
		out = append(out, text.Line(s, maxLine))
	}
	return out
}

func newReport(r *judge.Report) *report {
	if r == nil {
		return nil
	}
	out := &report{
		Checks: []check{}, Claims: []claim{}, Missing: lines(r.Missing), Tampered: lines(r.Tampered),
		Passed: r.Passed(), Failed: r.Failed(),
	}
	for i := range r.Checks {
		out.Checks = append(out.Checks, newCheck(&r.Checks[i]))
	}
	for _, c := range r.Claims {
		evidence := lab.Text{EN: text.Line(cmp.Or(c.Error, c.Evidence), maxLine)}
		if c.Error == "" {
			evidence.KO = text.Line(c.EvidenceKO, maxLine)
		}
		out.Claims = append(out.Claims, claim{c.ID, string(c.Verdict), c.Says, &evidence, c.Why, c.Risk})
	}
	return out
}

func newCheck(c *judge.Check) check {
	one := check{ID: c.ID, Verdict: string(c.Verdict), Says: c.Says, Why: c.Why, Hint: c.Hint}
	for _, s := range c.Seen {
		one.Seen = append(one.Seen, text.Line(s.String(), maxLine))
	}
	if c.Error != "" {
		one.Seen = append(one.Seen, text.Line(c.Error, maxLine))
	}
	return one
}

// snapshot are the runs as they are.
func (s *Server) runStates() (all []runState) {
	s.runs.mu.Lock()
	defer s.runs.mu.Unlock()
	for _, r := range s.runs.all {
		one := *r
		one.Lines = append([]string(nil), r.Lines...)
		all = append(all, one)
	}
	return all
}

// changeRun changes a run and tells all tabs.
func (s *Server) changeRun(r *runState, change func()) {
	s.runs.mu.Lock()
	change()
	one := *r
	one.Lines = append([]string{}, r.Lines...)
	s.runs.mu.Unlock()
	s.hub.send("run", one)
}

// startRun runs a lab, unless it runs already.
func (s *Server) startRun(l *lab.Lab) error {
	ctx, end := context.WithCancel(s.ctx)
	s.runs.mu.Lock()
	old := s.runs.all[l.ID]
	if old != nil && old.State == "running" {
		s.runs.mu.Unlock()
		end()
		return nil
	}
	if s.runs.busy >= maxRuns {
		s.runs.mu.Unlock()
		end()
		return outcome.Inputf("%d labs are being run; wait for one", maxRuns)
	}
	s.runs.busy++
	r := &runState{Lab: l.ID, State: "running", Lines: []string{}, end: end}
	s.runs.all[l.ID] = r
	s.runs.mu.Unlock()
	s.changeRun(r, func() {})
	s.wg.Go(func() {
		defer end()
		s.runLab(ctx, l, r)
		s.runs.mu.Lock()
		s.runs.busy--
		s.runs.mu.Unlock()
	})
	return nil
}

func (s *Server) stopRun(id string) {
	s.runs.mu.Lock()
	defer s.runs.mu.Unlock()
	if r := s.runs.all[id]; r != nil {
		r.end()
	}
}

const maxLines = 40

func (s *Server) runLab(ctx context.Context, l *lab.Lab, r *runState) {
	env := s.o.Env
	env.Say = func(line string) {
		s.changeRun(r, func() {
			if len(r.Lines) < maxLines {
				r.Lines = append(r.Lines, text.Line(line, maxLine))
			}
		})
	}
	env.Warn = func(err error) { env.Say(err.Error()) }
	done, err := runner.Watched(ctx, env, session.Options{Name: "lab-" + l.ID, Spec: s.o.Spec}, l, func(step string, so *result.Result) {
		var decided []check
		for _, c := range judge.Early(l, so) {
			decided = append(decided, newCheck(&c))
		}
		s.changeRun(r, func() {
			r.Doing, r.Step, r.N, r.Of, r.Decided = "step", step, len(so.Steps)+1, len(l.Steps), decided
			if step == "" {
				r.Doing = "trace"
			}
		})
	})
	var views strings.Builder
	if done.Report != nil {
		for _, v := range see.Views(l, done.Result) {
			if err := view.HTML(&views, v, "run-"); err != nil {
				views.Reset()
				break
			}
		}
	}
	if rep := done.Report; rep != nil && len(rep.Missing) == 0 {
		held, all := rep.Passed(), rep.Passed()+rep.Failed()
		s.keep(l.ID, func(p *progress.Lab) { p.Run(held, all) })
	}
	s.changeRun(r, func() {
		r.State, r.Doing, r.Decided = "done", "", nil
		r.Report, r.Record, r.Views = newReport(done.Report), done.Dir.Path, views.String()
		if done.Session.Booted() {
			r.On = fmt.Sprintf("%s, %s", done.Session.Run.Kernel.Release, done.Session.Run.Target.Name)
		}
		switch outcome.Of(err) {
		case outcome.OK, outcome.CheckFailed, outcome.Tampered:
		default:
			r.State, r.Trouble = "failed", text.Line(err.Error(), maxLine)
			if ctx.Err() != nil {
				r.Trouble = "stopped"
			}
		}
	})
}

// keep notes progress, and tells all tabs. That it cannot be kept is said, and stops
// nothing.
func (s *Server) keep(id string, change func(*progress.Lab)) {
	if err := s.o.Progress.Update(s.ctx, id, change); err != nil {
		s.hub.send("trouble", text.Line(err.Error(), maxLine))
		return
	}
	if all, err := s.o.Progress.Read(); err == nil {
		s.hub.send("progress", all)
	}
}
