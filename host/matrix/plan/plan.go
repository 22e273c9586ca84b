// Package plan makes the cells of a matrix from what flags or a plan file ask for.
// It starts nothing and downloads nothing.
package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/matrix"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/targets"
	"labctl/host/text"
)

// Cached stands for all kernels that are in the cache, in place of names.
const Cached = "cached"

// Item is a word and where it was written.
type Item struct {
	Text  string
	Where string // "--kernels", "nightly.yaml:3"
}

// Spec is what is asked for: all Work on all Kernels on all Targets, without what
// an Exclude matches.
type Spec struct {
	Name     string
	Kernels  []Item // what kernel.ParseRef or kernel.ParseSpan takes, or Cached
	Targets  []Item // rows of host/targets; the host's own when there are none
	Work     []Work
	Exclude  []Exclude
	CPUs     int           // 0: the machine's
	MemoryMB int           // 0: the machine's
	Timeout  time.Duration // of a cell; 0: none
	FailOn   record.FailOn // of a cell; empty: FailOnOops
}

// Work is one line of work: of labs and Go tests several at once.
type Work struct {
	Kind  string // of host/matrix
	Names []Item // labs as lab.MatchIDs takes them; a program; package patterns
	Args  []string
	Files []Item // HOST[:GUEST]
}

// Exclude matches the cells that all of its lists match; an empty list matches
// all. Items are globs (path.Match), those of Work over Cell.Work.Name.
type Exclude struct {
	Where                  string
	Kernels, Targets, Work []Item
}

// Known is what there is to choose from.
type Known struct {
	Labs []string // ids, in their order
	// Cached names the kernels for an architecture that are at hand.
	Cached func(arch string) ([]string, error)
	// Within lists the kernels of a span for architectures.
	Within func(span kernel.Span, archs []string) ([]kernel.Spanned, error)
	// Packages lists the Go packages of a pattern that have tests on an
	// architecture.
	Packages func(pattern, arch string) ([]string, error)
}

// Error is one thing that is wrong with what was asked for.
type Error struct{ Where, Msg string }

func (e *Error) Error() string { return e.Where + ": " + e.Msg }

// Outcome is BadInput.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

func bad(where, format string, args ...any) error {
	return &Error{where, fmt.Sprintf(format, args...)}
}

// Cells are the plan: by kernel, then target, then work, each in the order in
// which it was asked for.
func (s *Spec) Cells(known Known) ([]matrix.Cell, error) {
	targets, err := s.targets()
	if err != nil {
		return nil, err
	}
	kernels, err := s.kernels(targets, known)
	if err != nil {
		return nil, err
	}
	work, err := s.work(targets, known)
	if err != nil {
		return nil, err
	}
	var cells []matrix.Cell
	used := make([]bool, len(s.Exclude))
	for _, k := range kernels {
		for _, t := range targets {
			if !k.on(t.Arch) {
				continue
			}
			for _, w := range work[t.Arch] {
				c := matrix.Cell{Kernel: k.name, Target: t.Name, Work: w, CPUs: s.CPUs, MemoryMB: s.MemoryMB}
				if !s.excluded(c, used) {
					cells = append(cells, c)
				}
			}
		}
	}
	for i, x := range s.Exclude {
		// What is in the cache may be less today than it was.
		if !used[i] && !slices.ContainsFunc(s.Kernels, func(k Item) bool { return k.Text == Cached }) {
			return nil, bad(x.Where, "no cell is so: correct it, or take it out")
		}
	}
	if len(cells) == 0 {
		return nil, bad(s.where(), "the plan has no cells")
	}
	if err := matrix.CheckPlan(cells); err != nil {
		return nil, bad(s.where(), "%v", err)
	}
	return cells, nil
}

// where is what to call the whole.
func (s *Spec) where() string {
	file, _, _ := strings.Cut(s.Kernels[0].Where, ":")
	return file
}

func (s *Spec) targets() ([]targets.Target, error) {
	if len(s.Targets) == 0 {
		return []targets.Target{targets.Host()}, nil
	}
	var all []targets.Target
	for _, item := range s.Targets {
		t, ok := targets.Find(item.Text)
		if !ok {
			return nil, bad(item.Where, "%v", nearest.Unknown("target", item.Text, targets.Names()))
		}
		if t.Fixed && (s.CPUs != 0 && s.CPUs != t.CPUs || s.MemoryMB != 0 && s.MemoryMB != t.MemoryMB) {
			return nil, bad(item.Where, "%s always has %d CPUs and %d MB of memory; leave smp and mem out", t.Name, t.CPUs, t.MemoryMB)
		}
		if !slices.ContainsFunc(all, func(o targets.Target) bool { return o.Name == t.Name }) {
			all = append(all, t)
		}
	}
	return all, nil
}

// chosen is a kernel of the plan; one that is there because it is cached, or in a span,
// is so for some architectures alone.
type chosen struct {
	name  string
	archs []string // nil: all
}

func (c chosen) on(arch string) bool { return c.archs == nil || slices.Contains(c.archs, arch) }

func (s *Spec) kernels(targets []targets.Target, known Known) ([]chosen, error) {
	if len(s.Kernels) == 0 {
		return nil, outcome.Inputf("which kernels? give --kernels 5.10,6.12, --kernels 5.10..7.2 or --kernels %s", Cached)
	}
	var all []chosen
	add := func(name, arch string) {
		i := slices.IndexFunc(all, func(c chosen) bool { return c.name == name })
		switch {
		case i < 0 && arch == "":
			all = append(all, chosen{name, nil})
		case i < 0:
			all = append(all, chosen{name, []string{arch}})
		case arch == "":
			all[i].archs = nil
		case all[i].archs != nil:
			all[i].archs = append(all[i].archs, arch)
		}
	}
	var archs []string
	for _, t := range targets {
		if !slices.Contains(archs, t.Arch) {
			archs = append(archs, t.Arch)
		}
	}
	for _, item := range s.Kernels {
		if span, ok, err := kernel.ParseSpan(item.Text); err != nil {
			return nil, bad(item.Where, "%v", err)
		} else if ok {
			found, err := known.Within(span, archs)
			if err != nil {
				return nil, bad(item.Where, "%v", err)
			}
			for _, f := range found {
				for _, arch := range f.Archs {
					add(f.Name, arch)
				}
			}
			continue
		}
		if item.Text != Cached {
			if _, err := kernel.ParseRef(item.Text); err != nil {
				return nil, bad(item.Where, "%v", err)
			}
			add(item.Text, "")
			continue
		}
		for _, t := range targets {
			names, err := known.Cached(t.Arch)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				add(name, t.Arch)
			}
		}
		if len(all) == 0 {
			return nil, bad(item.Where, "no kernel is cached; labctl kernel pull gets some")
		}
	}
	return all, nil
}

// work returns what is done on each architecture.
func (s *Spec) work(targets []targets.Target, known Known) (map[string][]matrix.Work, error) {
	if len(s.Work) == 0 {
		return nil, outcome.Inputf("which work? give --labs 'P*,K1', --gotest ./..., or a program: -- PROG ARGS")
	}
	all := map[string][]matrix.Work{}
	for _, t := range targets {
		if all[t.Arch] != nil {
			continue
		}
		for _, w := range s.Work {
			names, err := w.names(t.Arch, known)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				one := matrix.Work{Kind: w.Kind, Name: name, Args: w.Args, Files: texts(w.Files)}
				same := func(o matrix.Work) bool {
					return o.Kind == one.Kind && o.Name == one.Name && slices.Equal(o.Args, one.Args) && slices.Equal(o.Files, one.Files)
				}
				if !slices.ContainsFunc(all[t.Arch], same) {
					all[t.Arch] = append(all[t.Arch], one)
				}
			}
		}
	}
	return all, nil
}

func texts(items []Item) (out []string) {
	for _, i := range items {
		out = append(out, i.Text)
	}
	return out
}

func (w *Work) names(arch string, known Known) (names []string, err error) {
	for _, item := range w.Names {
		var found []string
		switch w.Kind {
		case matrix.Lab:
			if found, err = lab.MatchIDs(item.Text, known.Labs); err != nil {
				return nil, bad(item.Where, "%v", err)
			}
		case matrix.GoTest:
			if found, err = known.Packages(item.Text, arch); err != nil {
				return nil, bad(item.Where, "%v", err)
			}
			if len(found) == 0 {
				return nil, bad(item.Where, "%s: no package of it has tests for %s", text.Line(item.Text, 80), arch)
			}
		default:
			found = []string{item.Text}
		}
		names = append(names, found...)
	}
	return names, nil
}

func (s *Spec) excluded(c matrix.Cell, used []bool) bool {
	out := false
	for i, x := range s.Exclude {
		if globs(x.Kernels, c.Kernel) && globs(x.Targets, c.Target) && globs(x.Work, c.Work.Name) {
			out, used[i] = true, true
		}
	}
	return out
}

// globs reports whether one of the globs matches, or there are none.
func globs(items []Item, name string) bool {
	return len(items) == 0 || slices.ContainsFunc(items, func(i Item) bool {
		ok, _ := path.Match(i.Text, name) // Read has tried them
		return ok || i.Text == name
	})
}
