package session

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/creation"
)

// ProbeOptions are probes to run one after another in one machine.
type ProbeOptions struct {
	Options
	Names  []string
	Params json.RawMessage // of all of them
}

// Probes runs probes of labprobe's under a trace of task creation. Run.Probes of
// the Session has what each of them showed. The error is an *outcome.ChecksError
// when the kernel and a probe disagree.
func Probes(ctx context.Context, env Env, o ProbeOptions) (*Session, error) {
	o.Spec.Features = append(o.Spec.Features, "trace")
	o.Write = writeProbes
	lacking := map[string]string{}
	o.Prepared = func(ctx context.Context, s *Session) (err error) {
		if lacking, err = probe.Lacks(ctx, s.Machine.Kernel, o.Names); err != nil {
			return err
		}
		if n := len(lacking); n > 0 && n == len(o.Names) {
			return outcome.Inputf("probe %s: %s", o.Names[0], noCall(lacking[o.Names[0]]))
		}
		return nil
	}
	return Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		for _, note := range s.VM.Hello().Notes {
			s.env.say("guest: %s", text.Clean(note))
		}
		var asks []probe.Ask
		for _, name := range o.Names {
			if lacking[name] == "" {
				asks = append(asks, probe.Ask{Name: name, Params: o.Params})
			}
		}
		ran, err := probe.Run(ctx, s.VM, s.Machine.Kernel, asks, s.Dir)
		s.Run.Probes = ran
		if err != nil {
			return s.explainProbe(s.VM.Why(err))
		}
		for i, name := range o.Names {
			if call := lacking[name]; call != "" {
				s.Run.Probes = slices.Insert(s.Run.Probes, i, record.Probe{Name: name, NotApplicable: noCall(call)})
			}
		}
		failed := 0
		for i := range s.Run.Probes {
			failed += s.Run.Probes[i].Failed()
		}
		return outcome.Checks(failed)
	})
}

func noCall(call string) string { return "this kernel has no system call " + call }

// explainProbe adds to the error of the last probe that the guest's OOM killer has
// ended it, if it has.
func (s *Session) explainProbe(err error) error {
	if n := len(s.Run.Probes); n > 0 && s.Run.Probes[n-1].Exit != nil {
		if oom := KilledByOOM(s.VM, *s.Run.Probes[n-1].Exit); oom != nil {
			return fmt.Errorf("%w: %w", err, oom)
		}
	}
	return err
}

func writeProbes(s *Session, err error) error {
	if !s.Recorded() {
		return err
	}
	var b strings.Builder
	for _, p := range s.Run.Probes {
		if len(p.Creations) > 0 {
			fmt.Fprintf(&b, "// probe %s\n%s\n", p.Name, creation.Text(p.Creations))
		}
	}
	return s.add(err, s.Dir.WriteFile(record.StacksFile, []byte(b.String())))
}
