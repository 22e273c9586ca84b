package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"labctl/host/bounded"
	"labctl/host/lab"
	"labctl/host/lab/facts"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/labs"
)

// labFlags are what every command of `lab` takes.
type labFlags struct {
	dir  string // --labs
	lang string
}

func (a *app) labCmd() *cobra.Command {
	var o labFlags
	c := &cobra.Command{
		Use:   "lab",
		Short: "Lessons and experiments on a real kernel, and exercises that are graded",
		Example: `  labctl lab ls
  labctl lab show P1 --lang ko
  labctl lab run P1
  labctl lab start P1 && labctl lab check P1 P1`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	c.PersistentFlags().StringVar(&o.dir, "labs", "", "a directory with labs of your own, instead of labctl's")
	c.PersistentFlags().StringVar(&o.lang, "lang", "", "language: en, ko (default: that of LANG)")
	c.PersistentPreRunE = func(*cobra.Command, []string) error {
		a.labs = &o
		if o.lang == "" {
			o.lang = show.Lang()
		}
		if !slices.Contains(lab.Languages, o.lang) {
			return nearest.Unknown("--lang", o.lang, lab.Languages)
		}
		return nil
	}
	c.AddCommand(a.labLs(&o), a.labShow(&o), a.labRun(&o), a.labClaims(&o), a.labJudge(&o), a.labShell(&o),
		a.labStart(&o), a.labCheck(&o), a.labHint(&o), a.labAnswers(&o), a.labProgress(&o), a.labSolve(&o), a.labNew(&o), a.labLint(&o))
	return c
}

// root is where the labs are.
func (o *labFlags) root() (fs.FS, error) {
	if o.dir == "" {
		return labs.FS, nil
	}
	if err := bounded.CheckDir(o.dir); err != nil {
		return nil, fmt.Errorf("--labs %s: %w", o.dir, err)
	}
	return os.DirFS(o.dir), nil
}

// load reads the labs. Broken ones are told of and left out.
func (a *app) load(o *labFlags) (*lab.Set, error) {
	root, err := o.root()
	if err != nil {
		return nil, err
	}
	set, err := lab.Load(root)
	if err != nil {
		return nil, err
	}
	if len(set.Labs) == 0 && len(set.Broken) == 0 {
		return nil, outcome.Inputf("--labs %s: no directory in it has a %s", o.dir, lab.Config)
	}
	return set, nil
}

// find returns one lab by its id.
func (a *app) find(o *labFlags, id string) (*lab.Lab, error) {
	root, err := o.root()
	if err != nil {
		return nil, err
	}
	l, err := lab.One(root, id)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	return l, nil
}

// ownLab returns one of labctl's own labs by its id.
func (a *app) ownLab(id string) (*lab.Lab, error) { return a.find(&labFlags{}, id) }

// broken reports labs that cannot be loaded, and fails the command at its end.
func (a *app) broken(set *lab.Set) error {
	if len(set.Broken) == 0 {
		return nil
	}
	for _, err := range set.Broken[1:] {
		fmt.Fprintf(a.stderr, "labctl: %v\n", err)
	}
	return outcome.Default(outcome.BadInput, set.Broken[0])
}

// filterFlags are the flags that choose labs by what they are about.
func filterFlags(c *cobra.Command, s *lab.Selection) {
	c.Flags().StringVar(&s.Topic, "topic", "", "labs of a topic; labctl's own have process, clone, kernel, memory, sched")
	c.Flags().StringVar(&s.Source, "source", "", "labs whose source has these words: seed0")
	c.Flags().StringVar(&s.Section, "section", "", "labs of a section of the book, and of those below it: 4.4")
}

func (a *app) labLs(o *labFlags) *cobra.Command {
	var chosen lab.Selection
	var spec machine.Spec
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the labs, and whether they can run on a kernel",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := a.load(o)
			if err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			matching := slices.DeleteFunc(set.Labs, func(l *lab.Lab) bool { return !chosen.Matches(l) })
			all, err := facts.List(c.Context(), env.Env, spec, matching)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(all)
			} else {
				err = show.List(a.stdout, all, o.lang, chosen.Source, a.width())
			}
			return errors.Join(err, a.broken(set))
		},
	}
	filterFlags(c, &chosen)
	machineFlags(c, &spec)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) labShow(o *labFlags) *cobra.Command {
	var answers bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a lab's lesson",
		Args:  oneLab,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.find(o, args[0])
			if err != nil {
				return err
			}
			source, err := show.Lesson(l, o.lang, l.ReadFile, answers)
			if err != nil {
				return err
			}
			out := show.Markdown(source, a.cells(), a.plain())
			_, err = fmt.Fprint(a.stdout, out)
			return err
		},
	}
	c.Flags().BoolVar(&answers, "answers", false, "with the answers to the questions")
	return c
}

// oneLab is for commands that take a lab's id and nothing else.
func oneLab(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return outcome.Inputf("%s takes the id of one lab: P1 (see labctl lab ls)", c.CommandPath())
	}
	return nil
}

// plain reports whether standard output takes no colours.
func (a *app) plain() bool { return !isTerminal(a.stdout) || os.Getenv("NO_COLOR") != "" }

// cells is the terminal's width, within what reads well.
func (a *app) cells() int {
	if w := a.width(); w > 0 {
		return min(max(w, 40), 100)
	}
	return 80
}
