package serve

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/grade"
	"labctl/host/lab/progress"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/text"
)

const (
	lookEvery  = 400 * time.Millisecond // at the files of the folders
	maxEntries = 500                    // of a folder, looked at for changes
	maxFolders = 8                      // that are graded at every save
)

// exerciseState is what the page shows of an exercise.
type exerciseState struct {
	Lab     string   `json:"lab"`
	Folder  string   `json:"folder"`
	State   string   `json:"state"` // "grading", "graded", "failed"
	Word    string   `json:"word,omitempty"`
	Message string   `json:"message,omitempty"`
	Report  *report  `json:"report,omitempty"`
	Saw     []string `json:"saw,omitempty"`
	Output  string   `json:"output,omitempty"`
	Solved  bool     `json:"solved"`
	Seconds float64  `json:"seconds,omitempty"`
	Trouble string   `json:"trouble,omitempty"`
}

// exercise is a learner's folder, of one lab.
type exercise struct {
	lab    *lab.Lab
	state  exerciseState
	seen   string // of the files, when they were last looked at
	graded string // of the files that were graded, or are
}

type exercises struct {
	mu  sync.Mutex
	all map[string]*exercise // by lab
}

func (s *Server) exerciseStates() (all []exerciseState) {
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	for _, x := range s.work.all {
		all = append(all, x.state)
	}
	return all
}

// folder is a folder below the directory of the server's. Links that lead out of it are
// none.
func (s *Server) folder(name string) (string, error) {
	if name == "" || len(name) > 300 || !filepath.IsLocal(name) {
		return "", outcome.Inputf("%.80q: name a folder in the one that labctl serve was started in", name)
	}
	name = path.Clean(filepath.ToSlash(name))
	fi, err := s.root.Stat(name)
	if err != nil || !fi.IsDir() {
		return "", outcome.Inputf("%.80q: there is no such folder where labctl serve was started", name)
	}
	return name, nil
}

// begin copies the skeleton of an exercise to a new folder.
func (s *Server) begin(l *lab.Lab) (string, error) {
	if _, err := s.root.Lstat(l.ID); err == nil {
		return l.ID, nil
	}
	return l.ID, compile.Copy(l, lab.Exercise, filepath.Join(s.o.Dir, l.ID))
}

// pick has a folder graded now, and at every save.
func (s *Server) pick(l *lab.Lab, folder string) error {
	folder, err := s.folder(folder)
	if err != nil {
		return err
	}
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	if s.work.all[l.ID] == nil && len(s.work.all) >= maxFolders {
		return outcome.Inputf("%d exercises are watched already", maxFolders)
	}
	s.work.all[l.ID] = &exercise{lab: l, state: exerciseState{Lab: l.ID, Folder: folder, State: "grading"}}
	return nil
}

// watch looks at the folders, and grades what has changed, one after another. A folder
// is graded when it stood still between two looks: an editor may write a file in
// several goes.
func (w *exercises) watch(s *Server) func() {
	return func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-s.ctx.Done():
				return
			}
			for _, x := range w.changed(s) {
				s.gradeExercise(s.ctx, x)
			}
		}
	}
}

func (w *exercises) changed(s *Server) (out []*exercise) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.all {
		now := s.stamp(x.state.Folder)
		if now == x.seen && now != x.graded {
			x.graded = now
			out = append(out, x)
		}
		x.seen = now
	}
	return out
}

// stamp tells two states of a folder apart by names, sizes and times.
func (s *Server) stamp(folder string) string {
	h := sha256.New()
	n := 0
	dir, err := s.root.OpenRoot(folder)
	if err != nil {
		return "gone"
	}
	defer dir.Close()
	err = fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n++; n > maxEntries {
			return fs.SkipAll
		}
		if fi, err := d.Info(); err == nil && !d.IsDir() {
			fmt.Fprintln(h, name, fi.Size(), fi.ModTime().UnixNano())
		}
		return nil
	})
	if err != nil {
		return "gone"
	}
	return string(h.Sum(nil))
}

func (s *Server) changeExercise(x *exercise, change func(*exerciseState)) {
	s.work.mu.Lock()
	change(&x.state)
	now := x.state
	current := s.work.all[x.lab.ID] == x
	s.work.mu.Unlock()
	if current {
		s.hub.send("exercise", now)
	}
}

func (s *Server) gradeExercise(ctx context.Context, x *exercise) {
	s.changeExercise(x, func(e *exerciseState) { e.State = "grading" })
	env := s.o.Env
	env.Say, env.Warn = nil, nil
	g, err := s.gradeFolder(ctx, env, x)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.changeExercise(x, func(e *exerciseState) {
			e.State, e.Trouble = "failed", text.Line(err.Error(), maxLine)
		})
		return
	}
	solved := g.Outcome == outcome.OK
	s.keep(x.lab.ID, func(p *progress.Lab) { p.Try(g.Passed, g.Of, solved) })
	s.changeExercise(x, func(e *exerciseState) {
		*e = exerciseState{
			Lab: e.Lab, Folder: e.Folder, State: "graded", Word: g.Word(), Message: text.Clean(g.Message), Report: newReport(g.Report),
			Saw: lines(g.Saw), Output: text.Clean(g.Output), Solved: solved, Seconds: g.Seconds,
		}
	})
}

// gradeFolder grades what is in the folder now.
func (s *Server) gradeFolder(ctx context.Context, env session.Env, x *exercise) (*grade.Grade, error) {
	dir, err := s.root.OpenRoot(x.state.Folder)
	if err != nil {
		return nil, outcome.Inputf("the folder %s is gone", x.state.Folder)
	}
	defer dir.Close()
	return grade.One(ctx, env, session.Options{Spec: s.o.Spec}, x.lab, grade.Submission{Src: dir.FS(), Shown: x.state.Folder})
}

// folders are those that a learner may pick: the ones with Go files in them, at the
// first two levels.
func (s *Server) folders() (out []string) {
	out = []string{}
	top, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return out
	}
	has := func(dir string) bool {
		entries, err := fs.ReadDir(s.root.FS(), dir)
		return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return path.Ext(e.Name()) == ".go" })
	}
	for i, e := range top {
		if i == maxEntries || len(out) == 100 {
			break
		}
		if e.IsDir() && e.Name()[0] != '.' && has(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out
}
