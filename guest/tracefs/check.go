package tracefs

import (
	"errors"
	"fmt"
	"strings"

	"labctl/guest/wire"
)

// check refuses names that would reach another file or another command: names
// become paths, and symbols and arguments become a line of kprobe_events.
func check(p wire.TraceParams) error {
	if !isName(p.Instance) {
		return fmt.Errorf("trace instance %q: want letters, digits and _-", clip(p.Instance, 40))
	}
	if p.BufferKB < 0 {
		return fmt.Errorf("trace buffer of %d KiB: want 0 or more", p.BufferKB)
	}
	seen := make(map[string]bool)
	for _, probe := range p.Probes {
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
	for _, e := range p.Events {
		system, event, ok := strings.Cut(e, "/")
		if !ok || !isName(system) || !isName(event) {
			return fmt.Errorf("event %q: want SYSTEM/EVENT", clip(e, 80))
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
