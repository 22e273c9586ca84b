// Package check compares a kernel's configuration with the options that labctl's
// features need, so that an unsuitable kernel is rejected before it is booted,
// with the name of the missing option, instead of hanging the guest.
package check

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"labctl/host/outcome"
	"labctl/kconfig"
)

// Feature is one entry of kconfig/features.yaml.
type Feature struct {
	Name    string   `yaml:"name" json:"name"`
	Summary string   `yaml:"summary" json:"summary"`
	Options []Option `yaml:"options" json:"options"`
}

// Option is one option that a feature needs.
type Option struct {
	Name   string   `yaml:"name" json:"name"`     // without CONFIG_
	Accept []string `yaml:"accept" json:"accept"` // acceptable values
	// Always says that kernels which have no such option have what it stands for.
	Always bool   `yaml:"always" json:"always,omitempty"`
	Why    string `yaml:"why" json:"why"`
}

// Missing is an option that does not have a value that a feature needs.
type Missing struct {
	Feature string `json:"feature"`
	Option         // if the feature is unknown, Name is "" and Why says so
	Got     string `json:"got"` // "" if not set
}

// String returns one line: "CONFIG_KPROBES is not set, trace needs y: a probe on
// …".
func (m Missing) String() string {
	if m.Name == "" {
		return m.Why
	}
	got := "is not set"
	if m.Got != "" {
		got = "is " + m.Got
	}
	return fmt.Sprintf("CONFIG_%s %s, %s needs %s: %s", m.Name, got, m.Feature, strings.Join(m.Accept, " or "), m.Why)
}

// Error lists the options that a kernel lacks.
type Error struct {
	Kernel  string
	Missing []Missing
}

func (e *Error) Error() string {
	lines := make([]string, len(e.Missing))
	for i, m := range e.Missing {
		lines[i] = m.String()
	}
	return fmt.Sprintf("kernel %s lacks required options: %s", e.Kernel, strings.Join(lines, "; "))
}

// Outcome is BadInput: another kernel may work.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

// All returns the features in the order of the file.
func All() []Feature { return slices.Clone(features()) }

// features returns the embedded list. It panics on an error in the list, which
// TestEmbedded would have found.
var features = sync.OnceValue(func() []Feature {
	f, err := parse("kconfig/features.yaml", kconfig.Features)
	if err != nil {
		panic(err)
	}
	return f
})

// parse parses features.yaml strictly.
func parse(file string, data []byte) ([]Feature, error) {
	var doc struct {
		Features []Feature `yaml:"features"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	seen := map[string]bool{}
	for i, f := range doc.Features {
		where := fmt.Sprintf("%s: features[%d] %s", file, i, f.Name)
		switch {
		case f.Name == "" || len(f.Options) == 0:
			return nil, fmt.Errorf("%s: needs a name and options", where)
		case seen[f.Name]:
			return nil, fmt.Errorf("%s: duplicate", where)
		}
		seen[f.Name] = true
		for j := range f.Options {
			o := &f.Options[j]
			if o.Name == "" || o.Why == "" || strings.HasPrefix(o.Name, "CONFIG_") {
				return nil, fmt.Errorf("%s: options[%d]: needs a name without CONFIG_, and why", where, j)
			}
			if len(o.Accept) == 0 {
				o.Accept = []string{"y"}
			}
		}
	}
	return doc.Features, nil
}

// Check returns the options that the named features need and the configuration
// lacks, without duplicates, in the order of the features. lookup returns the
// value of an option, named without CONFIG_, or false if it is not set. An unknown
// feature is reported as missing.
func Check(lookup func(option string) (string, bool), names ...string) []Missing {
	var out []Missing
	seen := map[string]bool{}
	for _, name := range names {
		i := slices.IndexFunc(features(), func(f Feature) bool { return f.Name == name })
		if i < 0 {
			out = append(out, Missing{Feature: name, Option: Option{Why: fmt.Sprintf("feature %q is not in kconfig/features.yaml", name)}})
			continue
		}
		for _, o := range features()[i].Options {
			got, _ := lookup(o.Name)
			if seen[o.Name] || slices.Contains(o.Accept, got) {
				continue
			}
			seen[o.Name] = true
			out = append(out, Missing{Feature: name, Option: o, Got: got})
		}
	}
	return out
}
