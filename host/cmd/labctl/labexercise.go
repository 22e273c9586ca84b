package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/grade"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/session"
	"labctl/host/ui/table"
)

// exercise gives a lab that has an exercise.
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
			task := lab.Task
			if o.lang == "ko" {
				task = lab.TaskKO
			}
			b, err := fs.ReadFile(l.Dir, path.Join(lab.Exercise, task))
			if err != nil {
				return err
			}
			out := show.Markdown(string(b), a.cells(), !isTerminal(a.stdout) || os.Getenv("NO_COLOR") != "")
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
		Short: "Write the solution of a lab's exercise to a folder",
		Args:  labAndDir,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.exercise(o, args[0])
			if err != nil {
				return err
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
		return outcome.Inputf("%s takes the id of a lab, and a folder: P1 ./mine", c.CommandPath())
	}
	return nil
}

func (a *app) labHint(o *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "hint ID [N]",
		Short: "Give a hint for a lab's exercise: the first, or the Nth",
		Args:  labAndDir,
		RunE: func(_ *cobra.Command, args []string) error {
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
			if n < all {
				a.say(fmt.Sprintf(show.Word(o.lang, "there are more: labctl lab hint %s %d"), l.ID, n+1))
			}
			return nil
		},
	}
}

type labCheckOptions struct {
	labFlags *labFlags
	spec     machine.Spec
	class    bool
	csv      string
	asJSON   bool
	out      string
	jobs     int
}

func (a *app) labCheck(lf *labFlags) *cobra.Command {
	o := labCheckOptions{labFlags: lf}
	c := &cobra.Command{
		Use:   "check ID [DIR]",
		Short: "Grade an exercise: build the program in DIR, run it, look at what the kernel saw",
		Long: `Build the Go program in DIR for the guest (where labctl lab start ID has put it, when
no DIR is given), run it in a machine of its own under the exercise's trace, and hold what the kernel saw against the exercise's checks.
What the program prints counts only where a check compares it with the kernel.

With --class DIR has a folder for each learner. They are graded several at a time,
each in a machine of its own: whatever one does, the others do not notice.

Exit status: 0 all checks hold, 1 one does not or the program prints too much, 2 it
does not compile, 4 it brings the kernel down, 5 it does not end in time. Of a class:
1 when one of these befalls anybody.`,
		Example: `  labctl lab check P1
  labctl lab check P1 ./mine
  labctl lab check P1 --class ./submissions --csv grades.csv`,
		Args: func(c *cobra.Command, args []string) error {
			if o.class && len(args) != 2 {
				return outcome.Inputf("%s --class takes the id of a lab and a folder of folders: P1 ./submissions", c.CommandPath())
			}
			return labAndDir(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			l, err := a.exercise(lf, args[0])
			if err != nil {
				return err
			}
			dir := l.ID
			if len(args) == 2 {
				dir = args[1]
			}
			if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
				return outcome.Inputf("%s: no such folder; labctl lab start %s makes one", dir, l.ID)
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			if err := machine.Settle(env.Env, &o.spec); err != nil {
				return err
			}
			if o.class {
				return a.checkClass(c.Context(), env, &o, l, dir)
			}
			if o.csv != "" {
				return outcome.Inputf("--csv is for --class")
			}
			return a.checkOne(c.Context(), env, &o, l, dir)
		},
	}
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.BoolVar(&o.class, "class", false, "DIR has a folder for each learner")
	f.StringVar(&o.csv, "csv", "", "write the gradebook as CSV to this file")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.StringVar(&o.out, "out", "", "keep run records in this folder")
	f.IntVar(&o.jobs, "jobs", 0, "with --class: submissions at a time (default: as many as this host has CPUs and memory for)")
	return c
}

func (a *app) checkOne(ctx context.Context, env session.Env, o *labCheckOptions, l *lab.Lab, dir string) error {
	g, err := grade.One(ctx, env, session.Options{Out: o.out, Spec: o.spec}, l, grade.Submission{Src: os.DirFS(dir), Shown: filepath.Clean(dir)})
	if err != nil {
		return err
	}
	g.Learner = dir
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

func (a *app) checkClass(ctx context.Context, env session.Env, o *labCheckOptions, l *lab.Lab, root string) error {
	lang := o.labFlags.lang
	grades, err := grade.Class(ctx, env, o.spec, l, root, o.out, cmp.Or(o.jobs, runtime.GOMAXPROCS(0)), func(g *grade.Grade) {
		a.say(fmt.Sprintf("%s: %s %d/%d", g.Learner, show.Word(lang, g.Word()), g.Passed, g.Of))
	})
	if err != nil {
		return err
	}
	if o.csv != "" {
		if err := writeBook(o.csv, func(w io.Writer) error { return grade.CSV(w, l, grades) }); err != nil {
			return err
		}
	}
	rows, failed := a.table(show.Word(lang, "LEARNER"), show.Word(lang, "VERDICT"), show.Word(lang, "CHECKS"), ""), 0
	for _, g := range grades {
		if g.Outcome.Failed() {
			failed++
		}
		rows.Row(g.Learner, show.Word(lang, g.Word()), fmt.Sprintf("%d/%d", g.Passed, g.Of), show.Clean(g.Message))
	}
	if o.asJSON {
		err = a.printJSON(grades)
	} else {
		err = rows.Write(a.stdout)
	}
	if err != nil {
		return err
	}
	if failed > 0 {
		return &outcome.StatusError{Status: outcome.CheckFailed.ExitStatus()}
	}
	return nil
}

// writeBook writes a file whole or not at all.
func writeBook(name string, write func(io.Writer) error) error {
	f, err := scratch.Create(filepath.Dir(name))
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Keep(filepath.Base(name), 0o644)
}
