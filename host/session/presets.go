package session

import (
	"context"
	"fmt"

	"labctl/host/outcome"
	"labctl/host/trace"
	"labctl/host/trace/preset"
)

// CheckPresets runs trace presets one after another in one machine, and says what
// each came to. The error is an *outcome.ChecksError when one could not be run.
func CheckPresets(ctx context.Context, env Env, o Options, presets []preset.Preset) (trace.Checks, error) {
	var all trace.Checks
	o.Spec.Features = append(o.Spec.Features, "trace")
	_, err := Run(ctx, env, o, func(ctx context.Context, s *Session) error {
		all.Arch, all.Release = s.Machine.Target.Arch, s.VM.Hello().Release
		failed := 0
		for _, p := range presets {
			c, err := trace.Try(ctx, s.VM, s.Machine.Kernel, p)
			if err != nil {
				return fmt.Errorf("preset %s: %w", p.Name, s.VM.Why(err))
			}
			if c.Error != "" {
				failed++
			}
			all.Presets = append(all.Presets, c)
		}
		return outcome.Checks(failed)
	})
	return all, err
}
