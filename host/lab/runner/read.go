package runner

import (
	"path/filepath"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/record"
	"labctl/host/scratch"
	"labctl/host/session"
)

// Read judges the record of a lab again, or those of several in one directory, by
// the labs that find gives.
func Read(dir string, find func(id string) (*lab.Lab, error)) ([]*Run, error) {
	files, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(dir), "*", result.File))
	if err != nil {
		return nil, err
	}
	if own := filepath.Join(dir, result.File); len(files) == 0 {
		files = []string{own}
	}
	var runs []*Run
	for _, f := range files {
		r, err := read(f, find)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func read(file string, find func(id string) (*lab.Lab, error)) (*Run, error) {
	res, err := result.Read(file)
	if err != nil {
		return nil, err
	}
	l, err := find(res.Lab)
	if err != nil {
		return nil, err
	}
	r := &Run{Session: &session.Session{Dir: record.Dir{Path: filepath.Dir(file)}}, Lab: l, Result: res}
	if rec, err := r.Dir.ReadRun(); err == nil {
		r.Session.Run = *rec
	}
	r.Report, err = judge.Judge(l, res)
	return r, err
}
