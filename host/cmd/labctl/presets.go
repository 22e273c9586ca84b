package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"labctl/host/lab/show"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/report"
	"labctl/host/session"
	"labctl/host/trace"
	"labctl/host/trace/preset"
)

// listPresets lists the presets, or what each comes to on a machine.
func (a *app) listPresets(ctx context.Context, o traceOptions, args []string) error {
	if len(args) > 0 {
		return outcome.Inputf("--list-presets runs no program, got %q", args[0])
	}
	presets := preset.All().Presets
	if len(o.presets) > 0 {
		presets = nil
		for _, name := range o.presets {
			p, ok := preset.All().Find(name)
			if !ok {
				return nearest.Unknown("--preset", name, preset.All().Names())
			}
			presets = append(presets, p)
		}
	}
	if o.check {
		return a.checkPresets(ctx, o, presets)
	}
	if o.asJSON {
		return a.printJSON(presets)
	}
	w := a.table("PRESET", "TRACER", "FUNCTIONS", "EVENTS", "WHAT IT SHOWS")
	for _, p := range presets {
		tracer := p.Tracer
		if tracer == "" {
			tracer = "nop"
		}
		w.Row(p.Name, tracer, len(p.Functions), len(p.Events), title(p))
	}
	return w.Write(a.stdout)
}

// title is a preset's, in the user's language.
func title(p preset.Preset) string {
	if show.Lang() == "ko" {
		return p.KO
	}
	return p.EN
}

// checkPresets runs presets, one after the other, in one guest.
func (a *app) checkPresets(ctx context.Context, o traceOptions, presets []preset.Preset) error {
	env, err := a.env()
	if err != nil {
		return err
	}
	so := session.Options{Name: "presets", Out: o.program.out, Keep: session.KeepTrouble, Spec: o.program.spec}
	all, err := session.CheckPresets(ctx, env, so, presets)
	if k := outcome.Of(err); k != outcome.OK && k != outcome.CheckFailed {
		return err
	}
	if o.asJSON {
		return errors.Join(a.printJSON(all), err)
	}
	return errors.Join(a.printChecks(&all), err)
}

func (a *app) printChecks(all *trace.Checks) error {
	fmt.Fprintf(a.stdout, "%s on %s\n\n", report.Clean(all.Release), all.Arch)
	w := a.table("PRESET", "ARMED", "EVENTS", "LOST", "MISSING")
	for i := range all.Presets {
		c := &all.Presets[i]
		missing := c.Error
		var names []string
		for j := range c.Lines {
			if l := &c.Lines[j]; l.Missing() && l.Asked() {
				names = append(names, l.Name)
			}
		}
		if missing == "" {
			missing = strings.Join(names, ", ")
		}
		armed, asked := c.Armed()
		w.Row(c.Name, fmt.Sprintf("%d of %d", armed, asked), c.Events, c.Lost, report.Clean(missing))
	}
	if err := w.Write(a.stdout); err != nil {
		return err
	}
	// Why, once for each name.
	said := map[string]bool{}
	fmt.Fprintln(a.stdout)
	for i := range all.Presets {
		for j := range all.Presets[i].Lines {
			l := &all.Presets[i].Lines[j]
			if l.Why == "" || said[l.Kind+l.Name] {
				continue
			}
			said[l.Kind+l.Name] = true
			fmt.Fprintf(a.stdout, "%s %s %s\n", report.Clean(l.Kind), report.Clean(l.Name), report.Clean(report.Became(l)))
		}
	}
	return nil
}
