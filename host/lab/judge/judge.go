// Package judge says what a lab's result shows: which checks hold and what
// becomes of each claim. It is a function of the lab and the result alone, so
// that a record can be judged again later, by the lab as it is then.
package judge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Verdict is what became of a check or a claim.
type Verdict string

// Verdicts of checks.
const (
	Pass          Verdict = "pass"
	Fail          Verdict = "fail"
	NotApplicable Verdict = "not applicable" // with Why
	// Tampered is what a check is that would hold, of a capture that was bent.
	Tampered Verdict = "tampered"
)

// Failed says that a check does not hold, or that nothing can be told of it since the
// evidence was bent.
func (v Verdict) Failed() bool { return v == Fail || v == Tampered }

// Verdicts of claims, beside NotApplicable.
const (
	Confirmed Verdict = "confirmed"
	Refuted   Verdict = "refuted"
	Depends   Verdict = "depends"
	// NotEnforced is a rule that this kernel lets a program break. Claim.Risk says
	// what is at risk then.
	NotEnforced Verdict = "not enforced"
	Unknown     Verdict = "unknown" // an expression could not be evaluated, with Error
)

// ClaimVerdicts are those that a claim can have, in the order in which they are
// counted and listed.
func ClaimVerdicts() []Verdict {
	return []Verdict{Confirmed, Refuted, NotEnforced, Depends, NotApplicable, Unknown}
}

// Report is all that a result shows.
type Report struct {
	Lab   string   `json:"lab"`
	Title lab.Text `json:"title"`
	// Missing says why the lab was not run; there are no checks and claims then.
	Missing []string `json:"missing,omitempty"`
	Checks  []Check  `json:"checks"`
	Claims  []Claim  `json:"claims,omitempty"`
	// Changed says that the lab.yaml is not the one that was run.
	Changed bool `json:"changed,omitempty"`
	// Tampered says by what the evidence was bent, and in which step. No check
	// passes then.
	Tampered []string `json:"tampered,omitempty"`
}

// Check is one check's outcome.
type Check struct {
	ID      string      `json:"id"`
	Says    lab.Text    `json:"says"`
	Verdict Verdict     `json:"verdict"`
	Why     *lab.Text   `json:"why,omitempty"` // it does not apply
	Error   string      `json:"error,omitempty"`
	Seen    []expr.Seen `json:"seen,omitempty"` // when it fails
	Hint    *lab.Text   `json:"hint,omitempty"`
}

// Observed is what of Seen is nothing but what the program's step has: what it made, what
// happened, what it printed. It says nothing of what the check wants.
func (c *Check) Observed() (facts []expr.Seen) {
	for _, s := range c.Seen {
		if observed.MatchString(s.Expr) {
			facts = append(facts, s)
		}
	}
	return facts
}

var observed = text.Lazy(`^` + lab.ProgramStep + `(\.\w+|\.on\("\w+"\))+$`)

// Claim is one claim's outcome.
type Claim struct {
	ID       string   `json:"id"`
	Says     lab.Text `json:"says"`
	Source   string   `json:"source"`
	Verdict  Verdict  `json:"verdict"`
	Evidence string   `json:"evidence,omitempty"`
	// EvidenceKO is Evidence in Korean, where that is not the same.
	EvidenceKO string    `json:"evidence_ko,omitempty"`
	Why        *lab.Text `json:"why,omitempty"`
	Risk       *lab.Text `json:"risk,omitempty"` // of a rule that is not enforced
	Tests      []string  `json:"tests,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// EvidenceIn is the evidence in a language of lab.Languages.
func (c *Claim) EvidenceIn(lang string) string {
	return lab.Text{EN: c.Evidence, KO: c.EvidenceKO}.In(lang)
}

// Failed counts the checks that fail, or that nothing can be told of since the
// evidence was bent.
func (r *Report) Failed() int { return r.count(Fail) + r.count(Tampered) }

// Passed counts the checks that hold.
func (r *Report) Passed() int { return r.count(Pass) }

func (r *Report) count(v Verdict) (n int) {
	for _, c := range r.Checks {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// Verdict is the lab's as a whole: NotApplicable when it was not run, or nothing
// in it applies.
func (r *Report) Verdict() Verdict {
	switch {
	case len(r.Tampered) > 0:
		return Tampered
	case r.Failed() > 0:
		return Fail
	case r.Passed() > 0:
		return Pass
	}
	return NotApplicable
}

// UnfinishedError is a result that cannot be judged, since the run failed.
type UnfinishedError struct {
	Lab, Why string
}

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("judge lab %s: the run failed: %s; run the lab again", e.Lab, e.Why)
}

// Outcome is that of bad input: the record's own outcome says how the run ended.
func (e *UnfinishedError) Outcome() outcome.Kind { return outcome.BadInput }

// Judge judges a result of the lab, or of its exercise. The error is an *UnfinishedError
// when the run failed: what it lacks might be what a check fails by.
func Judge(l *lab.Lab, r *result.Result) (*Report, error) {
	if r.Lab != l.ID {
		return nil, outcome.Inputf("judge lab %s: the result is of lab %s", l.ID, text.Line(r.Lab, 40))
	}
	rep := &Report{Lab: l.ID, Title: l.Title, Missing: r.Missing, Changed: r.SHA256 != l.SHA256}
	if len(r.Missing) > 0 {
		return rep, nil
	}
	if r.Unfinished != "" {
		return nil, &UnfinishedError{Lab: l.ID, Why: text.Line(r.Unfinished, 300)}
	}
	checks, want := l.Checks, []string{}
	for _, s := range l.Steps {
		want = append(want, s.ID)
	}
	if r.Exercise {
		if l.Exercise == nil {
			return nil, outcome.Inputf("judge lab %s: it has no exercise", l.ID)
		}
		checks, want = l.Exercise.Checks, []string{lab.ProgramStep}
	}
	for _, id := range want {
		if r.Step(id) == nil {
			return nil, &UnfinishedError{Lab: l.ID, Why: fmt.Sprintf("step %s is not in the result", id)}
		}
	}
	in := expr.Input{Kernel: &r.Kernel, Steps: r.Steps}
	notTold := func(_ expr.Input, all ...*expr.Expr) *lab.Text { return NotTold(r, all...) }
	for _, s := range r.Steps {
		for _, seen := range s.Tampered {
			rep.Tampered = append(rep.Tampered, text.Line("step "+s.ID+": "+seen, 500))
		}
	}
	rep.Checks = steps(l, r)
	first := len(rep.Checks)
	for i := range checks {
		c := after(&checks[i], rep.Checks[first:])
		if c == nil {
			made := check(&checks[i], in, notTold)
			c = &made
		}
		rep.Checks = append(rep.Checks, *c)
	}
	if len(rep.Tampered) > 0 {
		for i := range rep.Checks {
			if c := &rep.Checks[i]; c.Verdict == Pass {
				c.Verdict = Tampered
			}
		}
	}
	if !r.Exercise {
		for i := range l.Claims {
			rep.Claims = append(rep.Claims, claim(&l.Claims[i], in, notTold))
		}
	}
	return rep, nil
}

// Early judges the checks of a lab that is being run which can be judged already: they look
// at nothing but what steps that have ended have reported. Judge has the last word, for
// what bent the evidence is known at the end.
func Early(l *lab.Lab, r *result.Result) (decided []Check) {
	if r.Exercise {
		return nil
	}
	in := expr.Input{Kernel: &r.Kernel, Steps: r.Steps}
	notTold := func(_ expr.Input, all ...*expr.Expr) *lab.Text { return NotTold(r, all...) }
	for i := range l.Checks {
		c := &l.Checks[i]
		when, that, seen := c.Exprs()
		if !early(l, r, when, that, seen) || !slices.ContainsFunc(that.Names, func(n string) bool { return r.Step(n) != nil }) ||
			slices.ContainsFunc(c.After, func(id string) bool {
				return !slices.ContainsFunc(decided, func(d Check) bool { return d.ID == id && d.Verdict != Fail })
			}) {
			continue
		}
		decided = append(decided, check(c, in, notTold))
	}
	return decided
}

// early reports whether expressions can be evaluated over the steps that have run.
func early(l *lab.Lab, r *result.Result, all ...*expr.Expr) bool {
	for _, x := range all {
		if x == nil {
			continue
		}
		waits := slices.ContainsFunc(l.Steps, func(s lab.Step) bool { return slices.Contains(x.Names, s.ID) && r.Step(s.ID) == nil })
		if !x.Early || waits {
			return false
		}
	}
	return true
}

// after fails a check that shows nothing without those before it; nil when they
// hold, or do not apply.
func after(c *lab.Check, before []Check) *Check {
	for _, b := range before {
		if b.Verdict == Fail && slices.Contains(c.After, b.ID) {
			return &Check{
				ID: c.ID, Says: c.Says, Verdict: Fail, Hint: c.Hint,
				Error: fmt.Sprintf("it would show nothing without %s, which does not hold", b.ID),
			}
		}
	}
	return nil
}

// steps fails what no check of the lab looks at: a probe that could not do its
// work, and a trace with holes, by which nothing can be told.
func steps(l *lab.Lab, r *result.Result) (failed []Check) {
	for _, s := range l.Steps {
		if step := r.Step(s.ID); !r.Exercise && s.Probe != "" && step.Exit != 0 {
			failed = append(failed, Check{
				ID:      "step-" + s.ID,
				Says:    lab.Text{EN: fmt.Sprintf("The probe %s does its work.", s.Probe), KO: fmt.Sprintf("프로브 %s가 제 일을 합니다.", s.Probe)},
				Verdict: Fail, Error: text.Line(step.Stderr, 300),
			})
		}
	}
	for _, step := range r.Steps {
		if step.Lost != 0 {
			failed = append(failed, Check{
				ID:      "trace-" + step.ID,
				Says:    lab.Text{EN: fmt.Sprintf("The trace of step %s is whole.", step.ID), KO: fmt.Sprintf("단계 %s의 추적에 빠진 것이 없습니다.", step.ID)},
				Verdict: Fail, Seen: []expr.Seen{{Expr: step.ID + ".lost", Value: fmt.Sprint(step.Lost)}},
			})
		}
	}
	return failed
}

func check(c *lab.Check, in expr.Input, notTold untold) Check {
	out := Check{ID: c.ID, Says: c.Says, Verdict: Fail}
	when, that, seen := c.Exprs()
	if applies, err := holds(when, in); err != nil {
		out.Error = "when: " + err.Error()
		return out
	} else if !applies {
		out.Verdict, out.Why = NotApplicable, c.WhyNot
		return out
	}
	if why := notTold(in, that, seen); why != nil {
		out.Verdict, out.Why = NotApplicable, why
		return out
	}
	v, err := that.Eval(in)
	if err == nil && v.True {
		out.Verdict = Pass
		return out
	}
	out.Hint = c.Hint
	if err != nil {
		out.Error = err.Error()
	}
	if !errors.Is(err, expr.ErrWork) {
		out.Seen = that.Seen(in)
	}
	if seen != nil {
		v, err := seen.Eval(in)
		if err != nil {
			v.Text = "nothing: " + err.Error()
		}
		out.Seen = append(out.Seen, expr.Seen{Expr: oneLine(c.Seen), Value: v.Text})
	}
	out.Seen = append(out.Seen, silent(that, in)...)
	return out
}

// silent reports events that an expression looks at and that are nowhere in the
// capture: a trace point that says nothing may be the reason for a failure, and
// not what the kernel has done.
func silent(x *expr.Expr, in expr.Input) (out []expr.Seen) {
	for _, name := range x.Events {
		value := "armed, and it never fired, in this step and all others"
		fired := false
		for _, s := range in.Steps {
			fired = fired || slices.ContainsFunc(s.Events, func(e result.Event) bool { return e.Name == name })
			for _, why := range s.NotTraced {
				if what, _, _ := strings.Cut(why, ":"); what == name || strings.HasSuffix(what, "/"+name) || strings.HasSuffix(what, " "+name) {
					value = "not traced: " + text.Line(why, 200)
				}
			}
		}
		if !fired {
			out = append(out, expr.Seen{Expr: fmt.Sprintf("on(%q)", name), Value: value})
		}
	}
	return out
}

func claim(c *lab.Claim, in expr.Input, notTold untold) Claim {
	out := Claim{ID: c.ID, Says: c.Says, Source: c.Source, Why: &c.Why, Tests: c.Tests}
	fail := func(field string, err error) Claim {
		out.Verdict, out.Error = Unknown, field+": "+err.Error()
		return out
	}
	when, confirmed, refuted, notEnforced, evidence := c.Exprs()
	if applies, err := holds(when, in); err != nil {
		return fail("when", err)
	} else if !applies {
		out.Verdict, out.Why = NotApplicable, c.WhyNot
		return out
	}
	if why := notTold(in, confirmed, refuted, notEnforced, evidence); why != nil {
		out.Verdict, out.Why = NotApplicable, why
		return out
	}
	yes, err := holdsOr(confirmed, in, false)
	if err != nil {
		return fail("confirmed", err)
	}
	no, err := holdsOr(refuted, in, false)
	if err != nil {
		return fail("refuted", err)
	}
	free, err := holdsOr(notEnforced, in, false)
	if err != nil {
		return fail("not_enforced", err)
	}
	v, err := evidence.Eval(in)
	if err != nil {
		return fail("evidence", err)
	}
	out.Evidence = v.Text
	if evidence.Says {
		in.Korean = true
		ko, err := evidence.Eval(in)
		if err != nil {
			return fail("evidence", err)
		}
		out.EvidenceKO = ko.Text
	}
	switch {
	case yes && no:
		return fail("confirmed", fmt.Errorf("it is true, and refuted is too: the lab is wrong"))
	case free && (yes || no):
		return fail("not_enforced", fmt.Errorf("it is true, and confirmed or refuted is too: the lab is wrong"))
	case free:
		out.Verdict, out.Risk = NotEnforced, c.Risk
	case yes:
		out.Verdict = Confirmed
	case no:
		out.Verdict = Refuted
	default:
		out.Verdict = Depends
	}
	return out
}

// untold says why expressions cannot be judged by a capture; nil when they can.
type untold func(in expr.Input, all ...*expr.Expr) *lab.Text

// NotTold says why expressions cannot be evaluated over a result; nil when they can.
func NotTold(r *result.Result, all ...*expr.Expr) *lab.Text {
	if why := notRun(r.Steps, all...); why != nil || r.Exercise || exitSignals(r) {
		return why
	}
	return noSignal(all...)
}

// exitSignals reports whether the capture has them. Where the place of the member
// in struct kernel_clone_args is not known, which takes BTF, it has flags alone.
func exitSignals(r *result.Result) bool {
	flags := false
	for _, s := range r.Steps {
		for _, c := range slices.Concat(s.Creations, s.Others) {
			if c.ExitSignal >= 0 {
				return true
			}
			flags = flags || c.Flags >= 0
		}
	}
	return !flags
}

func noSignal(all ...*expr.Expr) *lab.Text {
	if !slices.ContainsFunc(all, func(x *expr.Expr) bool { return x != nil && x.Signal }) {
		return nil
	}
	return &lab.Text{
		EN: "the exit signal is not traced: this kernel has no types (BTF) to find it by",
		KO: "종료 시그널을 추적하지 못했습니다. 이 커널에는 그 위치를 알려 줄 타입 정보(BTF)가 없습니다",
	}
}

// notRun says why expressions cannot be judged: they look at a step that was not
// run. It is nil when they can.
func notRun(steps []*result.Step, all ...*expr.Expr) *lab.Text {
	for _, s := range steps {
		if !slices.ContainsFunc(all, func(x *expr.Expr) bool { return x != nil && slices.Contains(x.Names, s.ID) }) {
			continue
		}
		if s.NoCall != "" {
			c := text.Line(s.NoCall, 60)
			return &lab.Text{
				EN: fmt.Sprintf("step %s was not run: this kernel has no system call %s", s.ID, c),
				KO: fmt.Sprintf("단계 %s를 실행하지 않았습니다. 이 커널에는 %s 시스템 콜이 없습니다", s.ID, c),
			}
		}
		if s.NoCompiler != "" {
			c := text.Line(s.NoCompiler, 60)
			return &lab.Text{
				EN: fmt.Sprintf("step %s was not run: this host has no %s that makes static programs", s.ID, c),
				KO: fmt.Sprintf("단계 %s를 실행하지 못했습니다. 이 호스트에는 정적 프로그램을 만들 %s 컴파일러가 없습니다", s.ID, c),
			}
		}
	}
	return nil
}

func holds(x *expr.Expr, in expr.Input) (bool, error) { return holdsOr(x, in, true) }

func holdsOr(x *expr.Expr, in expr.Input, none bool) (bool, error) {
	if x == nil {
		return none, nil
	}
	v, err := x.Eval(in)
	return v.True, err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
