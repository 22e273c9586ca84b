package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/facts"
	"labctl/host/lab/show"
	"labctl/host/machine"
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
	c.PersistentFlags().StringVar(&o.dir, "labs", "", "a folder with labs of your own, instead of labctl's")
	c.PersistentFlags().StringVar(&o.lang, "lang", "", "language: en, ko (default: that of LANG)")
	c.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o.lang == "" {
			o.lang = show.Lang()
		}
		if !slices.Contains(lab.Languages, o.lang) {
			return unknown("--lang", o.lang, lab.Languages)
		}
		return nil
	}
	c.AddCommand(a.labLs(&o), a.labShow(&o), a.labRun(&o), a.labClaims(&o), a.labJudge(&o), a.labShell(&o),
		a.labStart(&o), a.labCheck(&o), a.labHint(&o), a.labSolve(&o))
	return c
}

// root is where the labs are.
func (o *labFlags) root() (fs.FS, error) {
	if o.dir == "" {
		return labs.FS, nil
	}
	if fi, err := os.Stat(o.dir); err != nil || !fi.IsDir() {
		return nil, outcome.Inputf("--labs %s: no such folder", o.dir)
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
		return nil, outcome.Inputf("--labs %s: no folder in it has a %s", o.dir, lab.Config)
	}
	return set, nil
}

// find gives one lab by its id.
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

// broken tells of labs that cannot be loaded, and fails the command at its end.
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
	c.Flags().StringVar(&s.Topic, "topic", "", "labs of a topic: process, clone, kernel, memory, sched")
	c.Flags().StringVar(&s.Source, "source", "", "labs whose source has these words: seed0")
	c.Flags().StringVar(&s.Section, "section", "", "labs of a section of the book, and of those below it: 4.4")
}

// labRow is one lab of `lab ls --json`.
type labRow struct {
	*lab.Lab
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing,omitempty"`
	// Later are files that the lab needs of the guest, which are looked for when
	// it runs.
	Later   []string `json:"later,omitempty"`
	Unknown string   `json:"unknown,omitempty"` // why nothing is known of this target
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
			rows := [][]string{}
			var all []labRow
			for _, w := range []string{"ID", "TOPIC", "TITLE", "SOURCE", "STATUS"} {
				if len(rows) == 0 {
					rows = append(rows, nil)
				}
				rows[0] = append(rows[0], show.Word(o.lang, w))
			}
			status, err := a.status(c.Context(), spec)
			if err != nil {
				return err
			}
			for _, l := range set.Labs {
				if !chosen.Matches(l) {
					continue
				}
				r := status(l)
				all = append(all, r)
				word := show.Word(o.lang, "ready")
				switch {
				case r.Unknown != "":
					word = "- " + r.Unknown
				case !r.Ready:
					word = show.Word(o.lang, "not here") + ": " + strings.Join(r.Missing, "; ")
				case len(r.Later) > 0:
					word += fmt.Sprintf(show.Word(o.lang, ", if the guest has %s"), strings.Join(r.Later, ", "))
				}
				rows = append(rows, []string{l.ID, l.Topic, show.Clean(l.Title.In(o.lang)), sourceOf(l), word})
			}
			if asJSON {
				err = a.printJSON(all)
			} else {
				err = show.Table(a.stdout, rows)
			}
			return errors.Join(err, a.broken(set))
		},
	}
	filterFlags(c, &chosen)
	machineFlags(c, &spec)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// sourceOf is short: "seed0 · 4.4.1".
func sourceOf(l *lab.Lab) string {
	var parts []string
	for _, s := range strings.Split(l.Source.Seed, ";") {
		if name, _, _ := strings.Cut(strings.TrimSpace(s), ":"); name != "" {
			parts = append(parts, show.Clean(name))
		}
	}
	for _, s := range l.Source.Book {
		parts = append(parts, show.Clean(s))
	}
	return strings.Join(slices.Compact(parts), " · ")
}

// status says of a lab whether it can run, from what is known of the kernel
// without booting it. Nothing is downloaded for it.
func (a *app) status(ctx context.Context, spec machine.Spec) (func(*lab.Lab) labRow, error) {
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	if err := machine.Settle(env.Env, &spec); err != nil {
		return nil, err
	}
	t, err := machine.FindTarget(spec.Arch, spec.Board)
	if err != nil {
		return nil, err
	}
	ref := env.Cache.Default(t.Arch)
	if spec.Kernel != "" {
		if ref, err = kernel.ParseRef(spec.Kernel); err != nil {
			return nil, outcome.Inputf("--kernel: %w", err)
		}
	}
	k, err := env.Cache.Find(ref, t.Arch)
	if errors.Is(err, kernel.ErrNotCached) {
		return func(l *lab.Lab) labRow {
			return labRow{Lab: l, Unknown: fmt.Sprintf("kernel %s for %s is not cached", ref, t.Arch)}
		}, nil
	}
	if err != nil {
		return nil, err
	}
	return func(l *lab.Lab) labRow {
		known, err := facts.Of(ctx, k, t, l.Asks())
		if err != nil {
			return labRow{Lab: l, Unknown: show.Clean(err.Error())}
		}
		missing := facts.Missing(l.Needs, &known, t)
		return labRow{Lab: l, Ready: len(missing) == 0, Missing: missing, Later: facts.Later(l.Needs)}
	}, nil
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
			source, err := show.Lesson(l, o.lang, func(name string) ([]byte, error) { return fs.ReadFile(l.Dir, name) }, answers)
			if err != nil {
				return err
			}
			out := show.Markdown(source, a.cells(), !isTerminal(a.stdout) || os.Getenv("NO_COLOR") != "")
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

// cells is the terminal's width, within what reads well.
func (a *app) cells() int {
	if f, ok := a.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return min(max(w, 40), 100)
		}
	}
	return 80
}
