package session

import (
	"errors"

	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/vm"
)

// describe is how a run that ended with err is written down.
func describe(err error) record.Outcome {
	var (
		boot    *vm.BootError
		late    *vm.DeadlineError
		silent  *vm.AgentError
		crashed *vm.CrashError
	)
	kind := outcome.Of(err)
	o := record.Outcome{Kind: string(kind)}
	if err != nil && !outcome.Quiet(err) {
		o.Message = err.Error()
	}
	switch {
	case kind == outcome.OK, kind == outcome.Interrupted:
	case errors.As(err, &crashed):
		o.How, o.Crash = "panic", record.NewCrash(crashed.Report)
	case errors.Is(err, vm.ErrReset):
		o.How = "reset"
	case errors.Is(err, vm.ErrPoweredOff):
		o.How = "powered off"
	case errors.As(err, &late):
		if errors.As(err, &silent) {
			o.How = "agent silent"
		}
		hung(&o, late.State)
	}
	if errors.As(err, &boot) {
		o.Phase = string(boot.Phase)
		if o.How == "" {
			o.How = "boot"
		}
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
