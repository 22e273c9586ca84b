// Package grade grades exercises: it builds a learner's program for the guest,
// runs it in a machine of its own under the exercise's trace, and has the result
// judged. What a program does, a kernel crash included, touches no other.
package grade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/expr"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/lab/runner"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/text"
)

// Grade is one submission's.
type Grade struct {
	Learner string       `json:"learner"`
	Outcome outcome.Kind `json:"outcome"`
	// How is a finer word, where there is one: "does not compile", "too slow",
	// "panic".
	How     outcome.How   `json:"how,omitempty"`
	Message string        `json:"message,omitempty"` // of a program that does not compile, the compiler's words
	Passed  int           `json:"passed"`
	Of      int           `json:"of"` // checks that apply; all of the exercise's when it was not judged
	Report  *judge.Report `json:"report,omitempty"`
	Exit    int64         `json:"exit"`
	// Saw is what the kernel saw the program do: see expr.Saw.
	Saw []string `json:"saw,omitempty"`
	// Output is what the program printed, its errors behind, cut to some lines.
	Output  string  `json:"output,omitempty"`
	Seconds float64 `json:"seconds"`
	Record  string  `json:"record,omitempty"`

	Run record.Run `json:"-"` // as its record has it
}

// Submission is one program to be graded.
type Submission struct {
	Src   fs.FS
	Shown string // what Src is called in messages
	Err   error  // why there is no Src
}

// One grades a program in a machine of its own; o.Out, when given, gets a record.
// The error is one of this host's: whatever the program does is in the grade.
func One(ctx context.Context, env session.Env, o session.Options, l *lab.Lab, s Submission) (g *Grade, err error) {
	start := time.Now()
	g = &Grade{Of: len(l.Exercise.Checks)}
	defer func() { g.Seconds = time.Since(start).Seconds() }()
	arch, err := runner.Arch(o.Spec)
	if err != nil {
		return g, err
	}
	o.Name = "lab-" + l.ID
	if o.Out == "" {
		o.Keep = session.KeepNothing
	}
	b := compile.Built{Err: s.Err}
	if s.Err == nil {
		b = compile.Go(ctx, compile.Source{FS: s.Src, Shown: s.Shown, Name: programName}, arch)
	}
	if b.Err != nil {
		g.Record, err = notRun(ctx, env, o, b.Err)
		return g, g.explain(ctx, err, builds)
	}
	defer b.Close()
	r, err := runner.Program(ctx, env, o, l, b.Program)
	g.Record, g.Run = r.Dir.Path, r.Session.Run
	if k := outcome.Of(err); r.Report == nil || k != outcome.OK && k != outcome.CheckFailed && k != outcome.Tampered {
		if r.Result.Step(lab.ProgramStep) == nil { // it was not the program
			return g, err
		}
		return g, g.explain(ctx, err, runs)
	}
	g.judged(l, r.Report, r.Result)
	return g, nil
}

// notRun leaves the record of a submission that came to no machine.
func notRun(ctx context.Context, env session.Env, o session.Options, why error) (dir string, err error) {
	o.Unprepared = true
	o.Before = func(context.Context, *machine.Spec) error { return why }
	s, err := session.Run(ctx, env, o, nil)
	return s.Dir.Path, err
}

// Several grades programs that trust each other, such as those of a lab, in a
// fraction of the time: they are built together, and run one after another in one
// machine. A program finds there what those before it have left; where one brings
// the machine down, all that were to run in it are graded as One does.
func Several(ctx context.Context, env session.Env, spec machine.Spec, l *lab.Lab, all []Submission) ([]*Grade, error) {
	arch, err := runner.Arch(spec)
	if err != nil {
		return nil, err
	}
	grades := make([]*Grade, len(all))
	var sources []compile.Source
	for i, s := range all {
		name := programName
		if i > 0 { // of the same name to the kernel, which sees base names only
			name = fmt.Sprintf("%d/%s", i, programName)
		}
		sources = append(sources, compile.Source{FS: s.Src, Shown: s.Shown, Name: name})
	}
	var programs []runner.Attempt
	var of []*Grade
	for i, b := range compile.Many(ctx, sources, arch) {
		g := &Grade{Of: len(l.Exercise.Checks)}
		grades[i] = g
		if b.Err != nil {
			if err := g.explain(ctx, b.Err, builds); err != nil {
				return nil, err
			}
			continue
		}
		defer b.Close()
		programs, of = append(programs, runner.Attempt{Program: b.Program}), append(of, g)
	}
	if len(programs) == 0 {
		return grades, nil
	}
	o := session.Options{Keep: session.KeepNothing, Spec: spec}
	results, err := runner.Programs(ctx, env, o, l, programs)
	if err == nil && len(results) == len(programs) {
		for i, res := range results {
			if err := of[i].judge(l, res); err != nil {
				return nil, err
			}
		}
		return grades, nil
	}
	for i, s := range all {
		if grades[i].Outcome == "" {
			if grades[i], err = One(ctx, env, o, l, s); err != nil {
				return nil, err
			}
		}
	}
	return grades, nil
}

// programName is what a program is called in the guest.
const programName = "exercise"

// judge makes a grade of what a program did.
func (g *Grade) judge(l *lab.Lab, res *result.Result) error {
	report, err := judge.Judge(l, res)
	if err == nil {
		g.judged(l, report, res)
	}
	return err
}

func (g *Grade) judged(l *lab.Lab, report *judge.Report, res *result.Result) {
	g.Report = report
	g.Passed, g.Of = g.Report.Passed(), g.Report.Passed()+g.Report.Failed()
	if step := res.Step(lab.ProgramStep); step != nil {
		g.Output = firstLines(step.Stdout+step.Stderr, maxOutput)
		for _, line := range expr.Saw(step, l.Exercise.Asked()) {
			g.Saw = append(g.Saw, text.Line(line, 300))
		}
	}
	switch step := res.Step(lab.ProgramStep); {
	case len(res.Missing) > 0:
		g.Outcome, g.Message = outcome.NotApplicable, strings.Join(res.Missing, "; ")
	case len(g.Report.Tampered) > 0:
		g.Outcome, g.Exit, g.Message = outcome.Tampered, step.Exit, strings.Join(g.Report.Tampered, "; ")
	case g.Report.Failed() == 0 && g.Passed > 0:
		g.Outcome, g.Exit = outcome.OK, step.Exit
	default:
		g.Outcome, g.Exit = outcome.CheckFailed, step.Exit
		if step.Exit != 0 {
			g.Message = fmt.Sprintf("it ended with status %d", step.Exit)
			if said := text.Line(step.Stderr, 200); said != "" {
				g.Message += ": " + said
			}
		}
	}
}

// maxOutput is how many lines of a program's output a grade has.
const maxOutput = 24

// firstLines are the first n lines of a text, and a mark where there are more.
func firstLines(s string, n int) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if n--; n < 0 {
			b.WriteString("…\n")
			break
		}
		b.WriteString(text.Line(strings.TrimSuffix(line, "\n"), 200) + "\n")
	}
	return b.String()
}

// Word says in a word or two how the submission ended.
func (g *Grade) Word() string { return cmp.Or(string(g.How), string(g.Outcome)) }

// How a learner's program can end: when it is built, and when it runs.
var (
	builds = []outcome.Kind{outcome.BadInput, outcome.Deadline}
	runs   = []outcome.Kind{outcome.CheckFailed, outcome.KernelReported, outcome.Deadline, outcome.GuestCrashed}
)

// explain makes a grade of an error that is of a learner's program; others come
// back.
func (g *Grade) explain(ctx context.Context, err error, learners []outcome.Kind) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	k, decisive := outcome.Decisive(err)
	if !slices.Contains(learners, k) {
		return err
	}
	g.Outcome, g.How, g.Message = k, outcome.HowOf(err), text.Line(decisive.Error(), 300)
	var bad *compile.Error
	if errors.As(err, &bad) {
		g.Message = bad.Output
	}
	return nil
}
