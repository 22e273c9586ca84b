package session

import (
	"errors"
	"fmt"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/vm"
)

// maxReports is how many of a run's reports are said, a line each.
const maxReports = 10

// Report is what the kernel reported during a run, in one line. It is said by
// Env.Warn at the end of the run.
type Report struct {
	record.Brief
	Where string // the record, or the console's file; empty if nothing is kept
}

func (r *Report) Error() string {
	s := r.String()
	if r.Kind == string(crash.OOM) {
		s += "; give more memory with --mem"
	}
	if r.Where != "" {
		s += "; " + r.Where
	}
	return s
}

// Outcome is KernelReported.
func (r *Report) Outcome() outcome.Kind { return outcome.KernelReported }

// ReportedError ends a run whose kernel reported something that makes it fail.
type ReportedError struct {
	Report *crash.Report // the first of the most severe ones
	FailOn record.FailOn
	// Status is the program's own when it ran to its end, -1 for other work.
	Status int
	err    error // what the run would have ended with otherwise
}

func (e *ReportedError) Error() string {
	s := record.NewCrash(e.Report).Brief().String()
	if e.Status > 0 {
		s += fmt.Sprintf("; the program's own status was %d", e.Status)
	}
	if e.err != nil {
		s += "; " + e.err.Error()
	}
	return s
}

// Short is the error for those who have been told of the reports.
func (e *ReportedError) Short() string {
	s := fmt.Sprintf("the kernel's %s fails this run (--fail-on %s)", e.Report.Kind, e.FailOn)
	if e.Status >= 0 {
		s += fmt.Sprintf("; the program's own status was %d", e.Status)
	}
	if e.err != nil {
		s += "; " + e.err.Error()
	}
	return s
}

func (e *ReportedError) Unwrap() error { return e.err }

// Outcome is KernelReported.
func (e *ReportedError) Outcome() outcome.Kind { return outcome.KernelReported }

// How is the kind of the report: "oops".
func (e *ReportedError) How() outcome.How { return outcome.How(e.Report.Kind) }

// Seen returns the report.
func (e *ReportedError) Seen() (cpus []string, report *crash.Report) { return nil, e.Report }

// failOn is err, or a *ReportedError if the kernel reported something that makes the
// run fail and err is nothing worse.
func (s *Session) failOn(err error) error {
	var worst *crash.Report
	for _, r := range s.reports {
		if s.o.FailOn.Fails(r.Kind) && (worst == nil || r.Kind.Severity() > worst.Kind.Severity()) {
			worst = r
		}
	}
	if worst == nil {
		return err
	}
	e := &ReportedError{Report: worst, FailOn: s.o.FailOn, Status: -1}
	var status *outcome.StatusError
	switch k := outcome.Of(err); {
	case errors.As(err, &status):
		e.Status = status.Status
	case k.Failed() && outcome.Worst(k, outcome.KernelReported) == k:
		return err
	case err == nil && s.program:
		e.Status = 0
	default:
		e.err = err
	}
	return e
}

// sayReports says what the kernel reported. What it died of is said by err, which the
// run ends with.
func (s *Session) sayReports(err error) {
	all := s.Run.Reports
	var died *vm.CrashError
	if errors.As(err, &died) && len(all) > 0 {
		all = all[:len(all)-1]
	}
	where := ""
	switch {
	case s.Recorded():
		where = s.Dir.File(record.RunFile)
	case s.spool != nil && s.kept:
		where = s.Dir.File(record.ConsoleFile)
	}
	for i, c := range all {
		if i == maxReports {
			s.env.warn(outcome.New(outcome.KernelReported, fmt.Sprintf("and %d more reports of the kernel", len(all)-i)))
			return
		}
		s.env.warn(&Report{c.Brief(), where})
	}
}
