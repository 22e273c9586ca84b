package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"labctl/host/bounded"
	"labctl/host/class"
	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/grade"
	"labctl/host/lab/progress"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
	"labctl/host/session"
	"labctl/host/ui/table"
)

// exercise returns a lab that has an exercise.
func (a *app) exercise(o *labFlags, id string) (*lab.Lab, error) {
	l, err := a.find(o, id)
	if err == nil && l.Exercise == nil {
		err = outcome.Inputf("lab %s has no exercise", l.ID)
	}
	return l, err
}

func (a *app) labStart(o *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "start ID [DIR]",
		Short: "Begin a lab's exercise: copy its skeleton and its task",
		Args:  labAndDir,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.exercise(o, args[0])
			if err != nil {
				return err
			}
			dir := l.ID
			if len(args) == 2 {
				dir = args[1]
			}
			if err := compile.Copy(l, lab.Exercise, dir); err != nil {
				return err
			}
			b, err := l.ReadFile(path.Join(lab.Exercise, l.TaskIn(o.lang)))
			if err != nil {
				return err
			}
			out := show.Markdown(string(b), a.cells(), a.plain())
			fmt.Fprint(a.stdout, out)
			check := l.ID
			if dir != l.ID {
				check += " " + dir
			}
			a.say(fmt.Sprintf(show.Word(o.lang, "%[1]s is there; labctl lab check %[2]s grades it, labctl lab hint %[3]s helps"), dir, check, l.ID))
			return nil
		},
	}
}

func (a *app) labSolve(o *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "solve ID [DIR]",
		Short: "Write the solution of a lab's exercise to a directory",
		Args:  labAndDir,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.exercise(o, args[0])
			if err != nil {
				return err
			}
			if l.Exercise.Withheld {
				return outcome.Inputf("lab %s: its solution is withheld", l.ID)
			}
			dir := l.ID + "-solution"
			if len(args) == 2 {
				dir = args[1]
			}
			if err := compile.Copy(l, lab.Solution, dir); err != nil {
				return err
			}
			a.say(fmt.Sprintf(show.Word(o.lang, "the solution is in %s"), dir))
			return nil
		},
	}
}

func labAndDir(c *cobra.Command, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return outcome.Inputf("%s takes the id of a lab and a directory: P1 ./mine", c.CommandPath())
	}
	return nil
}

func (a *app) labHint(o *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "hint ID [N]",
		Short: "Give a hint for a lab's exercise: the first, or the Nth",
		Args:  labAndDir,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := a.exercise(o, args[0])
			if err != nil {
				return err
			}
			n, all := 1, len(l.Exercise.Hints)
			if len(args) == 2 {
				if n, err = strconv.Atoi(args[1]); err != nil || n < 1 || n > all {
					return outcome.Inputf("lab %s has hints 1 to %d, not %q", l.ID, all, args[1])
				}
			}
			for _, line := range table.Wrap(show.Clean(l.Exercise.Hints[n-1].In(o.lang)), a.cells(), "") {
				fmt.Fprintln(a.stdout, line)
			}
			a.note(c.Context(), l.ID, func(p *progress.Lab) { p.Hint(n) })
			if n < all {
				a.say(fmt.Sprintf(show.Word(o.lang, "there are more: labctl lab hint %s %d"), l.ID, n+1))
			}
			return nil
		},
	}
}

type labCheckOptions struct {
	labFlags   *labFlags
	spec       machine.Spec
	class      bool
	watch      bool
	resume     bool
	csv        string
	moodle     string
	gradescope string
	weights    string
	asJSON     bool
	out        string
	jobs       int
	failOn     record.FailOn

	points class.Weights
}

// check finds flags that do not go together, and sets the points.
func (o *labCheckOptions) check(l *lab.Lab) (err error) {
	for _, f := range []struct {
		name       string
		given, one bool
	}{
		{"--csv", o.csv != "", false}, {"--moodle", o.moodle != "", false}, {"--resume", o.resume, false}, {"--jobs", o.jobs != 0, false},
		{"--gradescope", o.gradescope != "", true},
	} {
		switch {
		case f.given && f.one && o.class:
			return outcome.Inputf("%s is for one submission, as an autograder runs it; leave --class out", f.name)
		case f.given && !f.one && !o.class:
			return outcome.Inputf("%s is for --class", f.name)
		}
	}
	if o.watch && (o.class || o.out != "" || o.gradescope != "") {
		return outcome.Inputf("--watch grades one submission again and again: leave --class, --out and --gradescope out")
	}
	if err := cmp.Or(checkOutput("--csv", o.csv), checkOutput("--moodle", o.moodle), checkOutput("--gradescope", o.gradescope)); err != nil {
		return err
	}
	o.points, err = class.ParseWeights(o.weights, l)
	return err
}

func (a *app) labCheck(lf *labFlags) *cobra.Command {
	o := labCheckOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "check ID [DIR]",
		Short: "Grade an exercise: build the program in DIR, run it, look at what the kernel saw",
		Long: `Build the Go program in DIR, a directory or a .go file (default: where labctl lab start
ID has put it), for the
guest, run it in a machine of its own under the exercise's trace, and compare what the
kernel saw with the exercise's checks. What the program prints counts only where a
check compares it with the kernel. The program runs in a sandbox; if the trace was
changed all the same, or two sources of evidence disagree, the verdict is tampered.

With --class DIR has a directory for each learner. They are graded several at a time,
each in a machine of its own: whatever one does, the others do not notice. The class is
a matrix: its directory has cells/ with each grade as soon as there is one, runs/ with
the records, and gradebook.csv, which is rewritten after each grade. --resume
continues a class that was stopped, and grades only submissions that are new or have
changed. Near-identical submissions are named after the table; what they have from
the skeleton does not count.

Exit status: 0 all checks hold, 1 one does not, or the program prints too much or has
tampered with the evidence, 2 it
does not compile, 4 it brings the kernel down or makes it report what --fail-on names, 5
it does not end in time. Of a class: 1 when one of these befalls anybody.`,
		Example: `  labctl lab check P1
  labctl lab check P1 ./mine
  labctl lab check P1 --watch
  labctl lab check P1 ./mine --weights waits=3 --gradescope results.json
  labctl lab check P1 --class ./submissions --csv grades.csv --moodle moodle.csv
  labctl lab check P1 --class ./submissions --out monday --resume`,
		Args: func(c *cobra.Command, args []string) error {
			if o.class && len(args) != 2 {
				return outcome.Inputf("%s --class takes the id of a lab and a directory of directories: P1 ./submissions", c.CommandPath())
			}
			return labAndDir(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			l, err := a.exercise(lf, args[0])
			if err != nil {
				return err
			}
			dir, src := l.ID, fs.FS(nil)
			if len(args) == 2 {
				dir = args[1]
			}
			switch fi, err := os.Stat(dir); {
			case o.class && (err != nil || !fi.IsDir()):
				return fmt.Errorf("%s: %w; want one with a directory for each learner", dir, bounded.CheckDir(dir))
			case err != nil:
				return fmt.Errorf("%s: %w; labctl lab start %s makes one", dir, bounded.CheckDir(dir), l.ID)
			case !fi.IsDir() && (!fi.Mode().IsRegular() || filepath.Ext(dir) != ".go"):
				return outcome.Inputf("%s: neither a directory with Go source nor a .go file", dir)
			case !fi.IsDir():
				src = compile.Single(dir)
			default:
				src = os.DirFS(dir)
			}
			if err := o.check(l); err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			if o.class {
				return a.checkClass(c.Context(), env, &o, l, dir)
			}
			if err := machine.Settle(env.Env, &o.spec); err != nil {
				return err
			}
			one := func() error { return a.checkOne(c.Context(), env, &o, l, dir, src) }
			if o.watch {
				return a.watchOne(c.Context(), src, lf.lang, one)
			}
			return one()
		},
	}
	machineFlags(c, &o.spec)
	failOnFlag(c, &o.failOn)
	f := c.Flags()
	f.BoolVar(&o.class, "class", false, "DIR has a directory for each learner")
	f.BoolVar(&o.watch, "watch", false, "grade again at every change of the files, until Ctrl-C")
	f.StringVar(&o.csv, "csv", "", "with --class: write the gradebook as CSV to this file, too")
	f.StringVar(&o.moodle, "moodle", "", "with --class: write grades in percent and feedback to this file, for Moodle's import of CSV")
	f.StringVar(&o.gradescope, "gradescope", "", "write results.json of a Gradescope autograder to this file")
	f.StringVar(&o.weights, "weights", "", "points of checks, CHECK=POINTS,...; others have 1")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.StringVar(&o.out, "out", "", "keep the run record in this directory; of a class: its directory (default: labctl-out/TIME-class-ID)")
	f.BoolVar(&o.resume, "resume", false, "with --class: continue the class in --out")
	intFlag(f, &o.jobs, "jobs", 1, 1000, "with --class: submissions at a time (default: as many as this host has CPUs and memory for)")
	return c
}

func (a *app) checkOne(ctx context.Context, env session.Env, o *labCheckOptions, l *lab.Lab, dir string, src fs.FS) error {
	g, err := grade.One(ctx, env, session.Options{Out: o.out, Spec: o.spec, FailOn: o.failOn}, l, grade.Submission{Src: src, Shown: filepath.Clean(dir)})
	if err != nil {
		return err
	}
	g.Learner = dir
	if !g.Outcome.Broken() || g.Outcome == outcome.BadInput {
		a.graded(ctx, l, g.Passed, g.Of, g.Outcome == outcome.OK)
	}
	if o.gradescope != "" {
		res := matrix.Result{Cell: matrix.Cell{Work: matrix.Work{Args: []string{dir}}}}
		cell.Graded(&res, g)
		data, err := class.NewBook(l, o.points, []matrix.Result{res}).Rows[0].Gradescope(l)
		if err == nil {
			err = scratch.Write(o.gradescope, data, 0o644)
		}
		if err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("--gradescope: %w", err))
		}
	}
	if o.asJSON {
		err = a.printJSON(g)
	} else {
		err = a.printGrade(o, l, g)
	}
	if err != nil {
		return err
	}
	if g.Outcome.Failed() {
		return &outcome.StatusError{Status: g.Outcome.ExitStatus()} // what there is to say is printed
	}
	return nil
}

func (a *app) printGrade(o *labCheckOptions, l *lab.Lab, g *grade.Grade) error {
	lang := o.labFlags.lang
	if g.Report == nil {
		_, err := fmt.Fprintf(a.stdout, "%s: %s\n%s\n", l.ID, show.Word(lang, g.Word()), g.Message)
		return err
	}
	if err := show.Report(a.stdout, g.Report, lang, a.cells(), false); err != nil {
		return err
	}
	if g.Report.Failed() > 0 {
		fmt.Fprintf(a.stdout, "\n== %s\n", show.Word(lang, "The kernel saw"))
		for _, line := range g.Saw {
			fmt.Fprintf(a.stdout, "  %s\n", line)
		}
	}
	switch {
	case g.Report.Failed() == 0:
	case g.Output == "":
		fmt.Fprintf(a.stdout, "\n%s\n", show.Word(lang, "The program printed nothing."))
	default:
		fmt.Fprintf(a.stdout, "\n== %s\n%s", show.Word(lang, "The program printed"), g.Output)
	}
	if g.Message != "" {
		fmt.Fprintf(a.stdout, "\n%s\n", g.Message)
	}
	_, err := fmt.Fprintf(a.stdout, "\n%s\n", show.Summary(g.Report, lang))
	return err
}
