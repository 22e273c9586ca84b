package session

import (
	"context"
	"encoding/json"
	"fmt"
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
	return Run(ctx, env, o.Options, func(ctx context.Context, s *Session) error {
		for _, note := range s.VM.Hello().Notes {
			s.env.say("guest: %s", text.Clean(note))
		}
		failed := 0
		for _, name := range o.Names {
			p, err := s.probe(ctx, name, o)
			if err != nil {
				return err
			}
			failed += p.Failed()
		}
		return outcome.Checks(failed)
	})
}

func (s *Session) probe(ctx context.Context, name string, o ProbeOptions) (*record.Probe, error) {
	p, trace, err := probe.Run(ctx, s.VM, s.Machine.Kernel, name, o.Params)
	s.Run.Probes = append(s.Run.Probes, p)
	if len(trace) > 0 {
		file := record.TraceFile
		if len(o.Names) > 1 {
			file = "trace-" + name + ".txt"
		}
		if err := s.Dir.WriteFile(file, trace); err != nil {
			return nil, err
		}
	}
	if err == nil {
		return &p, nil
	}
	err = s.VM.Why(err)
	if p.Exit != nil {
		if oom := KilledByOOM(s.VM, *p.Exit); oom != nil {
			err = fmt.Errorf("%w: %w", err, oom)
		}
	}
	return nil, err
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
	return s.join(err, s.Dir.WriteFile(record.StacksFile, []byte(b.String())))
}
