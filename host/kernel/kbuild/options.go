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
	"labctl/host/kernel/check"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/kconfig"
)

// maxFragment limits a fragment, in bytes; a full .config is a fifth of that.
const maxFragment = 1 << 20

// Option is a requested configuration option.
type Option struct {
	Name  string // without CONFIG_
	Value string // y, m, n, a number, or a string with quotes
	// IfKnown requests the option only in trees that have it.
	IfKnown bool
	// Embedded: the option is labctl's, not the user's.
	Embedded bool
	Where    string // "base.config:12"
}

// line returns the option's line in a .config.
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

// ParseFragment parses the lines of a .config. A line "#? WHY" before an option
// sets its IfKnown; other comments are ignored.
func ParseFragment(file string, data []byte) ([]Option, error) {
	if len(data) > maxFragment {
		return nil, fmt.Errorf("%s: %d bytes is too large for a fragment", file, len(data))
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
			return nil, fmt.Errorf("%s: %q: not a line of a .config; want CONFIG_NAME=y, m, n, a number or a \"string\", or # CONFIG_NAME is not set",
				o.Where, text.Line(line, 60))
		}
		ifKnown = false
		out = append(out, o)
	}
	return out, nil
}

// merge merges lists of options. The last request for an option wins, and the
// result is in the order of those requests.
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

// ProfileArch is the part of a profile that is specific to an architecture.
type ProfileArch struct {
	Features []string `yaml:"features"`
	Without  []string `yaml:"without"` // features that are not available on the architecture
}

// FeaturesOf returns the features of a kernel built with the profile.
func (p Profile) FeaturesOf(arch string) []string {
	a := p.Arch[arch]
	return slices.DeleteFunc(slices.Concat(p.Features, a.Features), func(f string) bool { return slices.Contains(a.Without, f) })
}

// Profiles returns the profiles in the order of the file.
func Profiles() []Profile { return slices.Clone(profiles()) }

// Fragments returns the names of the embedded fragments.
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

// profiles returns the embedded list. It panics on an error in the list, which
// TestProfiles would have found.
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
				return nil, fmt.Errorf("%s: no such fragment: %s", where, f)
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
				return nil, fmt.Errorf("%s: no such feature: %s", where, f)
			}
		}
	}
	return doc.Profiles, nil
}

// Plan is the requested configuration of a kernel, independent of its tree.
type Plan struct {
	Profile   *Profile // nil without one
	Fragments []string // those of the profile, then the additional ones, as requested
	Options   []Option // without duplicates
}

// NewPlan combines a profile, "" for none, with further fragments. A fragment is
// the name of an embedded one, or a file, whose name contains a slash or ends in
// .config.
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
			return nil, nearest.Unknown("profile", profile, known)
		}
		p.Profile = &profiles()[i]
		p.Fragments = slices.Clone(p.Profile.Fragments)
	}
	p.Fragments = append(p.Fragments, fragments...)
	if len(p.Fragments) == 0 {
		return nil, errors.New("no profile and no fragment: a kernel without options does not boot")
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

// readFragment returns the options of a fragment, and those of its
// architecture-specific part.
func readFragment(arch, name string) ([][]Option, error) {
	if strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".config") {
		data, err := bounded.ReadFile(name, maxFragment)
		if err != nil {
			return nil, fmt.Errorf("fragment: %w", err)
		}
		list, err := ParseFragment(name, data)
		if err == nil && len(list) == 0 {
			err = fmt.Errorf("fragment %s: no options in it", name)
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
		for i := range list {
			list[i].Embedded = true
		}
		lists = append(lists, list)
	}
	if !slices.Contains(Fragments(), name) {
		hint := ""
		if _, err := os.Stat(name); err == nil {
			hint = fmt.Sprintf(" (for a file of that name use .%c%s)", filepath.Separator, path.Base(name))
		}
		return nil, fmt.Errorf("%w%s", nearest.Unknown("fragment", name, Fragments()), hint)
	}
	return lists, nil
}
