package kernel

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"labctl/host/outcome"
)

// Ref names a kernel without its architecture. Exactly one of Suite, Module,
// Release, Path and Build is set.
type Ref struct {
	Suite   string // Debian suite: "trixie"
	Flavour string // set with Suite for a kernel beside the usual one: "cloud"
	Series  string // set with Suite when the user named the series: "6.12"
	Module  string // Go module: "github.com/gokrazy/kernel.rpi"
	Version string // set with Module when the user named one: "v0.0.0-20251127164438-9778ec0261de"
	Release string // `uname -r` of a cached kernel: "6.12.107+deb13-amd64"
	Path    string // an image file, or the folder of a kernel tree
	Build   string // name of a kernel that labctl built: "lab-6.12"
}

// String is the form that ParseRef takes.
func (r Ref) String() string {
	switch {
	case r.Build != "":
		return KindBuild + ":" + r.Build
	case r.Path != "":
		return r.Path
	case r.Release != "":
		return r.Release
	case r.Version != "":
		return KindModule + ":" + r.Module + "@" + r.Version
	}
	s := r.source()
	if r.Series != "" {
		return s.name()
	}
	return s.ref()
}

// source is an entry of the list as far as a reference names it.
func (r Ref) source() *Source {
	if r.Module != "" {
		return &Source{Kind: KindModule, Module: r.Module}
	}
	return &Source{Kind: KindDebian, Suite: r.Suite, Flavour: r.Flavour, Series: r.Series}
}

// ParseRef reads what `--kernel` takes: a series, with its flavour if it has one
// ("6.12", "6.12-cloud"), a source ("debian:trixie", "debian:trixie-cloud",
// "gomod:github.com/gokrazy/kernel.rpi", the latter with a version if one is
// wanted: "…@v0.0.0-20251127164438-9778ec0261de"), a kernel that was built
// ("build:lab-6.12"), the release of a cached kernel ("6.12.107+deb13-amd64") or
// a path, which has a slash in it ("./bzImage", "./linux-6.12/").
func ParseRef(s string) (_ Ref, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if _, err := loadSources(); err != nil {
		return Ref{}, err
	}
	if name, ok := strings.CutPrefix(s, KindBuild+":"); ok {
		if !buildName.MatchString(name) {
			return Ref{}, fmt.Errorf("kernel %q: a build's name has letters, digits and . _ + - in it: build:lab-6.12", s)
		}
		return Ref{Build: name}, nil
	}
	if name, ok := strings.CutPrefix(s, KindModule+":"); ok {
		return parseModule(s, name)
	}
	name, isDebian := strings.CutPrefix(s, KindDebian+":")
	for _, src := range pulled() {
		switch {
		case src.Kind != KindDebian:
		case isDebian && name == src.key():
			return Ref{Suite: src.Suite, Flavour: src.Flavour}, nil
		case name == src.name():
			return Ref{Suite: src.Suite, Flavour: src.Flavour, Series: src.Series}, nil
		}
	}
	if strings.ContainsRune(s, '/') && !isDebian {
		return Ref{Path: s}, nil
	}
	if looksLikeRelease(s) {
		return Ref{Release: s}, nil
	}
	known := knownRefs()
	msg := fmt.Sprintf("kernel %q is not known", s)
	near := Nearest(s, known)
	if near == "" && !isDebian {
		near = Nearest(KindDebian+":"+s, known) // a suite without its source
	}
	if near != "" {
		msg += fmt.Sprintf(": did you mean %s?", near)
	}
	if _, err := os.Stat(s); err == nil && s != "" {
		msg += fmt.Sprintf(" (for the file of that name write ./%s)", s)
	}
	return Ref{}, fmt.Errorf("%s; known: %s, the release of a cached kernel, build:NAME, or a path with a slash in it", msg, strings.Join(known, ", "))
}

// parseModule reads what follows "gomod:" in s.
func parseModule(s, name string) (Ref, error) {
	name, version, named := strings.Cut(name, "@")
	if named && (!semver.IsValid(version) || semver.Canonical(version)+semver.Build(version) != version) {
		return Ref{}, fmt.Errorf("kernel %q: version %q: want one as v1.2.3 or v0.0.0-20251127164438-9778ec0261de; leave @ out for the latest", s, version)
	}
	var known []string
	for _, src := range pulled() {
		if src.Kind != KindModule {
			continue
		}
		if src.Module == name {
			return Ref{Module: name, Version: version}, nil
		}
		known = append(known, src.ref())
	}
	msg := fmt.Sprintf("kernel %q is not known", s)
	if near := Nearest(KindModule+":"+name, known); near != "" {
		msg += fmt.Sprintf(": did you mean %s?", near)
	}
	return Ref{}, fmt.Errorf("%s; known: %s; others go into labctl/kernels.yaml in the folder of your settings", msg, strings.Join(known, ", "))
}

// buildName is what kernels that labctl built may be called. It is part of the
// name of a folder.
var buildName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// knownRefs are the names that ParseRef knows, in the order of the list: the
// short ones first.
func knownRefs() []string {
	var short, long []string
	for _, s := range pulled() {
		if s.name() != s.ref() {
			short = append(short, s.name())
		}
		long = append(long, s.ref())
	}
	return append(short, long...)
}

// newSeries is what follows the two numbers of a release before its first point
// release: "7.3-rc7", and "7.3-amd64" as Debian has it.
var newSeries = regexp.MustCompile(`^-(rc[0-9]|([!-~]*-)?(amd64|arm64|armmp)$)`)

// looksLikeRelease says whether s has the three numbers of a release; a series
// has two.
func looksLikeRelease(s string) bool {
	series := seriesOf(s)
	if series == "" || strings.ContainsAny(s, " \t\n") {
		return false
	}
	if newSeries.MatchString(s[len(series):]) {
		return true
	}
	rest, ok := strings.CutPrefix(s[len(series):], ".")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

// Nearest gives the known name that got is most likely a slip of, or "" when
// none is near: a third of its characters, and at least one, may differ. Of two
// that are as near, the one of the same length wins.
func Nearest(got string, known []string) string {
	limit := max(1, len(got)/3)
	best, bestCost := "", 2*limit+2
	for _, k := range known {
		cost := 2 * editDistance(got, k)
		if len(k) != len(got) {
			cost++
		}
		if cost < bestCost {
			best, bestCost = k, cost
		}
	}
	return best
}

// editDistance counts the single characters to insert, delete or replace, and
// the neighbours to swap, to turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	var before, prev []int
	cur := make([]int, len(rb)+1)
	for j := range cur {
		cur[j] = j
	}
	for i := range ra {
		before, prev = prev, slices.Clone(cur)
		cur[0] = i + 1
		for j := range rb {
			cost := 1
			if ra[i] == rb[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j+1]+1, cur[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && ra[i] == rb[j-1] && ra[i-1] == rb[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
	}
	return cur[len(rb)]
}
