package tracefs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"labctl/guest/wire"
)

// check refuses names that would reach another file or another command: names
// become paths, and symbols and arguments become a line of kprobe_events.
func check(p wire.CaptureParams) error {
	switch {
	case !isIdent(p.Instance) || len(p.Instance) > 40:
		return fmt.Errorf("trace instance %q: want a C identifier of at most 40 letters", clip(p.Instance, 60))
	case p.BufferKB < 0 || p.Max < 0:
		return fmt.Errorf("trace buffer of %d KiB, bound of %d bytes: want 0 or more", p.BufferKB, p.Max)
	case p.Tracer != "" && !isName(p.Tracer):
		return fmt.Errorf("tracer %q: want letters, digits and _-", clip(p.Tracer, 40))
	case (p.Tracer == "" || p.Tracer == "nop") && len(p.Functions)+len(p.Graph) > 0:
		return errors.New("functions without a tracer: want function or function_graph")
	case p.Keep && !keepsOnly(p):
		return errors.New("a kept instance: want probes, events, formats and bounds alone")
	case !p.Keep && len(p.Formats) > 0:
		return errors.New("formats without a kept instance: those of Events are sent")
	case p.Clock != "" && !isName(p.Clock):
		return fmt.Errorf("trace clock %q: want letters, digits and _-", clip(p.Clock, 40))
	}
	if err := checkProbes(p.Probes); err != nil {
		return err
	}
	if err := checkHists(p.Hists); err != nil {
		return err
	}
	for _, e := range p.Events {
		system, _, one := strings.Cut(e.Name, "/")
		if one || !isName(system) {
			if err := checkEvent(e.Name); err != nil {
				return err
			}
		}
		if strings.ContainsAny(e.Filter, "\n\x00") {
			return fmt.Errorf("filter %q: want one line", clip(e.Filter, 80))
		}
	}
	for _, name := range slices.Concat(p.Functions, p.Graph) {
		if err := checkWord(name); err != nil || len(name) > 120 {
			return fmt.Errorf("function %q: want one word", clip(name, 80))
		}
	}
	for _, e := range p.Formats {
		if system, _, one := strings.Cut(e, "/"); one || !isName(system) {
			if err := checkEvent(e); err != nil {
				return err
			}
		}
	}
	for name := range p.Options {
		if !isName(name) {
			return fmt.Errorf("option %q: want letters, digits and _-", clip(name, 40))
		}
	}
	for name := range p.Files {
		if !isName(name) || slices.Contains(ownFiles, name) {
			return fmt.Errorf("file %q: want the name of a file of the instance that the capture does not set itself", clip(name, 40))
		}
	}
	return nil
}

// keepsOnly says that p asks for nothing that would change what a kept instance
// has.
func keepsOnly(p wire.CaptureParams) bool {
	return p.Tracer == "" && len(p.Functions)+len(p.Graph)+len(p.Hists)+len(p.Options)+len(p.Files) == 0 &&
		!p.Stacks && !p.PIDOnly && !p.Wakeup && p.BufferKB == 0 && !p.Overwrite && p.Clock == ""
}

// ownFiles are the files that a capture is made of.
var ownFiles = []string{"tracing_on", "current_tracer", "trace", "buffer_size_kb", "free_buffer", "set_ftrace_filter", "set_graph_function"}

func checkEvent(name string) error {
	system, event, ok := strings.Cut(name, "/")
	if !ok || !isName(system) || !isName(event) {
		return fmt.Errorf("event %q: want SYSTEM/EVENT", clip(name, 80))
	}
	return nil
}

func checkProbes(probes []wire.Kprobe) error {
	seen := make(map[string]bool)
	for _, probe := range probes {
		if !isIdent(probe.Event) {
			return fmt.Errorf("probe %q: want a C identifier", clip(probe.Event, 40))
		}
		if seen[probe.Event] {
			return fmt.Errorf("probe %s: named twice", probe.Event)
		}
		seen[probe.Event] = true
		if len(probe.Alternatives) == 0 {
			return fmt.Errorf("probe %s: has no alternatives", probe.Event)
		}
		for _, a := range probe.Alternatives {
			for _, word := range append([]string{a.Symbol}, a.Args...) {
				if err := checkWord(word); err != nil {
					return fmt.Errorf("probe %s: %w", probe.Event, err)
				}
			}
		}
	}
	return nil
}

// checkWord wants one printable word, without what ends or comments out a
// command.
func checkWord(s string) error {
	if s == "" {
		return errors.New("empty symbol or argument")
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ';' || c == '#' {
			return fmt.Errorf("%q is not one word", clip(s, 80))
		}
	}
	return nil
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isIdentByte(c) && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isIdent tests for a C identifier that fits an event's name.
func isIdent(s string) bool {
	for i := range len(s) {
		if !isIdentByte(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= 63 && (s[0] < '0' || s[0] > '9')
}

func isIdentByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
