package kernel

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"labctl/images"
)

// Source is one entry of images/kernels.yaml.
type Source struct {
	Kind string `yaml:"kind"` // KindDebian or KindFile

	// Of KindDebian.
	Suite     string                `yaml:"suite"`
	Series    string                `yaml:"series"`
	LongTerm  bool                  `yaml:"long_term"`
	Component string                `yaml:"component"`
	Arch      map[string]SourceArch `yaml:"arch"` // by GOARCH
}

// SourceArch is what a Debian source calls an architecture.
type SourceArch struct {
	Debian  string `yaml:"debian"`
	Package string `yaml:"package"` // meta package that depends on the image
}

// The kinds of sources.
const (
	KindDebian = "debian"
	KindFile   = "file"
	KindBuild  = "build" // made here, by labctl kernel build; not in the list
)

type sourceList struct {
	Fallback string   `yaml:"fallback"`
	Sources  []Source `yaml:"sources"`
}

// sources is the embedded list. It is part of the program, so an error in it is
// a defect of the build; TestEmbeddedSources keeps it from shipping.
var sources = sync.OnceValue(func() *sourceList {
	l, err := parseSources("images/kernels.yaml", images.Kernels)
	if err != nil {
		panic(err)
	}
	return l
})

// parseSources reads kernels.yaml strictly: an unknown or doubled field is an
// error that names the file and line.
func parseSources(file string, data []byte) (*sourceList, error) {
	var l sourceList
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&l); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	seen := map[string]bool{}
	for i, s := range l.Sources {
		where := fmt.Sprintf("%s: sources[%d]", file, i)
		switch s.Kind {
		case KindFile:
			if s.Suite != "" || s.Series != "" || len(s.Arch) > 0 {
				return nil, fmt.Errorf("%s: kind file takes no other field", where)
			}
		case KindDebian:
			if s.Suite == "" || s.Series == "" || s.Component == "" || len(s.Arch) == 0 {
				return nil, fmt.Errorf("%s: kind debian needs suite, series, component and arch", where)
			}
			if _, err := parseSeries(s.Series); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			for name, a := range s.Arch {
				if a.Debian == "" || a.Package == "" {
					return nil, fmt.Errorf("%s: arch %s needs debian and package", where, name)
				}
			}
			for _, key := range []string{s.Suite, s.Series} {
				if seen[key] {
					return nil, fmt.Errorf("%s: %s is already the name of another source", where, key)
				}
				seen[key] = true
			}
		default:
			return nil, fmt.Errorf("%s: unknown kind %q: use %s or %s", where, s.Kind, KindDebian, KindFile)
		}
	}
	if !seen[l.Fallback] {
		return nil, fmt.Errorf("%s: fallback %q is no series of the list", file, l.Fallback)
	}
	return &l, nil
}

// debianSources yields the Debian entries in the order of the file.
func debianSources() []Source {
	var out []Source
	for _, s := range sources().Sources {
		if s.Kind == KindDebian {
			out = append(out, s)
		}
	}
	return out
}

// seriesOf gives "6.12" for "6.12.107+deb13-amd64"; "" when s starts otherwise.
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

// parseSeries splits "6.12" into numbers, to sort by.
func parseSeries(s string) ([2]int, error) {
	var v [2]int
	if n, err := fmt.Sscanf(s, "%d.%d", &v[0], &v[1]); n != 2 || err != nil || fmt.Sprintf("%d.%d", v[0], v[1]) != s {
		return v, fmt.Errorf("series %q: want two numbers, as 6.12", s)
	}
	return v, nil
}

func archNames(m map[string]SourceArch) []string { return slices.Sorted(maps.Keys(m)) }
