package main

import (
	"context"

	"labctl/host/class"
	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/session"
)

// checkClass grades a class as the cells of a matrix.
func (a *app) checkClass(ctx context.Context, env session.Env, o *labCheckOptions, l *lab.Lab, dir string) error {
	c, err := class.Open(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, line := range c.Ignored {
		a.say(line)
	}
	on, err := cell.On(env.Env, o.spec)
	if err != nil {
		return err
	}
	r := &cell.Runner{Env: env, Spec: o.spec, FailOn: o.failOn, Lab: func(string) (*lab.Lab, error) { return l, nil }, Submission: c.Submission}
	defer r.Close()
	plan := c.Cells(on, l)
	if err := r.Check(plan[:1]); err != nil { // else it would be every learner's fault
		return err
	}
	m, err := r.Matrix(ctx, cell.Options{
		Name: "class-" + l.ID, Plan: plan, Out: o.out, Label: "class-" + l.ID, Resume: o.resume, Changes: true, Jobs: o.jobs,
		Again: "labctl lab check " + l.ID + " --class " + dir, Watch: a.progress.Cells,
		Kept: func(dir string, soFar []matrix.Result) error {
			return class.NewBook(l, o.points, soFar).Keep(dir, o.csv, o.moodle)
		},
	})
	if err != nil {
		return err
	}
	book := class.NewBook(l, o.points, m.Results.Results)
	skeleton, err := compile.Skeleton(l)
	if err != nil {
		return err
	}
	book.Similar = c.Similar(skeleton)
	a.say("the gradebook and the records: " + m.Dir)
	if o.asJSON {
		err = a.printJSON(book)
	} else {
		err = book.Print(a.stdout, o.labFlags.lang, a.width())
	}
	if err != nil {
		return err
	}
	return book.End()
}
