// Package lint finds what is wrong with labs beyond what keeps them from being
// loaded: every error of each, names of events and functions that no kernel at hand
// has, and checks that will not hold when Go's runtime makes a thread.
package lint

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/nearest"
	"labctl/host/outcome"
)

// Labs returns what is wrong with the labs in a directory, all of them or those whose
// directories are named, in the order of their files. Names are held against kernels;
// without any they are not.
func Labs(root fs.FS, names []string, kernels *Kernels) (found []*lab.Error, labs int, err error) {
	all, err := fs.Glob(root, "*/"+lab.Config)
	if err != nil {
		return nil, 0, err
	}
	var dirs []string
	for _, file := range all {
		dirs = append(dirs, path.Dir(file))
	}
	if len(names) > 0 {
		var chosen []string
		for _, n := range names {
			i := slices.IndexFunc(dirs, func(d string) bool {
				id, _, _ := strings.Cut(d, "-")
				return d == n || strings.EqualFold(id, n)
			})
			if i < 0 {
				return nil, 0, nearest.Unknown("lab", n, dirs)
			}
			chosen = append(chosen, dirs[i])
		}
		dirs = chosen
	}
	ids := map[string]string{}
	for _, d := range dirs {
		dir, err := fs.Sub(root, d)
		if err != nil {
			return nil, 0, err
		}
		found = append(found, lab.Lint(dir, d, func(l *lab.Lab, fail, warn func(string, string, ...any)) {
			if ids[l.ID] != "" {
				fail("id", "%s is the id of %s, too", l.ID, ids[l.ID])
			}
			ids[l.ID] = d
			c := checker{l, kernels, fail, warn}
			c.all()
		})...)
	}
	return found, len(dirs), nil
}

type checker struct {
	l          *lab.Lab
	kernels    *Kernels
	fail, warn func(path, format string, args ...any)
}

func (c *checker) all() {
	c.trace("trace", c.l.Trace)
	for i, s := range c.l.Needs.Symbols {
		c.symbol(fmt.Sprintf("needs.symbols[%d]", i), s)
	}
	goSteps := map[string]bool{}
	for _, s := range c.l.Steps {
		if s.Program != "" {
			found, err := fs.Glob(c.l.Dir, path.Join(s.Program, "*.go"))
			goSteps[s.ID] = err == nil && len(found) > 0
		}
	}
	c.counts("checks", c.l.Checks, goSteps)
	if x := c.l.Exercise; x != nil {
		c.trace("exercise.trace", x.Trace)
		c.counts("exercise.checks", x.Checks, map[string]bool{lab.ProgramStep: true})
	}
}

func (c *checker) trace(at string, t *lab.Trace) {
	if t == nil || c.kernels.empty() {
		return
	}
	for i, e := range t.Events {
		c.event(fmt.Sprintf("%s.events[%d]", at, i), e.Name)
	}
	for i, f := range t.Functions {
		at := fmt.Sprintf("%s.functions[%d].of", at, i)
		if !slices.ContainsFunc(f.Of, c.kernels.symbol) {
			c.fail(at, "no kernel at hand has %s%s", strings.Join(f.Of, " or "), nearest.Hint(f.Of[0], c.kernels.functions()))
		}
	}
}

// event holds an event against those of the kernels. A system that none of them has
// may be a module's.
func (c *checker) event(at, name string) {
	system, event, _ := strings.Cut(name, "/")
	systems, events := c.kernels.events()
	switch {
	case len(systems) == 0:
		c.warn(at, "not checked: no kernel at hand lists its events (it takes KALLSYMS_ALL)")
	case !systems[system] && system != syscalls:
		c.warn(at, "no kernel at hand has events of %s%s; they can be a module's", system, nearest.Hint(system, keys(systems)))
	case !events[event]:
		c.fail(at, "no kernel at hand has the event %s%s", name, nearest.Hint(event, keys(events)))
	}
}

func (c *checker) symbol(at, name string) {
	if !c.kernels.empty() && !c.kernels.symbol(name) {
		c.warn(at, "no kernel at hand has %s%s", name, nearest.Hint(name, c.kernels.functions()))
	}
}

// counted matches expressions that count all creations of a step.
var counted = regexp.MustCompile(`\bsize\(\s*(\w+)\.creations\s*\)|\b(\w+)\.creations\.size\(\)|\b(\w+)\.creations\[\d+\]`)

// counts warns of checks that count the creations of a Go program: its runtime makes
// threads when it pleases.
func (c *checker) counts(at string, checks []lab.Check, goSteps map[string]bool) {
	for i, check := range checks {
		for _, m := range counted.FindAllStringSubmatch(check.That, -1) {
			if step := m[1] + m[2] + m[3]; goSteps[step] {
				c.warn(fmt.Sprintf("%s[%d].that", at, i),
					"%s counts the threads of Go's runtime, too; filter the creations by name or flags", m[0])
			}
		}
	}
}

const syscalls = "syscalls"

// Kernels are the symbols of kernels that labs are held against.
type Kernels struct {
	tables           [][]byte
	systems, byEvent map[string]bool
	names            []string
}

// Cached are the kernels of the cache, those of any architecture.
func Cached(ctx context.Context, cache *kernel.Cache) (*Kernels, error) {
	all, err := cache.List()
	if err != nil {
		return nil, err
	}
	k := &Kernels{}
	for _, one := range all {
		table, err := one.Kallsyms(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case outcome.Of(err) == outcome.HostLacks:
			return nil, err
		case err == nil: // others have no table, or none that can be read
			k.tables = append(k.tables, table)
		}
	}
	return k, nil
}

func (k *Kernels) empty() bool { return k == nil || len(k.tables) == 0 }

// symbol reports whether one of the kernels has it.
func (k *Kernels) symbol(name string) bool {
	needle := []byte(" " + name + "\n")
	return slices.ContainsFunc(k.tables, func(t []byte) bool { return bytes.Contains(t, needle) })
}

// events returns the systems of events and the names of events of all kernels that
// have their symbols: TRACE_SYSTEM_STRING and DEFINE_EVENT of
// include/trace/trace_events.h, SYSCALL_TRACE_ENTER_EVENT of include/linux/syscalls.h.
func (k *Kernels) events() (systems, events map[string]bool) {
	if k.systems != nil {
		return k.systems, k.byEvent
	}
	k.systems, k.byEvent = map[string]bool{}, map[string]bool{}
	for _, t := range k.tables {
		for line := range bytes.Lines(t) {
			name := line[bytes.LastIndexByte(line, ' ')+1:]
			name = bytes.TrimSuffix(name, []byte{'\n'})
			switch {
			case bytes.HasPrefix(name, []byte("str__")):
				if system, ok := bytes.CutSuffix(name[len("str__"):], []byte("__trace_system_name")); ok {
					k.systems[string(system)] = true
				}
			case bytes.HasPrefix(name, []byte("event_enter__")):
				k.byEvent["sys_enter_"+string(name[len("event_enter__"):])] = true
			case bytes.HasPrefix(name, []byte("event_exit__")):
				k.byEvent["sys_exit_"+string(name[len("event_exit__"):])] = true
			case bytes.HasPrefix(name, []byte("__tracepoint_")):
				k.byEvent[string(name[len("__tracepoint_"):])] = true
			}
		}
	}
	return k.systems, k.byEvent
}

// functions returns the names of functions of all kernels.
func (k *Kernels) functions() []string {
	if k.names != nil {
		return k.names
	}
	seen := map[string]bool{}
	for _, t := range k.tables {
		for line := range bytes.Lines(t) {
			f := bytes.Fields(line)
			if len(f) == 3 && (string(f[1]) == "t" || string(f[1]) == "T") && !bytes.ContainsAny(f[2], ".$") {
				seen[string(f[2])] = true
			}
		}
	}
	k.names = keys(seen)
	return k.names
}

func keys(m map[string]bool) (all []string) {
	for s := range m {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// Finding is a finding for machines.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Warning bool   `json:"warning,omitempty"`
}

// JSON returns findings for machines.
func JSON(found []*lab.Error) []Finding {
	all := []Finding{}
	for _, e := range found {
		all = append(all, Finding{e.File, e.Line, e.Field, e.Msg, e.Warning})
	}
	return all
}
