package record

import (
	"errors"

	"labctl/host/crash"
	"labctl/host/outcome"
)

// Outcome is how the run ended.
type Outcome struct {
	Kind outcome.Kind `json:"kind"`
	// How is a finer word, where there is one: "panic", "powered off", "boot".
	How     outcome.How `json:"how,omitempty"`
	Message string      `json:"message,omitempty"`
	Phase   string      `json:"phase,omitempty"` // of a boot that did not end
	// Crash is the console's report of what ended the run: of the kernel's
	// death, or of the last thing that hung when a deadline passed.
	Crash *Crash   `json:"crash,omitempty"`
	CPUs  []string `json:"cpus,omitempty"` // where each was when a deadline passed, a line each
}

// What else an error may know of how a run ended. The errors of host/vm do, which
// this package must not import.
type (
	booting interface{ Reached() string }
	sighted interface {
		Seen() (cpus []string, report *crash.Report)
	}
)

// NewOutcome is how a run that ended with err is written down: by the error that
// decides, with what it and those that it wraps know.
func NewOutcome(err error) Outcome {
	if err == nil {
		return Outcome{Kind: outcome.OK}
	}
	kind, decisive := outcome.Decisive(err)
	o := Outcome{Kind: kind, How: outcome.HowOf(err)}
	if kind == outcome.OK {
		return o // a program's own status
	}
	o.Message = err.Error()
	var boot booting
	if errors.As(decisive, &boot) {
		o.Phase = boot.Reached()
	}
	var seen sighted
	if errors.As(decisive, &seen) {
		cpus, report := seen.Seen()
		o.CPUs, o.Crash = cpus, NewCrash(report)
	}
	return o
}
