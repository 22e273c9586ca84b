package kbuild

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"labctl/host/bounded"
	"labctl/kconfig"
)

// fix is one entry of kconfig/compilers.yaml.
type fix struct {
	Name     string        `yaml:"name"`
	Symptom  string        `yaml:"symptom"` // the error message of a build without it
	Why      string        `yaml:"why"`
	Tried    string        `yaml:"tried"` // versions with which it was tested
	Arch     []string      `yaml:"arch"`  // GOARCH; empty means all
	Tree     []treeFact    `yaml:"tree"`
	Compiler *compilerFact `yaml:"compiler"`

	HostCC  []string `yaml:"host_cc"`
	CC      []string `yaml:"cc"`
	KCFlags []string `yaml:"kcflags"`
	Config  []string `yaml:"config"`
	Refuse  string   `yaml:"refuse"`
}

// options returns the options that the fix sets.
func (f fix) options() ([]Option, error) {
	return ParseFragment("compilers.yaml, "+f.Name, []byte(strings.Join(f.Config, "\n")))
}

// onlyConfig reports whether all that the fix does is to set options.
func (f fix) onlyConfig() bool {
	return len(f.HostCC)+len(f.CC)+len(f.KCFlags) == 0 && f.Refuse == ""
}

// treeFact is a condition on a file of the tree.
type treeFact struct {
	File  string `yaml:"file"`
	Has   string `yaml:"has"`
	Lacks string `yaml:"lacks"`
}

// compilerFact is a condition on a compiler.
type compilerFact struct {
	Of      string   `yaml:"of"`
	Takes   []string `yaml:"takes"`
	Rejects []string `yaml:"rejects"`
	Builds  string   `yaml:"builds"`
	Refuses string   `yaml:"refuses"`
}

// asker tests the conditions on a compiler.
type asker interface {
	takes(options ...string) bool
	builds(program string) bool
}

// maxFactFile limits the size of a file that is searched.
const maxFactFile = 4 << 20

// holds reports whether the condition is true for the tree.
func (f treeFact) holds(tree string) bool {
	data, err := bounded.ReadFile(filepath.Join(tree, f.File), maxFactFile)
	if err != nil {
		return false
	}
	in := func(pattern string) bool { return regexp.MustCompile("(?m)" + pattern).Match(data) }
	return (f.Has == "" || in(f.Has)) && (f.Lacks == "" || !in(f.Lacks))
}

func (f *compilerFact) holds(host, target asker) bool {
	if f == nil {
		return true
	}
	c := target
	if f.Of == "host" {
		c = host
	}
	return (len(f.Takes) == 0 || c.takes(f.Takes...)) && (len(f.Rejects) == 0 || !c.takes(f.Rejects...)) &&
		(f.Builds == "" || c.builds(f.Builds)) && (f.Refuses == "" || !c.builds(f.Refuses))
}

// fixesFor returns the fixes that a tree needs for an architecture with these
// compilers.
func fixesFor(all []fix, tree, arch string, host, target asker) []fix {
	var out []fix
	for _, f := range all {
		if len(f.Arch) > 0 && !slices.Contains(f.Arch, arch) {
			continue
		}
		if slices.ContainsFunc(f.Tree, func(t treeFact) bool { return !t.holds(tree) }) {
			continue
		}
		if f.Compiler.holds(host, target) {
			out = append(out, f)
		}
	}
	return out
}

// fixes returns the embedded list. It panics on an error in the list, which
// TestFixes would have found.
var fixes = sync.OnceValue(func() []fix {
	f, err := parseFixes("kconfig/compilers.yaml", kconfig.Compilers)
	if err != nil {
		panic(err)
	}
	return f
})

func parseFixes(file string, data []byte) ([]fix, error) {
	var doc struct {
		Fixes []fix `yaml:"fixes"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	for i, f := range doc.Fixes {
		where := fmt.Sprintf("%s: fixes[%d] %s", file, i, f.Name)
		if f.Name == "" || f.Symptom == "" || f.Why == "" || f.Tried == "" || len(f.Tree) == 0 {
			return nil, fmt.Errorf("%s: needs name, symptom, why, tried and tree", where)
		}
		if f.onlyConfig() && len(f.Config) == 0 {
			return nil, fmt.Errorf("%s: changes nothing", where)
		}
		for _, a := range f.Arch {
			if _, err := archOf(a); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
		}
		for _, t := range f.Tree {
			if !filepath.IsLocal(t.File) || t.Has == "" && t.Lacks == "" {
				return nil, fmt.Errorf("%s: an entry of tree needs file, and has or lacks", where)
			}
			for _, p := range []string{t.Has, t.Lacks} {
				if _, err := regexp.Compile("(?m)" + p); err != nil {
					return nil, fmt.Errorf("%s: %w", where, err)
				}
			}
		}
		if c := f.Compiler; c != nil && c.Of != "" && c.Of != "host" && c.Of != "target" {
			return nil, fmt.Errorf("%s: compiler of %q: want host or target", where, c.Of)
		}
		if _, err := f.options(); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	return doc.Fixes, nil
}
