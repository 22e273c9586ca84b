package session

import (
	"errors"

	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/vm"
)

// describe is how a run that ended with err is written down.
func describe(err error) record.Outcome {
	cause, kind := outcome.Decisive(err)
	o := record.Outcome{Kind: string(kind), How: string(outcome.HowOf(err))}
	if kind == outcome.OK {
		return o
	}
	o.Message = err.Error()
	var (
		boot    *vm.BootError
		late    *vm.DeadlineError
		crashed *vm.CrashError
	)
	if errors.As(cause, &crashed) {
		o.Crash = record.NewCrash(crashed.Report)
	}
	if errors.As(cause, &late) {
		hung(&o, late.State)
	}
	if errors.As(cause, &boot) {
		o.Phase = string(boot.Phase)
		hung(&o, boot.State)
	}
	return o
}

// hung adds what was seen of a guest that did not end.
func hung(o *record.Outcome, s vm.State) {
	for _, c := range s.CPUs {
		o.CPUs = append(o.CPUs, c.String())
	}
	if n := len(s.Hangs); n > 0 && o.Crash == nil {
		o.Crash = record.NewCrash(s.Hangs[n-1])
	}
}
