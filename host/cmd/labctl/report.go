package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/matrix"
	"labctl/host/matrix/render"
	"labctl/host/record"
	"labctl/host/scratch"
)

func (a *app) reportCmd() *cobra.Command {
	var lf labFlags
	var format, out string
	c := &cobra.Command{
		Use:   "report RECORD",
		Short: "Show a matrix or lab runs from their records, as text or for a CI system",
		Long: `Show what became of a matrix, of a lab, or of several labs, from the folder that
was its --out. Nothing is run; labs are judged again by the lab as it is now.

  text      a table, the failures, the sums
  junit     JUnit XML, for GitLab, Jenkins and viewers for GitHub: a suite for
            each kernel on each target, a test case for each work
  ktap      the kernel's test protocol, version 1: checks in labs in machines
  markdown  a summary for GitHub: at most 1 MiB
  json      all of it (schema ` + matrix.Schema + `)

The exit status is 0 when the report is written, whatever it says.`,
		Example: `  labctl report matrix-out
  labctl report matrix-out --format junit --out junit.xml
  labctl report matrix-out --format markdown >>"$GITHUB_STEP_SUMMARY"
  labctl report labctl-out/20261122-080000-labs-arm64 --format ktap`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%s takes the folder of a matrix, of a lab's run, or of several", c.CommandPath())}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(render.Formats, format) {
				return usageError{unknown("--format", format, render.Formats)}
			}
			r, err := a.readResults(&lf, args[0])
			if err != nil {
				return usageError{fmt.Errorf("report %s: %w", args[0], err)}
			}
			if out == "" {
				return render.Write(a.stdout, format, r, a.reportOptions(args[0]))
			}
			var b bytes.Buffer
			if err := render.Write(&b, format, r, render.Options{Width: wide, Dir: args[0]}); err != nil {
				return err
			}
			return writeReport(out, b.Bytes())
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "text", strings.Join(render.Formats, ", "))
	f.StringVar(&out, "out", "", "write a file instead of standard output")
	f.StringVar(&lf.dir, "labs", "", "a folder with labs of your own, instead of labctl's")
	return c
}

func writeReport(file string, b []byte) error {
	if err := scratch.Write(file, b, 0o644); err != nil {
		return fmt.Errorf("write a report: %w", err)
	}
	return nil
}

// wide is the width of a table that is not for a terminal.
const wide = 120

// reportOptions are those of a report on standard output; dir holds the records.
func (a *app) reportOptions(dir string) render.Options {
	o := render.Options{Width: wide, Dir: dir}
	if f, ok := a.stdout.(*os.File); ok && isTerminal(f) {
		o.Colour = os.Getenv("NO_COLOR") == ""
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			o.Width = w
		}
	}
	return o
}

// readResults reads a matrix, a lab's run, or a folder of those.
func (a *app) readResults(lf *labFlags, dir string) (*matrix.Results, error) {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("no such folder")
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, errors.New("it is a file; give the folder that was --out")
	case there(dir, matrix.File):
		return matrix.Read(dir)
	case there(dir, matrix.CellDir):
		return nil, errors.New("this matrix has not ended; labctl matrix run --resume brings it to its end")
	case there(dir, record.RunFile):
		return a.labResults(lf, dir, []string{"."})
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*", record.RunFile))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("neither %s nor %s is in it or in a folder of it; give the --out of labctl matrix run or lab run", matrix.File, record.RunFile)
	}
	var subs []string
	for _, f := range files {
		subs = append(subs, filepath.Base(filepath.Dir(f)))
	}
	return a.labResults(lf, dir, subs)
}

func there(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// labResults makes results of lab runs, whose records are folders of dir.
func (a *app) labResults(lf *labFlags, dir string, subs []string) (*matrix.Results, error) {
	r := &matrix.Results{Schema: matrix.Schema, Name: filepath.Base(filepath.Clean(dir)), Results: []matrix.Result{}}
	var end time.Time
	seen := map[string]string{}
	for _, sub := range subs {
		run, err := record.Dir{Path: filepath.Join(dir, sub)}.ReadRun()
		if err != nil {
			return nil, err
		}
		res, err := a.labResult(lf, run, filepath.Join(dir, sub))
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
func (a *app) labResult(lf *labFlags, run *record.Run, dir string) (*matrix.Result, error) {
	name, ok := strings.CutPrefix(run.Name, "lab-")
	if !ok || name == "" {
		return nil, fmt.Errorf("it is the record of %q, which is no lab; this command shows labs and matrices", run.Name)
	}
	res := &matrix.Result{
		Cell: matrix.Cell{
			Kernel: cmp.Or(run.Kernel.Ref, "unknown"), Target: cmp.Or(run.Target.Name, "unknown"),
			Work: matrix.Work{Kind: matrix.Lab, Name: name},
		},
		Tries: 1, Started: run.Started, Seconds: run.Seconds, Kernel: run.Kernel,
	}
	res.Status, res.Reason = ended(&run.Outcome)
	if !there(dir, result.File) {
		if res.Status == matrix.Pass {
			return nil, fmt.Errorf("it ended well, but it has no %s", result.File)
		}
		return res, nil
	}
	runs, err := a.judgeDir(&labRunOptions{labFlags: lf}, dir)
	if err != nil {
		return nil, err
	}
	rep := runs[0].report
	res.Checks, res.Claims = checksOf(rep)
	if res.Status == matrix.Pass {
		res.Status, res.Reason = judged(rep)
	}
	return res, nil
}

// ended is the status of a run whose outcome is not its checks', else Pass.
func ended(o *record.Outcome) (matrix.Status, string) {
	reason := o.Message
	if reason == "" && o.Crash != nil {
		reason = o.Crash.Title
	}
	switch o.Kind {
	case "ok", "checks":
		return matrix.Pass, ""
	case "crash", "off", "agent", "boot":
		return matrix.Crash, reason
	case "deadline":
		return matrix.Deadline, reason
	}
	return matrix.Error, reason
}

// judged is what a lab's report comes to, in one line where it is not Pass.
func judged(rep *judge.Report) (matrix.Status, string) {
	switch rep.Verdict() {
	case judge.Pass:
		return matrix.Pass, ""
	case judge.NotApplicable:
		if len(rep.Missing) > 0 {
			return matrix.NotApplicable, strings.Join(rep.Missing, "; ")
		}
		return matrix.NotApplicable, "none of its checks applies"
	}
	var bad []string
	checks, _ := checksOf(rep)
	for _, c := range checks {
		if c.Verdict == string(judge.Fail) {
			bad = append(bad, strings.TrimSuffix(c.ID+": "+c.Seen, ": "))
		}
	}
	return matrix.Fail, strings.Join(bad, "; ")
}

// checksOf are a lab's checks and claims as a matrix keeps them, in English.
func checksOf(rep *judge.Report) (checks, claims []matrix.Check) {
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
