package kbuild

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"labctl/host/arch"
	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/kconfig"
)

// maxFragment bounds a fragment, in bytes; a whole .config has a fifth of it.
const maxFragment = 1 << 20

// Option is one option that a kernel is to be configured with.
type Option struct {
	Name  string // without CONFIG_
	Value string // y, m, n, a number, or a string in its quotes
	// IfKnown asks for it only in trees that have an option of the name.
	IfKnown bool
	Where   string // "base.config:12"
}

// line is the option as .config writes it.
func (o Option) line() string {
	if o.Value == "n" {
		return "# CONFIG_" + o.Name + " is not set"
	}
	return "CONFIG_" + o.Name + "=" + o.Value
}

var (
	setLine   = regexp.MustCompile(`^CONFIG_([A-Za-z0-9_]+)=(y|m|n|-?[0-9]+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*")$`)
	unsetLine = regexp.MustCompile(`^# CONFIG_([A-Za-z0-9_]+) is not set$`)
)

// ParseFragment reads the lines of a .config. The line "#? WHY" before an option
// sets its IfKnown; other comments mean nothing.
func ParseFragment(file string, data []byte) ([]Option, error) {
	if len(data) > maxFragment {
		return nil, fmt.Errorf("%s: %d bytes are more than a fragment has", file, len(data))
	}
	var out []Option
	ifKnown := false
	n := 0
	for raw := range strings.Lines(string(data)) {
		n++
		line := strings.TrimSpace(raw)
		o := Option{Where: fmt.Sprintf("%s:%d", file, n), IfKnown: ifKnown}
		if m := setLine.FindStringSubmatch(line); m != nil {
			o.Name, o.Value = m[1], m[2]
		} else if m := unsetLine.FindStringSubmatch(line); m != nil {
			o.Name, o.Value = m[1], "n"
		} else if line == "" || strings.HasPrefix(line, "#") {
			ifKnown = strings.HasPrefix(line, "#?")
			continue
		} else {
			return nil, fmt.Errorf("%s: %q is no line of a configuration; want CONFIG_NAME=y, m, n, a number or a \"string\", or # CONFIG_NAME is not set",
				o.Where, text.Line(line, 60))
		}
		ifKnown = false
		out = append(out, o)
	}
	return out, nil
}

// merge gives each option once, as it was asked for last, in the order of those.
func merge(lists ...[]Option) []Option {
	all := slices.Concat(lists...)
	last := map[string]int{}
	for i, o := range all {
		last[o.Name] = i
	}
	var out []Option
	for i, o := range all {
		if last[o.Name] == i {
			out = append(out, o)
		}
	}
	return out
}

// Profile is one entry of kconfig/profiles.yaml.
type Profile struct {
	Name      string                 `yaml:"name"`
	Summary   string                 `yaml:"summary"`
	Fragments []string               `yaml:"fragments"`
	Features  []string               `yaml:"features"` // of kconfig/features.yaml
	Arch      map[string]ProfileArch `yaml:"arch"`     // by GOARCH
}

// ProfileArch is what a profile has on one architecture alone.
type ProfileArch struct {
	Features []string `yaml:"features"`
	Without  []string `yaml:"without"` // features that the architecture cannot have
}

// FeaturesOf are the features of a kernel of the profile.
func (p Profile) FeaturesOf(arch string) []string {
	a := p.Arch[arch]
	return slices.DeleteFunc(slices.Concat(p.Features, a.Features), func(f string) bool { return slices.Contains(a.Without, f) })
}

// Profiles gives the profiles in the order of the file.
func Profiles() []Profile { return slices.Clone(profiles()) }

// Fragments are the names of the fragments that come with labctl.
func Fragments() []string {
	entries, err := fs.ReadDir(kconfig.Fragments, ".")
	if err != nil {
		panic(err) // embedded
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".config")
		for _, a := range arch.All {
			name = strings.TrimSuffix(name, "-"+a.Name)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// profiles is the embedded list. It is part of the program, so an error in it is
// a defect of the build; TestProfiles keeps it from shipping.
var profiles = sync.OnceValue(func() []Profile {
	p, err := parseProfiles("kconfig/profiles.yaml", kconfig.Profiles)
	if err != nil {
		panic(err)
	}
	return p
})

func parseProfiles(file string, data []byte) ([]Profile, error) {
	var doc struct {
		Profiles []Profile `yaml:"profiles"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	var known []string
	for _, f := range check.All() {
		known = append(known, f.Name)
	}
	for i, p := range doc.Profiles {
		where := fmt.Sprintf("%s: profiles[%d] %s", file, i, p.Name)
		if p.Name == "" || len(p.Fragments) == 0 {
			return nil, fmt.Errorf("%s: needs a name and fragments", where)
		}
		for _, f := range p.Fragments {
			if !slices.Contains(Fragments(), f) {
				return nil, fmt.Errorf("%s: there is no fragment %s", where, f)
			}
		}
		features := slices.Clone(p.Features)
		for arch, a := range p.Arch {
			if _, err := archOf(arch); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			features = slices.Concat(features, a.Features, a.Without)
		}
		for _, f := range features {
			if !slices.Contains(known, f) {
				return nil, fmt.Errorf("%s: there is no feature %s", where, f)
			}
		}
	}
	return doc.Profiles, nil
}

// Plan is what a kernel is configured with, before its tree is looked at.
type Plan struct {
	Profile   *Profile // nil for none
	Fragments []string // those of the profile and those beside it, as asked for
	Options   []Option // each once
}

// NewPlan puts a profile, "" for none, and further fragments together. A
// fragment is a name of those that come with labctl, or a file, which has a
// slash in it or ends in .config.
func NewPlan(arch, profile string, fragments []string) (_ *Plan, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	p := &Plan{}
	if profile != "" {
		i := slices.IndexFunc(profiles(), func(p Profile) bool { return p.Name == profile })
		if i < 0 {
			var known []string
			for _, p := range profiles() {
				known = append(known, p.Name)
			}
			return nil, unknown("profile", profile, known)
		}
		p.Profile = &profiles()[i]
		p.Fragments = slices.Clone(p.Profile.Fragments)
	}
	p.Fragments = append(p.Fragments, fragments...)
	if len(p.Fragments) == 0 {
		return nil, errors.New("no profile and no fragment: a kernel of nothing does not boot")
	}
	var lists [][]Option
	for _, name := range p.Fragments {
		list, err := readFragment(arch, name)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list...)
	}
	p.Options = merge(lists...)
	return p, nil
}

// readFragment gives the options of a fragment, and of the part of it that is
// for the architecture.
func readFragment(arch, name string) ([][]Option, error) {
	if strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".config") {
		data, err := bounded.ReadFile(name, maxFragment)
		if err != nil {
			return nil, fmt.Errorf("fragment: %w", err)
		}
		list, err := ParseFragment(name, data)
		if err == nil && len(list) == 0 {
			err = fmt.Errorf("fragment %s: there is no option in it", name)
		}
		return [][]Option{list}, err
	}
	var lists [][]Option
	for _, file := range []string{name + ".config", name + "-" + arch + ".config"} {
		data, err := kconfig.Fragments.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := ParseFragment(file, data)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	if !slices.Contains(Fragments(), name) {
		hint := ""
		if _, err := os.Stat(name); err == nil {
			hint = fmt.Sprintf(" (for the file of that name write .%c%s)", filepath.Separator, path.Base(name))
		}
		return nil, fmt.Errorf("%w%s", unknown("fragment", name, Fragments()), hint)
	}
	return lists, nil
}

// unknown is the error for a name that is not among the known ones.
func unknown(what, got string, known []string) error {
	hint := ""
	if near := kernel.Nearest(got, known); near != "" {
		hint = fmt.Sprintf(", did you mean %s?", near)
	}
	return outcome.Inputf("%s %q is not known%s (known: %s)", what, got, hint, strings.Join(known, ", "))
}
