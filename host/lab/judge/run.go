package judge

import (
	"errors"
	"fmt"
	"path/filepath"

	"labctl/host/bounded"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/record"
	"labctl/host/scratch"
)

// Run is one run of a lab, or of a program by the rules of a lab's exercise, as its
// record has it.
type Run struct {
	Dir    record.Dir
	Record record.Run // zero when the record has a result and nothing else
	Lab    *lab.Lab
	Result *result.Result
	Report *Report // nil when there is nothing to judge
	// Unfinished is why there is no Report, of a run that failed.
	Unfinished *UnfinishedError
}

// FindLab finds a lab by its id.
type FindLab func(id string) (*lab.Lab, error)

// Read judges the record of a run again, by the lab as it is now. With an
// *UnfinishedError there is a Run nevertheless, with what the record has.
func Read(dir string, find FindLab) (*Run, error) {
	r := &Run{Dir: record.Dir{Path: dir}}
	var err error
	if r.Result, err = result.Read(r.Dir.File(result.File)); err != nil {
		return nil, err
	}
	if r.Lab, err = find(r.Result.Lab); err != nil {
		return nil, err
	}
	if run, err := r.Dir.ReadRun(); err == nil {
		r.Record = *run
	}
	r.Report, err = Judge(r.Lab, r.Result)
	errors.As(err, &r.Unfinished)
	return r, err
}

// ReadAll judges the records in the directories of one directory, or the one that it
// is itself when they have none. Of several one that cannot be judged keeps no other from it.
func ReadAll(dir string, find FindLab) ([]*Run, error) {
	if err := bounded.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("%s: %w; give the directory that was --out", dir, err)
	}
	files, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(dir), "*", result.File))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		files = []string{filepath.Join(dir, result.File)}
	}
	var runs []*Run
	for _, f := range files {
		r, err := Read(filepath.Dir(f), find)
		if err != nil && (len(files) == 1 || r == nil || r.Unfinished == nil) {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}
