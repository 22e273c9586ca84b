package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/kernel"
	"labctl/host/lab/judge"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/plan"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/labs"
)

type bisectOptions struct {
	kernels      []string
	kernel       string
	arch, board  string
	claim, check string
	old          string
	out          string
	resume       bool
	asJSON       bool
	retries      int
	timeout      time.Duration
	patience     float64
}

// skipStatus is what git bisect run takes for a commit that cannot be tested. Any
// other from 1 to 127 would be a bad one.
const skipStatus = 125

func (a *app) bisectCmd() *cobra.Command {
	var o bisectOptions
	c := &cobra.Command{
		Use:   "bisect --kernels A..B --claim LAB/ID | --kernel KERNEL --claim LAB/ID",
		Short: "Find between which kernels a claim or a check changes",
		Long: `Run a lab on as few kernels of a list as tell between which two of them one of
its claims or checks changes: about the logarithm of their number. The verdicts on
both sides of the change are seen, not inferred. A kernel on which nothing can be
told is passed over. The list is taken in its order, from old to new.

The verdict on the oldest kernel is thought to be confirmed (--claim) or pass
(--check); --old says otherwise. When that is wrong it takes more runs.

With --kernel, for git bisect run, one kernel is tried: exit status 0 when the
verdict is the old one, 1 when it is another, 125 when nothing can be told, because
the kernel does not boot, the claim does not apply, or a flag is wrong.

Exit status with --kernels: 0 when the change is found; 1 when there is none.`,
		Example: `  labctl bisect --kernels 5.10..7.2 --claim K2/born-as-kthreadd
  labctl bisect --kernels 5.10,6.1,./bzImage --check K1/agree --arch arm64 --json
  git bisect run sh -c 'labctl kernel build b --source . || exit 125; labctl bisect --kernel build:b --claim K2/born-as-kthreadd'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.kernel == "" {
				return a.bisect(c.Context(), &o)
			}
			return a.skip(a.bisectOne(c.Context(), &o))
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		err = badFlag(c, err)
		if slices.ContainsFunc(os.Args, func(s string) bool { return s == "--kernel" || strings.HasPrefix(s, "--kernel=") }) {
			return a.skip(err)
		}
		return err
	})
	f := c.Flags()
	f.StringSliceVar(&o.kernels, "kernels", nil, kernelsUsage)
	f.StringVar(&o.kernel, "kernel", "", "try one kernel, with the exit status for git bisect run")
	f.StringVar(&o.arch, "arch", "", "architecture: amd64, arm64, arm (default: the host's)")
	f.StringVar(&o.board, "board", "", "board: "+strings.Join(boards(), ", "))
	f.StringVar(&o.claim, "claim", "", "a claim of a lab: K2/born-as-kthreadd")
	f.StringVar(&o.check, "check", "", "a check of a lab: K1/agree")
	f.StringVar(&o.old, "old", "", "the verdict on the oldest kernel (default: confirmed, or pass)")
	f.StringVar(&o.out, "out", "", "directory for the records (default: labctl-out/TIME-bisect)")
	f.BoolVar(&o.resume, "resume", false, "continue the bisection in --out")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	intFlag(f, &o.retries, "retry", 0, 100, "try a lab that fails so many times more")
	timeFlag(f, &o.timeout, "timeout", "end a lab after this long, boot included")
	patienceFlag(f, &o.patience)
	return c
}

// skip reports an error and gives it the status by which git bisect passes a commit
// over. An interrupt ends the bisection.
func (a *app) skip(err error) error {
	if err == nil || outcome.Of(err) == outcome.Interrupted || outcome.Quiet(err) {
		return err
	}
	a.report(err)
	return &outcome.StatusError{Status: skipStatus}
}

// point is what is looked at, and its old verdict.
func (o *bisectOptions) point(a *app) (p cell.Point, old string, err error) {
	flag, name := "--claim", o.claim
	switch {
	case (o.claim == "") == (o.check == ""):
		return p, "", outcome.Inputf("give --claim LAB/ID or --check LAB/ID")
	case o.claim == "":
		flag, name = "--check", o.check
	}
	id, point, ok := strings.Cut(name, "/")
	if !ok {
		return p, "", outcome.Inputf("%s %q: write it as LAB/ID: K2/born-as-kthreadd", flag, text.Line(name, 80))
	}
	l, err := a.ownLab(id)
	if err != nil {
		return p, "", outcome.Default(outcome.BadInput, err)
	}
	p = cell.Point{Lab: l.ID, ID: point, Claim: o.claim != ""}
	var known []string
	if p.Claim {
		for _, c := range l.Claims {
			known = append(known, c.ID)
		}
	} else {
		for _, c := range l.Checks {
			known = append(known, c.ID)
		}
	}
	if !slices.Contains(known, point) {
		return p, "", nearest.Unknown(flag+" of "+l.ID, point, known)
	}
	words := []string{string(judge.Pass), string(judge.Fail)}
	if p.Claim {
		words = []string{string(judge.Confirmed), string(judge.Refuted), string(judge.Depends)}
	}
	if old = cmp.Or(o.old, p.Usual()); !slices.Contains(words, old) {
		return p, "", nearest.Unknown("--old", old, words)
	}
	return p, old, nil
}

// run runs the lab on the kernels.
func (a *app) runBisect(ctx context.Context, o *bisectOptions, kernels []string, p cell.Point, old string) (*cell.Bisection, error) {
	f := planFlags{kernels: kernels, labs: []string{p.Lab}}
	if o.arch != "" {
		f.archs = []string{o.arch}
	}
	if o.board != "" {
		f.boards = []string{o.board}
	}
	spec, err := f.spec(nil)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	cells, err := cell.Plan(ctx, spec, labs.FS)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(cells, func(c matrix.Cell) bool { return c.Target != cells[0].Target }) {
		return nil, outcome.Inputf("give --arch or --board, not both")
	}
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	r := &cell.Runner{Env: env, Spec: machine.Spec{Patience: o.patience}, Timeout: o.timeout, Lab: a.ownLab}
	defer r.Close()
	if err := r.Check(cells); err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	return r.Bisect(ctx, cell.Options{
		Name: "bisect", Plan: cells, Out: o.out, Label: "bisect", Resume: o.resume, Retries: o.retries, Watch: a.progress.Cells,
	}, p, old)
}

func (a *app) bisect(ctx context.Context, o *bisectOptions) error {
	p, old, err := o.point(a)
	if err != nil {
		return err
	}
	if len(o.kernels) == 0 {
		return outcome.Inputf("which kernels? give --kernels 5.10..7.2, or --kernel for one")
	}
	b, err := a.runBisect(ctx, o, o.kernels, p, old)
	if b == nil {
		return err
	}
	if perr := a.printBisection(b, o.asJSON); perr != nil {
		return perr
	}
	a.say("run records: " + b.Dir)
	if err == nil && b.From == "" {
		err = &outcome.StatusError{Status: outcome.CheckFailed.ExitStatus()}
	}
	return err
}

// bisectOne tries one kernel. Its error is the exit status for git.
func (a *app) bisectOne(ctx context.Context, o *bisectOptions) error {
	p, old, err := o.point(a)
	if err != nil {
		return err
	}
	if len(o.kernels) > 0 {
		return outcome.Inputf("give --kernel or --kernels")
	}
	if _, several, _ := kernel.ParseSpan(o.kernel); several || o.kernel == plan.Cached || strings.ContainsRune(o.kernel, ',') {
		return outcome.Inputf("--kernel %s: want one kernel; --kernels takes several", text.Line(o.kernel, 80))
	}
	b, err := a.runBisect(ctx, o, []string{o.kernel}, p, old)
	if err != nil {
		return err
	}
	s := b.Steps[0]
	if o.asJSON {
		err = a.printJSON(b)
	} else {
		_, err = fmt.Fprintf(a.stdout, "%s on %s: %s\n", p, cmp.Or(text.Line(s.Release, 100), s.Kernel), evidence(s))
	}
	if err == nil && s.Verdict != old {
		err = &outcome.StatusError{Status: outcome.CheckFailed.ExitStatus()}
	}
	return err
}

func evidence(s cell.Step) string {
	if s.Seen == "" {
		return text.Line(s.Verdict, 60)
	}
	return text.Line(s.Verdict, 60) + ": " + text.Line(s.Seen, 200)
}

func (a *app) printBisection(b *cell.Bisection, asJSON bool) error {
	if asJSON {
		return a.printJSON(b)
	}
	w := a.table("KERNEL", "RELEASE", "VERDICT", "SEEN")
	for _, s := range b.Steps {
		w.Row(s.Kernel, cmp.Or(text.Line(s.Release, 60), "-"), cmp.Or(text.Line(s.Verdict, 40), "-"), cmp.Or(text.Line(s.Seen, 120), "-"))
	}
	if err := w.Write(a.stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stdout, sentence(b))
	return err
}

// sentence says where it changes.
func sentence(b *cell.Bisection) string {
	runs := fmt.Sprintf("%d runs for %d kernels", b.Runs, len(b.Steps))
	verdict := map[string]string{}
	between, inside := []string(nil), false
	told := ""
	for _, s := range b.Steps {
		verdict[s.Kernel] = text.Line(s.Verdict, 40)
		if s.Kernel == b.To {
			inside = false
		}
		if inside {
			between = append(between, s.Kernel)
		}
		if s.Kernel == b.From {
			inside = true
		}
		if s.Told {
			told = verdict[s.Kernel]
		}
	}
	switch {
	case b.From == "" && told == "":
		return fmt.Sprintf("%s: nothing can be told; %s", b.Point, runs)
	case b.From == "":
		return fmt.Sprintf("%s does not change: %s on the first and the last kernel on which it can be told; %s", b.Point, told, runs)
	}
	line := fmt.Sprintf("%s changes between %s (%s) and %s (%s); %s", b.Point, b.From, verdict[b.From], b.To, verdict[b.To], runs)
	if len(between) > 0 {
		line += "; nothing can be told on " + strings.Join(between, ", ")
	}
	return line
}
