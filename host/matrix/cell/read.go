package cell

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labctl/host/bounded"
	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/lab/show"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
)

// Read reads a matrix, a lab's run, or a directory of those. Labs are judged again,
// as find gives them.
func Read(dir string, find judge.FindLab) (_ *matrix.Results, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if err := bounded.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("%w; give the directory that was --out", err)
	}
	switch {
	case there(dir, matrix.File):
		return matrix.Read(dir)
	case there(dir, matrix.CellDir):
		return nil, errors.New("this matrix has not ended; labctl matrix run --resume brings it to its end")
	case there(dir, record.RunFile):
		return labResults(find, dir, []string{"."})
	}
	files, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(dir), "*", record.RunFile))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("neither %s nor %s is in it or in a directory of it; give the --out of labctl matrix run or lab run", matrix.File, record.RunFile)
	}
	var subs []string
	for _, f := range files {
		subs = append(subs, filepath.Base(filepath.Dir(f)))
	}
	return labResults(find, dir, subs)
}

// ReadLabs judges again what labs left in a directory: one lab's record, those of
// several, or a matrix.
func ReadLabs(dir string, find judge.FindLab) ([]show.Ran, error) {
	if there(dir, matrix.File) || there(dir, matrix.CellDir) {
		r, err := Read(dir, find)
		if err != nil {
			return nil, err
		}
		return Labs(dir, r, find)
	}
	all, err := judge.ReadAll(dir, find)
	var runs []show.Ran
	for _, r := range all {
		one := show.Ran{Run: r}
		if r.Unfinished != nil {
			one.Why = r.Unfinished.Error()
		}
		runs = append(runs, one)
	}
	return runs, err
}

// Labs are the labs of a matrix, judged again from their records in its directory.
// Of one that came to no result the cell says why.
func Labs(dir string, all *matrix.Results, find judge.FindLab) (runs []show.Ran, err error) {
	for i := range all.Results {
		res := &all.Results[i]
		if res.Cell.Work.Kind != matrix.Lab {
			continue
		}
		r := show.Ran{Run: &judge.Run{Dir: record.Dir{Path: filepath.Join(dir, res.Record)}}}
		if res.Status.Broken() {
			r.Why = fmt.Sprintf("%s: %s", res.Status, res.Reason)
			if r.Lab, err = find(res.Cell.Work.Name); err != nil {
				r.Lab = &lab.Lab{ID: res.Cell.Work.Name} // its title is all that is missing
			}
			if run, err := r.Dir.ReadRun(); err == nil {
				r.Record = *run
			}
		} else if r.Run, err = judge.Read(r.Dir.Path, find); err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func there(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// labResults makes results of lab runs, whose records are directories of dir.
func labResults(find judge.FindLab, dir string, subs []string) (*matrix.Results, error) {
	r := &matrix.Results{Schema: matrix.Schema, Name: filepath.Base(filepath.Clean(dir)), Results: []matrix.Result{}}
	var end time.Time
	seen := map[string]string{}
	for _, sub := range subs {
		run, err := record.Dir{Path: filepath.Join(dir, sub)}.ReadRun()
		if err != nil {
			return nil, err
		}
		res, err := labResult(find, run, filepath.Join(dir, sub))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sub, err)
		}
		if sub != "." {
			res.Record = sub
		}
		if id := res.Cell.ID(); seen[id] != "" {
			return nil, fmt.Errorf("%s and %s are both of %s; give one of them", seen[id], sub, id)
		} else {
			seen[id] = sub
		}
		r.Results = append(r.Results, *res)
		if r.Labctl = run.Labctl; r.Started.IsZero() || run.Started.Before(r.Started) {
			r.Started = run.Started
		}
		if e := run.Started.Add(time.Duration(run.Seconds * float64(time.Second))); e.After(end) {
			end = e
		}
	}
	// C2 before C10.
	slices.SortStableFunc(r.Results, func(a, b matrix.Result) int {
		x, y := a.Cell.Work.Name, b.Cell.Work.Name
		return cmp.Or(cmp.Compare(x[:1], y[:1]), cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
	})
	for _, res := range r.Results {
		r.Plan = append(r.Plan, res.Cell)
	}
	r.Seconds = max(0, end.Sub(r.Started).Seconds())
	return r, nil
}

// labResult judges one run of a lab as it is in its record.
func labResult(find judge.FindLab, run *record.Run, dir string) (*matrix.Result, error) {
	name, ok := strings.CutPrefix(run.Name, "lab-")
	if !ok || name == "" {
		return nil, fmt.Errorf("it is the record of %q, which is no lab; this command shows labs and matrices", run.Name)
	}
	res := &matrix.Result{
		Cell: matrix.Cell{
			Kernel: cmp.Or(run.Kernel.Ref, "unknown"), Target: cmp.Or(run.Target.Name, "unknown"),
			Work: matrix.Work{Kind: matrix.Lab, Name: name},
		},
		Tries: 1, Started: run.Started, Seconds: run.Seconds,
	}
	res.Took(run)
	res.Status, res.Reason = ended(&run.Outcome)
	if !there(dir, result.File) {
		if res.Status == outcome.OK {
			return nil, fmt.Errorf("it ended well, but it has no %s", result.File)
		}
		return res, nil
	}
	judged, err := judge.Read(dir, find)
	if err != nil {
		return nil, err
	}
	rep := judged.Report
	res.Checks, res.Claims = checks(rep)
	if res.Status == outcome.OK {
		res.Status, res.Reason = verdict(rep)
	}
	return res, nil
}

// ended is the outcome of a run where that is not its checks', else OK.
func ended(o *record.Outcome) (outcome.Kind, string) {
	switch o.Kind {
	case outcome.OK, outcome.NotApplicable, outcome.CheckFailed:
		return outcome.OK, ""
	}
	if o.Message == "" && o.Crash != nil {
		return o.Kind, o.Crash.Title
	}
	return o.Kind, o.Message
}

// verdict is what a lab's report comes to, in one line where it is not OK.
func verdict(rep *judge.Report) (outcome.Kind, string) {
	switch rep.Verdict() {
	case judge.Pass:
		return outcome.OK, ""
	case judge.NotApplicable:
		if len(rep.Missing) > 0 {
			return outcome.NotApplicable, strings.Join(rep.Missing, "; ")
		}
		return outcome.NotApplicable, "none of its checks applies"
	}
	if len(rep.Tampered) > 0 {
		return outcome.Tampered, strings.Join(rep.Tampered, "; ")
	}
	var bad []string
	all, _ := checks(rep)
	for _, c := range all {
		if judge.Verdict(c.Verdict).Failed() {
			bad = append(bad, strings.TrimSuffix(c.ID+": "+c.Seen, ": "))
		}
	}
	return outcome.CheckFailed, strings.Join(bad, "; ")
}

// checks are a lab's checks and claims as a matrix keeps them, in English.
func checks(rep *judge.Report) (checks, claims []matrix.Check) {
	for _, c := range rep.Checks {
		seen := c.Error
		for _, s := range c.Seen {
			seen = join(seen, s.String())
		}
		if c.Verdict == judge.NotApplicable && c.Why != nil {
			seen = c.Why.EN
		}
		checks = append(checks, matrix.Check{ID: c.ID, Text: c.Says.EN, Verdict: string(c.Verdict), Seen: seen})
	}
	for _, c := range rep.Claims {
		seen := join(c.Evidence, c.Error)
		if c.Verdict == judge.NotApplicable && c.Why != nil {
			seen = c.Why.EN
		}
		claims = append(claims, matrix.Check{ID: c.ID, Text: c.Says.EN, Verdict: string(c.Verdict), Seen: seen})
	}
	return checks, claims
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
