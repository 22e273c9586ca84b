package kernel

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/module"

	"labctl/host/arch"
	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/images"
)

// Source is one entry of images/kernels.yaml.
type Source struct {
	Kind string `yaml:"kind"` // KindDebian, KindModule or KindFile

	// For KindDebian.
	Suite     string `yaml:"suite"`
	Flavour   string `yaml:"flavour"` // "cloud"; "" for the standard kernel
	Series    string `yaml:"series"`
	LongTerm  bool   `yaml:"long_term"`
	Component string `yaml:"component"`

	// For KindModule.
	Module string `yaml:"module"` // "github.com/gokrazy/kernel.rpi"

	// For KindImage.
	Container string `yaml:"-"` // "registry.example/lvh-images/kernel-images:6.6-main"

	Arch map[string]SourceArch `yaml:"arch"` // by GOARCH
}

// SourceArch describes a source's kernel for one architecture.
type SourceArch struct {
	// For KindDebian.
	Debian  string `yaml:"debian"`  // Debian's name of the architecture; default: from host/arch
	Package string `yaml:"package"` // meta package that depends on the image

	// For KindModule: paths relative to the module's root.
	Image   string `yaml:"image"`
	DTBs    string `yaml:"dtbs"`    // directory of device trees, "." for the root
	Modules string `yaml:"modules"` // directory with a subdirectory per release
}

// The kinds of sources.
const (
	KindDebian = "debian"
	KindModule = "gomod"
	KindFile   = "file"
	KindBuild  = "build" // built by labctl kernel build; not in the list
	KindImage  = "oci"   // in a container image, which the user names; not in the list
)

// SourcesEnv is the environment variable that names the user's list of sources.
// The default is labctl/kernels.yaml in os.UserConfigDir.
const SourcesEnv = "LABCTL_KERNELS"

// key identifies a source and names its directories: "trixie", "trixie-cloud",
// "github.com+gokrazy+kernel.rpi". A module path contains no "+".
func (s *Source) key() string {
	switch {
	case s.Kind == KindModule:
		return strings.ReplaceAll(s.Module, "/", "+")
	case s.Kind == KindImage:
		return strings.NewReplacer("/", "+", ":", "=", "@", "=").Replace(s.Container)
	case s.Flavour != "":
		return s.Suite + "-" + s.Flavour
	}
	return s.Suite
}

// ref returns the source's name, independent of the series that it serves:
// "debian:trixie-cloud".
func (s *Source) ref() string {
	switch s.Kind {
	case KindModule:
		return KindModule + ":" + s.Module
	case KindImage:
		return KindImage + ":" + s.Container
	case KindDebian:
		return KindDebian + ":" + s.key()
	}
	return s.Kind
}

// name returns the source's short name, if it has one: "6.12-cloud".
func (s *Source) name() string {
	switch {
	case s.Kind == KindModule, s.Kind == KindImage:
		return s.ref()
	case s.Flavour != "":
		return s.Series + "-" + s.Flavour
	}
	return s.Series
}

type sourceList struct {
	Fallback string   `yaml:"fallback"`
	Sources  []Source `yaml:"sources"`
}

// maxSources limits the size of a user's list of sources, in bytes.
const maxSources = 1 << 20

// loadSources reads the embedded list and the user's, once.
var loadSources = sync.OnceValues(func() (*sourceList, error) {
	file, named := os.Getenv(SourcesEnv), true
	if file == "" {
		dir, err := os.UserConfigDir()
		if err != nil { // no home directory, hence no user's list
			return embeddedSources(), nil
		}
		file, named = filepath.Join(dir, "labctl", "kernels.yaml"), false
	}
	data, err := bounded.ReadFile(file, maxSources)
	switch {
	case os.IsNotExist(err) && !named:
		return embeddedSources(), nil
	case err != nil:
		return nil, outcome.Default(outcome.BadInput, fmt.Errorf("read the list of kernel sources: %w", err))
	}
	user, err := parseSources(file, data, true)
	if err != nil {
		return nil, err
	}
	all, err := embeddedSources().merge(file, user)
	return all, outcome.Default(outcome.BadInput, err)
})

// sources returns the list. It must be called after Open or ParseRef, which report
// errors in the user's list.
func sources() *sourceList {
	if l, err := loadSources(); err == nil {
		return l
	}
	return embeddedSources()
}

// embeddedSources returns the embedded list. It panics on an error in the list,
// which TestEmbeddedSources would have found.
func embeddedSources() *sourceList {
	l, err := parseSources("images/kernels.yaml", images.Kernels, false)
	if err != nil {
		panic(err)
	}
	return l
}

// merge merges a user's list into l: an entry for a known source replaces the old
// one in the same position, others are appended.
func (l *sourceList) merge(file string, user *sourceList) (*sourceList, error) {
	out := &sourceList{Fallback: l.Fallback, Sources: slices.Clone(l.Sources)}
	for _, s := range user.Sources {
		if i := slices.IndexFunc(out.Sources, func(old Source) bool { return old.ref() == s.ref() }); i >= 0 {
			out.Sources[i] = s
		} else {
			out.Sources = append(out.Sources, s)
		}
	}
	if user.Fallback != "" {
		out.Fallback = user.Fallback
	}
	// Two valid lists may conflict. The user's list is at fault then, and its
	// fallback may name any entry of the merged list.
	names := map[string]string{}
	for i := range out.Sources {
		s := &out.Sources[i]
		if s.Kind == KindFile {
			continue
		}
		if other, ok := names[s.name()]; ok {
			return nil, fmt.Errorf("%s: %s and %s are both called %s: change the series of one of them, or replace it with an entry for the same source", file, other, s.ref(), s.name())
		}
		names[s.name()] = s.ref()
	}
	if _, ok := names[out.Fallback]; !ok {
		return nil, fmt.Errorf("%s: fallback %q is not in the list", file, out.Fallback)
	}
	return out, nil
}

var (
	// Suites, flavours and packages become arguments of apt and directory names.
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{0,63}$`)
	goarch    = regexp.MustCompile(`^[a-z0-9]{1,16}$`)
)

// parseSources parses a kernels.yaml strictly. Its errors are a *YAMLError for the
// first problem found. A user's list may omit fallback.
func parseSources(file string, data []byte, user bool) (*sourceList, error) {
	var l sourceList
	doc, err := decodeYAML(file, data, &l)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range l.Sources {
		s, at := &l.Sources[i], fmt.Sprintf("sources[%d]", i)
		s.nameForDebian()
		field, msg := s.wrong()
		if msg != "" {
			if field != "" {
				at += "." + field
			}
			return nil, doc.fail(at, "%s", msg)
		}
		if s.Kind == KindFile {
			continue
		}
		for _, name := range []string{s.ref(), s.name()} {
			if seen[name] {
				return nil, doc.fail(at, "%s is already the name of another source", name)
			}
		}
		seen[s.ref()], seen[s.name()] = true, true
	}
	if !user && !seen[l.Fallback] {
		return nil, doc.fail("fallback", "%q is not in the list", l.Fallback)
	}
	return &l, nil
}

// nameForDebian fills in Debian's names of the architectures.
func (s *Source) nameForDebian() {
	for name, a := range s.Arch {
		if row, ok := arch.Find(name); ok && s.Kind == KindDebian && a.Debian == "" {
			a.Debian = row.Debian
			s.Arch[name] = a
		}
	}
}

// wrong returns what is wrong with an entry, and in which field; "" if it is
// valid.
func (s *Source) wrong() (field, msg string) {
	extra := func(fields map[string]bool) (string, string) {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if fields[name] {
				return name, fmt.Sprintf("kind %s does not allow %s", s.Kind, name)
			}
		}
		return "", ""
	}
	switch s.Kind {
	case KindFile:
		return extra(map[string]bool{"suite": s.Suite != "", "flavour": s.Flavour != "", "series": s.Series != "", "long_term": s.LongTerm,
			"component": s.Component != "", "module": s.Module != "", "arch": len(s.Arch) > 0})
	case KindDebian:
		for _, f := range []struct{ name, value string }{{"suite", s.Suite}, {"component", s.Component}} {
			if !plainName.MatchString(f.value) {
				return f.name, fmt.Sprintf("%s is %q: kind debian needs a name such as trixie or main", f.name, f.value)
			}
		}
		if s.Flavour != "" && !plainName.MatchString(s.Flavour) {
			return "flavour", fmt.Sprintf("flavour is %q: want a name such as cloud", s.Flavour)
		}
		if _, err := parseSeries(s.Series); err != nil {
			return "series", err.Error()
		}
		if f, m := extra(map[string]bool{"module": s.Module != ""}); m != "" {
			return f, m
		}
	case KindModule:
		if err := module.CheckPath(s.Module); err != nil {
			return "module", fmt.Sprintf("module is %q: want a Go module's path: %v", s.Module, err)
		}
		if f, m := extra(map[string]bool{"suite": s.Suite != "", "flavour": s.Flavour != "", "series": s.Series != "", "long_term": s.LongTerm, "component": s.Component != ""}); m != "" {
			return f, m
		}
	default:
		return "kind", fmt.Sprintf("unknown kind %q: use %s, %s or %s", s.Kind, KindDebian, KindModule, KindFile)
	}
	if len(s.Arch) == 0 {
		return "arch", fmt.Sprintf("kind %s needs arch: at least one architecture", s.Kind)
	}
	for _, name := range archNames(s.Arch) {
		if !goarch.MatchString(name) {
			return "arch", fmt.Sprintf("arch %q: want a GOARCH such as amd64", name)
		}
		if field, msg := s.Arch[name].wrong(s.Kind); msg != "" {
			if field != "" {
				field = "." + field
			}
			return "arch." + name + field, msg
		}
	}
	return "", ""
}

func (a SourceArch) wrong(kind string) (field, msg string) {
	if kind == KindDebian {
		switch {
		case !plainName.MatchString(a.Package):
			return "", "kind debian needs package: linux-image-arm64"
		case !plainName.MatchString(a.Debian):
			return "", "kind debian needs debian (Debian's name) for an architecture that labctl does not know: riscv64"
		case a.Image != "" || a.DTBs != "" || a.Modules != "":
			return "", "kind debian allows only package and debian"
		}
		return "", ""
	}
	if a.Debian != "" || a.Package != "" {
		return "", "kind gomod allows only image, dtbs and modules"
	}
	for _, f := range []struct{ name, path string }{{"image", a.Image}, {"dtbs", a.DTBs}, {"modules", a.Modules}} {
		if !fs.ValidPath(f.path) && (f.path != "" || f.name == "image") || f.name == "image" && f.path == "." {
			return f.name, fmt.Sprintf("%s is %q: want a path relative to the module's root", f.name, f.path)
		}
	}
	return "", ""
}

// pulled returns the sources that kernels are pulled from, in the order of the
// file.
func pulled() []Source {
	var out []Source
	for _, s := range sources().Sources {
		if s.Kind != KindFile {
			out = append(out, s)
		}
	}
	return out
}

// seriesOf returns "6.12" for "6.12.107+deb13-amd64", and "" if s does not start
// with a series.
func seriesOf(s string) string {
	major, rest, ok := strings.Cut(s, ".")
	if !ok || major == "" || strings.Trim(major, "0123456789") != "" {
		return ""
	}
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	if minor == "" {
		return ""
	}
	return major + "." + minor
}

// parseSeries splits "6.12" into numbers, for sorting.
func parseSeries(s string) ([2]int, error) {
	var v [2]int
	if n, err := fmt.Sscanf(s, "%d.%d", &v[0], &v[1]); n != 2 || err != nil || fmt.Sprintf("%d.%d", v[0], v[1]) != s {
		return v, fmt.Errorf("series %q: want two numbers, such as 6.12", s)
	}
	return v, nil
}

func archNames(m map[string]SourceArch) []string { return slices.Sorted(maps.Keys(m)) }
