package kbuild

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/nearest"
	"labctl/host/outcome"
)

// Lost is a requested option that is missing from the resulting configuration.
type Lost struct {
	Option
	Got string // "n" if not set
	Why string // the unmet dependency, or that the reason is unknown
}

func (l Lost) String() string {
	return fmt.Sprintf("CONFIG_%s: requested %s (%s), got %s: %s", l.Name, l.Value, l.Where, l.Got, l.Why)
}

// LostError lists the options that the tree's Kconfig rules dropped.
type LostError struct {
	Release string
	Arch    string
	Lost    []Lost
}

// Outcome is BadInput.
func (e *LostError) Outcome() outcome.Kind { return outcome.BadInput }

// maxLostShown limits the options that an error names; the log has them all.
const maxLostShown = 6

func (e *LostError) Error() string {
	var parts []string
	for i, l := range e.Lost {
		if i == maxLostShown {
			parts = append(parts, fmt.Sprintf("and %d more", len(e.Lost)-i))
			break
		}
		parts = append(parts, l.String())
	}
	n := "1 option"
	if len(e.Lost) > 1 {
		n = fmt.Sprintf("%d options", len(e.Lost))
	}
	return fmt.Sprintf("configure %s for %s: %s dropped by Kconfig: %s", e.Release, e.Arch, n, strings.Join(parts, "; "))
}

// applicable leaves out options that are requested only for trees that have them,
// if this tree does not.
func applicable(k *rules, options []Option) []Option {
	return slices.DeleteFunc(slices.Clone(options), func(o Option) bool { return o.IfKnown && !k.known(o.Name) })
}

// impossible separates from the lost options those of labctl's own fragments that no
// configuration of the tree has for the architecture. The kernel lacks them, as it
// lacks those that its tree does not know; a user's request stays an error. What such
// a fragment wants left out and the tree gives no choice about is in neither.
func impossible(k *rules, all []Lost) (lost, lacking []Lost) {
	for _, l := range all {
		switch {
		case !l.Embedded || !k.known(l.Name):
			lost = append(lost, l)
		case l.Value == "n" && !k.offered(l.Name):
		case l.Value != "n" && !k.attainable(l.Name):
			lacking = append(lacking, l)
		default:
			lost = append(lost, l)
		}
	}
	return lost, lacking
}

// offered reports whether the tree lets anybody choose an option's value.
func (k *rules) offered(name string) bool {
	s := k.symbols[name]
	return s != nil && slices.ContainsFunc(s.defs, func(d *definition) bool { return d.prompt })
}

// verify compares a configuration with the requested options.
func verify(k *rules, cfg values, options []Option) []Lost {
	var lost []Lost
	for i, o := range options {
		got, ok := cfg[o.Name]
		if !ok {
			got = "n"
		}
		if sameValue(o.Value, got) || k.overruled(cfg, o, options[i+1:]) {
			continue
		}
		lost = append(lost, Lost{Option: o, Got: got, Why: k.why(cfg, o, got)})
	}
	return lost
}

// overruled reports whether a later request has chosen another of the choice that an
// option belongs to: pages of 64 KB, where a fragment before has those of 4 KB.
func (k *rules) overruled(cfg values, o Option, later []Option) bool {
	s := k.symbols[o.Name]
	if s == nil || o.Value != "y" {
		return false
	}
	for _, d := range s.defs {
		if d.choice == nil {
			continue
		}
		for _, m := range d.choice.members {
			if m != s && cfg[m.name] == "y" && slices.ContainsFunc(later, func(l Option) bool { return l.Name == m.name && l.Value == "y" }) {
				return true
			}
		}
	}
	return false
}

// sameValue reports whether got is the requested value or better: y for m.
func sameValue(asked, got string) bool {
	if asked == "m" && got == "y" {
		return true
	}
	a, errA := strconv.ParseInt(asked, 0, 64)
	b, errB := strconv.ParseInt(got, 0, 64)
	if errA == nil && errB == nil {
		return a == b
	}
	return strings.Trim(asked, `"`) == strings.Trim(got, `"`)
}

// why returns the reason why o became got.
func (k *rules) why(cfg values, o Option, got string) string {
	s := k.symbols[o.Name]
	if s == nil || len(s.defs) == 0 {
		return k.noSuch(o.Name)
	}
	if o.Value == "n" || o.Value == "m" && got == "y" {
		return k.whySet(cfg, s)
	}
	want := yes
	if o.Value == "m" {
		want = module
	}
	var words []string
	for _, d := range s.defs {
		w := k.whyNot(cfg, d, want, 0)
		if w == "" {
			// The dependencies of this definition are met.
			return k.unasked(cfg, s, o)
		}
		words = append(words, w)
	}
	slices.Sort(words)
	return "it needs " + strings.Join(slices.Compact(words), ", or elsewhere ")
}

func (k *rules) noSuch(name string) string {
	msg := "not in this tree's Kconfig for this architecture"
	var names []string
	for n, s := range k.symbols {
		if len(s.defs) > 0 && max(len(n), len(name))-min(len(n), len(name)) <= 3 {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if near := nearest.Name(name, names); near != "" {
		msg += ", did you mean CONFIG_" + near + "?"
	}
	return msg
}

// whyNot returns the dependency that keeps a definition below want; "" if none
// does.
func (k *rules) whyNot(cfg values, d *definition, want truth, depth int) string {
	for _, dep := range d.deps {
		words, culprits := dep.blame(cfg, want)
		if words == "" {
			continue
		}
		text := fmt.Sprintf("%s, and %s (%s)", dep, words, d.where)
		if dep.op == "" {
			text = strings.Replace(words, " ", ", which ", 1) + " (" + d.where + ")"
		}
		// A symbol that is not set may itself have an unmet dependency.
		if len(culprits) == 1 && depth < 3 {
			if deeper := k.whyMissing(cfg, culprits[0], want, depth+1); deeper != "" {
				text += ", and " + culprits[0] + " " + deeper
			}
		}
		return text
	}
	return ""
}

// whyMissing returns why a symbol that another one needs is not set; "" if it was
// merely not requested.
func (k *rules) whyMissing(cfg values, name string, want truth, depth int) string {
	s := k.symbols[name]
	if s == nil || len(s.defs) == 0 {
		return "is not in this tree's Kconfig for this architecture"
	}
	prompt := false
	for _, d := range s.defs {
		w := k.whyNot(cfg, d, want, depth)
		if w == "" {
			prompt = prompt || d.prompt
			continue
		}
		return "needs " + w
	}
	if !prompt {
		return "cannot be set directly: " + selectors(s)
	}
	return ""
}

func selectors(s *symbol) string {
	var by []string
	for _, sel := range s.selected {
		by = append(by, sel.by.symbol.name)
	}
	slices.Sort(by)
	by = slices.Compact(by)
	switch {
	case len(by) == 0:
		return "it depends on other options or on the compiler"
	case len(by) > 4:
		return fmt.Sprintf("it is set by %s and %d others", strings.Join(by[:4], ", "), len(by)-4)
	}
	return "it is set by " + strings.Join(by, ", ")
}

// unasked returns why an option whose dependencies are met was dropped anyway.
func (k *rules) unasked(cfg values, s *symbol, o Option) string {
	var hidden string
	for _, d := range s.defs {
		if !d.prompt {
			continue
		}
		if d.choice != nil {
			for _, m := range d.choice.members {
				if m != s && cfg[m.name] == "y" {
					return fmt.Sprintf("%s of the same choice is set (%s)", m.name, d.where)
				}
			}
		}
		open := true
		for _, a := range d.asked {
			if words, _ := a.blame(cfg, yes); words != "" {
				hidden, open = fmt.Sprintf("it can be set directly only if %s, and %s (%s)", a, words, d.where), false
				break
			}
		}
		if open {
			return fmt.Sprintf("its dependencies seem to be met (%s); see Kconfig's output in the log", d.where)
		}
	}
	if hidden != "" {
		return hidden
	}
	return fmt.Sprintf("it cannot be set directly (%s): %s", s.defs[0].where, selectors(s))
}

// whySet returns why an option that was requested off is set.
func (k *rules) whySet(cfg values, s *symbol) string {
	var by []string
	for _, sel := range s.selected {
		if cfg.truth(sel.by.symbol.name) == no {
			continue
		}
		if sel.when != nil && sel.when.eval(cfg) == no {
			continue
		}
		by = append(by, fmt.Sprintf("%s (%s)", sel.by.symbol.name, sel.by.where))
	}
	slices.Sort(by)
	if by = slices.Compact(by); len(by) > 0 {
		return "it is selected by " + strings.Join(by[:min(len(by), 3)], ", ")
	}
	for _, d := range s.defs {
		if !d.prompt {
			continue
		}
		for _, a := range d.asked {
			if words, _ := a.blame(cfg, yes); words != "" {
				return fmt.Sprintf("it can be unset only if %s, and %s (%s)", a, words, d.where)
			}
		}
		return fmt.Sprintf("nothing seems to select it (%s); see Kconfig's output in the log", d.where)
	}
	return fmt.Sprintf("it cannot be unset directly (%s)", s.defs[0].where)
}
