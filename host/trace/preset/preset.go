// Package preset reads presets.yaml: named settings of the tracer, those
// of the book among them.
package preset

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed presets.yaml
var file []byte

// Default is the preset of a trace for which nothing was asked.
const Default = "task-creation"

// Preset is one named setting.
type Preset struct {
	Name   string `yaml:"name" json:"name"` // "sched", "book/4.4.1"
	Script string `yaml:"script" json:"script,omitempty"`
	EN     string `yaml:"en" json:"en"` // title
	KO     string `yaml:"ko" json:"ko"`

	Tracer    string   `yaml:"tracer" json:"tracer,omitempty"`
	Functions []string `yaml:"functions" json:"functions,omitempty"`
	Events    []string `yaml:"events" json:"events,omitempty"`
	Options   []string `yaml:"options" json:"options,omitempty"`
	Probes    []string `yaml:"probes" json:"probes,omitempty"`
	Tasks     bool     `yaml:"tasks" json:"tasks,omitempty"`
	Stacks    bool     `yaml:"stacks" json:"stacks,omitempty"`
	PIDOnly   bool     `yaml:"pid_only" json:"pid_only,omitempty"`
}

// Set is all presets, in the file's order.
type Set struct {
	// Added are functions that only the book's own kernel has.
	Added   []string `yaml:"added"`
	Presets []Preset `yaml:"presets"`
}

// All is the set that labctl was built with.
var All = sync.OnceValue(func() *Set {
	s, err := parse(file)
	if err != nil {
		panic(err) // the file is part of the program, and tested
	}
	return s
})

var (
	name     = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$|^book/\d+(\.\d+)+$`)
	function = regexp.MustCompile(`^[A-Za-z_][\w.]*\*?$`)
	event    = regexp.MustCompile(`^[a-z_]+(/[a-z_]+)?$`)
	tracers  = []string{"", "nop", "function", "function_graph"}
)

func parse(text []byte) (*Set, error) {
	s := new(Set)
	if err := yaml.UnmarshalWithOptions(text, s, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read presets: %w", err)
	}
	seen := map[string]bool{}
	for _, p := range s.Presets {
		switch {
		case !name.MatchString(p.Name):
			return nil, fmt.Errorf("read presets: %q is no name for a preset", p.Name)
		case seen[p.Name]:
			return nil, fmt.Errorf("read presets: %s is there twice", p.Name)
		case p.EN == "" || p.KO == "":
			return nil, fmt.Errorf("read presets: %s lacks a title in English or Korean", p.Name)
		case !slices.Contains(tracers, p.Tracer):
			return nil, fmt.Errorf("read presets: %s: no tracer is called %q", p.Name, p.Tracer)
		}
		for _, f := range p.Functions {
			if !function.MatchString(f) {
				return nil, fmt.Errorf("read presets: %s: %q is no function", p.Name, f)
			}
		}
		for _, e := range p.Events {
			if !event.MatchString(e) {
				return nil, fmt.Errorf("read presets: %s: %q is no event", p.Name, e)
			}
		}
		seen[p.Name] = true
	}
	return s, nil
}

// Find looks a preset up by its name.
func (s *Set) Find(name string) (Preset, bool) {
	for _, p := range s.Presets {
		if p.Name == name {
			return p, true
		}
	}
	return Preset{}, false
}

// Names lists the presets' names.
func (s *Set) Names() []string {
	var names []string
	for _, p := range s.Presets {
		names = append(names, p.Name)
	}
	return names
}
