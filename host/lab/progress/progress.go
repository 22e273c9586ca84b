// Package progress remembers how far a learner has come: of each lab, when it was run and
// what became of it, how often the exercise was tried, when it was first solved, and how
// many hints were read.
//
// It is one file for all of a user's labctls: progress.json in LABCTL_DATA, else in
// labctl in $XDG_DATA_HOME, else in ~/.local/share/labctl. Nothing is judged by it. It
// has no paths, and no word of what the learner wrote.
//
//	s, err := progress.Open("")
//	err = s.Update(ctx, "P1", func(l *progress.Lab) { l.Try(passed, of) })
//	all, err := s.Read()
package progress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/strictjson"
)

// Schema names the form of the file.
const Schema = "labctl/progress/v1"

const (
	fileName = "progress.json"
	maxFile  = 1 << 20 // bytes
	maxLabs  = 2000
	maxCount = 1_000_000
)

// Lab is how far a learner has come with one lab.
type Lab struct {
	// Ran is when the lab was last run; Held of Checks of its checks held then.
	Ran    time.Time `json:"ran,omitzero"`
	Held   int       `json:"held,omitempty"`
	Checks int       `json:"checks,omitempty"`

	// Tries counts how often the exercise was graded; Passed of Of is the last grade.
	Tries  int       `json:"tries,omitempty"`
	Tried  time.Time `json:"tried,omitzero"`
	Passed int       `json:"passed,omitempty"`
	Of     int       `json:"of,omitempty"`
	Solved time.Time `json:"solved,omitzero"` // for the first time

	Hints int `json:"hints,omitempty"` // that were read
}

// Run notes that the lab was run, and how many of its checks hold.
func (l *Lab) Run(held, checks int) {
	l.Ran, l.Held, l.Checks = now(), held, checks
}

// Try notes a grade of the exercise.
func (l *Lab) Try(passed, of int, solved bool) {
	l.Tries = min(l.Tries+1, maxCount)
	l.Tried, l.Passed, l.Of = now(), passed, of
	if solved && l.Solved.IsZero() {
		l.Solved = l.Tried
	}
}

// Hint notes that so many hints are read.
func (l *Lab) Hint(n int) { l.Hints = max(l.Hints, n) }

// MayRead reports whether the answers to the lab's questions are for the learner to
// read: there was a try before, at the exercise, or, where there is none, at the lab.
func (l *Lab) MayRead(exercise bool) bool {
	if exercise {
		return l.Tries > 0
	}
	return !l.Ran.IsZero()
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// Store is the file.
type Store struct{ path string }

// Open finds the file in a directory, or where the package's comment says if that is
// empty. There need be none.
func Open(dir string) (*Store, error) {
	if dir == "" {
		dir = os.Getenv("LABCTL_DATA")
	}
	if dir == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(base) {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, outcome.Hostf("keep progress: %w; set LABCTL_DATA to a directory", err)
			}
			base = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(base, "labctl")
	}
	return &Store{filepath.Join(dir, fileName)}, nil
}

// file is the document.
type file struct {
	Schema string          `json:"schema"`
	Labs   map[string]*Lab `json:"labs"`
}

// Read returns the labs that there is something to say of, by their ids.
func (s *Store) Read() (map[string]*Lab, error) {
	data, err := bounded.ReadFile(s.path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]*Lab{}, nil
	}
	if err == nil {
		var labs map[string]*Lab
		if labs, err = decode(data); err == nil {
			return labs, nil
		}
	}
	return nil, outcome.Inputf("progress in %s: %w; mend the file or remove it", s.path, err)
}

var labID = regexp.MustCompile(`^[A-Z][0-9]{1,2}$`)

// decode reads and checks the document.
func decode(data []byte) (map[string]*Lab, error) {
	var f file
	if err := (strictjson.Format{Schema: Schema, Max: maxFile}).Decode(data, &f); err != nil {
		return nil, err
	}
	if len(f.Labs) > maxLabs {
		return nil, fmt.Errorf("%d labs; at most %d are read", len(f.Labs), maxLabs)
	}
	if f.Labs == nil {
		f.Labs = map[string]*Lab{}
	}
	for id, l := range f.Labs {
		if !labID.MatchString(id) {
			return nil, fmt.Errorf("%.40q is no lab's id", id)
		}
		if l == nil {
			delete(f.Labs, id)
			continue
		}
		for _, n := range []int{l.Held, l.Checks, l.Tries, l.Passed, l.Of, l.Hints} {
			if n < 0 || n > maxCount {
				return nil, fmt.Errorf("lab %s: a count of %d", id, n)
			}
		}
	}
	return f.Labs, nil
}

// Update changes what is known of a lab. Other labctls that do so at the same time wait
// for each other.
func (s *Store) Update(ctx context.Context, id string, change func(*Lab)) (err error) {
	defer func() {
		if err != nil {
			err = outcome.Default(outcome.HostLacks, fmt.Errorf("keep progress: %w", err))
		}
	}()
	if !labID.MatchString(id) {
		return outcome.Inputf("%.40q is no lab's id", id)
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	lock, err := scratch.TakeLock(ctx, s.path+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	labs, err := s.Read()
	if err != nil {
		return err
	}
	l := labs[id]
	if l == nil {
		l = new(Lab)
		labs[id] = l
	}
	change(l)
	data, err := json.MarshalIndent(file{Schema, labs}, "", "  ")
	if err != nil {
		return err
	}
	return scratch.Write(s.path, append(data, '\n'), 0o600)
}
