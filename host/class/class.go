// Package class is a class's work on one exercise: the submissions, a directory for
// each learner, and the gradebook. host/matrix/cell grades them.
package class

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/grade"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/text"
)

// maxLearners bounds a class.
const maxLearners = 5000

// Class is the submissions of a class to one exercise.
type Class struct {
	// Ignored has one line for each entry of the directory that is no submission.
	Ignored []string

	path     string
	root     *os.Root
	learners []learner
}

type learner struct {
	name  string // clean, another for each learner
	dir   string // its name in root
	err   error  // why it cannot be read
	input string // a hash of the source
	marks fingerprints
}

// Open reads the submissions in a directory: each directory in it is a learner's. A
// symbolic link is a submission that cannot be read: it may come out of a learner's
// archive and point at another's work.
func Open(path string) (_ *Class, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open class: %w", err)
	}
	c := &Class{path: path, root: root}
	if err := c.read(); err != nil {
		root.Close()
		return nil, fmt.Errorf("open class: %w", err)
	}
	return c, nil
}

func (c *Class) read() error {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		l := learner{name: text.Line(e.Name(), 200), dir: e.Name()}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			l.err = compile.NoSource("%s is a symbolic link; want a directory", c.shown(l))
		case !e.IsDir():
			c.Ignored = append(c.Ignored, c.shown(l)+" is not a directory: not graded")
			continue
		}
		for n := 2; names[l.name]; n++ { // two names that look the same
			l.name = fmt.Sprintf("%s (%d)", text.Line(e.Name(), 190), n)
		}
		names[l.name] = true
		if len(c.learners) == maxLearners {
			return outcome.Inputf("%s has more than %d directories", c.path, maxLearners)
		}
		c.learners = append(c.learners, l)
	}
	if len(c.learners) == 0 {
		return outcome.Inputf("%s has no directories; want one for each learner", c.path)
	}
	for i := range c.learners {
		c.look(&c.learners[i])
	}
	return nil
}

// look reads a learner's source for what tells it from others.
func (c *Class) look(l *learner) {
	s, done := c.open(*l)
	defer done()
	if s.Err != nil {
		return
	}
	files, err := compile.Files(compile.Source{FS: s.Src, Shown: s.Shown})
	if err != nil {
		return // the grade will say so
	}
	l.input, l.marks = compile.Hash(files), marksOf(files)
}

func (c *Class) shown(l learner) string {
	return text.Line(filepath.Join(c.path, l.dir), 300)
}

// Cells are the submissions as cells of a matrix, on the machine of on.
func (c *Class) Cells(on matrix.Cell, l *lab.Lab) (cells []matrix.Cell) {
	for _, who := range c.learners {
		on.Work = matrix.Work{Kind: matrix.Exercise, Name: l.ID, Args: []string{who.name}}
		on.Input = who.input
		cells = append(cells, on)
	}
	return cells
}

// Submission is the submission of a learner of Cells.
func (c *Class) Submission(name string) (s grade.Submission, done func()) {
	for _, l := range c.learners {
		if l.name == name {
			return c.open(l)
		}
	}
	return grade.Submission{Shown: name, Err: outcome.Errorf(outcome.Internal, "no learner is called %q", name)}, func() {}
}

// open opens a learner's directory, once: it may change under us, and nothing outside
// it is read.
func (c *Class) open(l learner) (s grade.Submission, done func()) {
	s = grade.Submission{Shown: c.shown(l), Err: l.err}
	if s.Err != nil {
		return s, func() {}
	}
	dir, err := c.root.OpenRoot(l.dir)
	if err != nil {
		var bad *fs.PathError
		if errors.As(err, &bad) {
			err = bad.Err
		}
		s.Err = compile.NoSource("open %s: %v", s.Shown, err)
		return s, func() {}
	}
	s.Src = dir.FS()
	return s, func() { dir.Close() }
}

// Close gives the class up.
func (c *Class) Close() error { return c.root.Close() }
