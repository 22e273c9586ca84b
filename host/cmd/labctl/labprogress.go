package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/lab/show"
	"labctl/host/outcome"
)

// note remembers how far the learner has come. That it cannot is said, and changes
// nothing else.
func (a *app) note(ctx context.Context, id string, change func(*progress.Lab)) {
	s, err := progress.Open("")
	if err == nil {
		err = s.Update(context.WithoutCancel(ctx), id, change)
	}
	if err != nil {
		a.warn(err.Error())
	}
}

func (a *app) labProgress(o *labFlags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "progress",
		Short: "Show how far you have come with each lab",
		Long: `List the labs with what you have done: when a lab was last run and how many of its
checks held, how often its exercise was graded, the last grade, when it was solved, and
how many hints were read. It is kept in progress.json of the user's data directory
(LABCTL_DATA, else labctl in XDG_DATA_HOME or ~/.local/share); nothing is graded by it.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := a.load(o)
			if err != nil {
				return err
			}
			s, err := progress.Open("")
			if err != nil {
				return err
			}
			all, err := s.Read()
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(all)
			} else {
				err = show.Progress(a.stdout, set.Labs, all, o.lang)
			}
			return errors.Join(err, a.broken(set))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) labAnswers(o *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "answers ID",
		Short: "Show the answers to a lab's questions, after a try",
		Long: `Show the questions of a lab with their answers. They are for those who have tried: its
exercise must have been graded once by labctl lab check, or, of a lab without an
exercise, the lab run.`,
		Args: oneLab,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.find(o, args[0])
			if err != nil {
				return err
			}
			if len(l.Questions) == 0 {
				return outcome.Inputf("lab %s has no questions", l.ID)
			}
			s, err := progress.Open("")
			if err != nil {
				return err
			}
			all, err := s.Read()
			if err != nil {
				return err
			}
			if have := all[l.ID]; have == nil || !have.MayRead(l.Exercise != nil) {
				first := "labctl lab run " + l.ID
				if l.Exercise != nil {
					first = fmt.Sprintf("labctl lab start %s, labctl lab check %s", l.ID, l.ID)
				}
				return outcome.Inputf("lab %s: try first (%s); then the answers are here", l.ID, first)
			}
			_, err = fmt.Fprint(a.stdout, show.Markdown(show.Questions(l, o.lang, true), a.cells(), a.plain()))
			return err
		},
	}
}

// poll is how often a directory that is watched is looked at.
const poll = 400 * time.Millisecond

// watchOne grades a submission at every change of its files, until it is interrupted.
func (a *app) watchOne(ctx context.Context, src fs.FS, lang string, grade func() error) error {
	for {
		before := stamp(src)
		if err := grade(); err != nil {
			var failed *outcome.StatusError // it is printed, and may be better next time
			if ctx.Err() != nil || !errors.As(err, &failed) && outcome.Of(err) != outcome.BadInput {
				return err
			}
			if !errors.As(err, &failed) {
				a.report(err)
			}
		}
		a.say(show.Word(lang, "waiting for a change; Ctrl-C ends"))
		for same := true; same; same = stamp(src) == before {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(poll):
			}
		}
		// An editor writes several files, or one in pieces: until it is quiet.
		for now := ""; now != stamp(src); time.Sleep(poll / 2) {
			now = stamp(src)
		}
		fmt.Fprintf(a.stdout, "\n== %s\n", time.Now().Format(time.TimeOnly))
	}
}

// maxWatched bounds the files that are looked at.
const maxWatched = 2000

// stamp is the names, sizes and times of the files of a directory.
func stamp(src fs.FS) (s string) {
	n := 0
	fs.WalkDir(src, ".", func(name string, d fs.DirEntry, err error) error {
		if n++; err != nil || n > maxWatched {
			return fs.SkipAll // what is wrong with it the grade says
		}
		if fi, err := d.Info(); err == nil && !d.IsDir() {
			s += fmt.Sprintln(name, fi.Size(), fi.ModTime().UnixNano())
		}
		return nil
	})
	return s
}

// graded notes a grade.
func (a *app) graded(ctx context.Context, l *lab.Lab, passed, of int, solved bool) {
	a.note(ctx, l.ID, func(p *progress.Lab) { p.Try(passed, of, solved) })
}
