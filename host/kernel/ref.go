package kernel

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"golang.org/x/mod/semver"

	"labctl/host/nearest"
	"labctl/host/outcome"
)

// Ref names a kernel without its architecture. Exactly one of Suite, Module, Container,
// Release, Path and Build is set.
type Ref struct {
	Suite   string // Debian suite: "trixie"
	Flavour string // set with Suite for a kernel other than the standard one: "cloud"
	Series  string // set with Suite when the user named the series: "6.12"
	Module  string // Go module: "github.com/gokrazy/kernel.rpi"
	Version string // set with Module when the user named one: "v0.0.0-20251127164438-9778ec0261de"
	// Container is a container image: "registry.example/lvh-images/kernel-images:6.6-main".
	Container string
	Release   string // `uname -r` of a cached kernel: "6.12.107+deb13-amd64"
	Path      string // an image file, or the directory of a kernel tree
	Build     string // name of a kernel that labctl built: "lab-6.12"
}

// String returns the reference in the form that ParseRef accepts.
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

// source returns a Source with the fields that the reference names.
func (r Ref) source() *Source {
	switch {
	case r.Module != "":
		return &Source{Kind: KindModule, Module: r.Module}
	case r.Container != "":
		return &Source{Kind: KindImage, Container: r.Container}
	}
	return &Source{Kind: KindDebian, Suite: r.Suite, Flavour: r.Flavour, Series: r.Series}
}

// remote reports whether the kernel is pulled from somewhere.
func (r Ref) remote() bool { return r.Suite != "" || r.Module != "" || r.Container != "" }

// ParseRef parses the argument of `--kernel`: a series, optionally with a flavour
// ("6.12", "6.12-cloud"), a source ("debian:trixie", "debian:trixie-cloud",
// "gomod:github.com/gokrazy/kernel.rpi", the latter optionally with a version:
// "…@v0.0.0-20251127164438-9778ec0261de"), a container image
// ("oci:registry.example/lvh-images/kernel-images:6.6-main"), a kernel built by labctl
// ("build:lab-6.12"), the release of a cached kernel ("6.12.107+deb13-amd64") or
// a path, which contains a slash ("./bzImage", "./linux-6.12/"). A path may be that of a
// kernel's package, or of a directory with its packages ("./linux-image-6.8.deb",
// "deb:mainline", "rpm:kernel-core-6.14.rpm").
func ParseRef(s string) (_ Ref, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if _, err := loadSources(); err != nil {
		return Ref{}, err
	}
	if name, ok := strings.CutPrefix(s, KindBuild+":"); ok {
		if !buildName.MatchString(name) {
			return Ref{}, fmt.Errorf("kernel %q: not a valid build name (want letters, digits and . _ + -): build:lab-6.12", s)
		}
		return Ref{Build: name}, nil
	}
	if name, ok := strings.CutPrefix(s, KindModule+":"); ok {
		return parseModule(s, name)
	}
	if name, ok := strings.CutPrefix(s, KindImage+":"); ok {
		return parseImage(s, name)
	}
	for _, kind := range []string{"deb:", "rpm:"} { // files and directories that need not have a slash
		if name, ok := strings.CutPrefix(s, kind); ok && name != "" {
			if !strings.ContainsRune(name, '/') {
				name = "./" + name
			}
			return Ref{Path: name}, nil
		}
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
	hint := nearest.Hint(s, known)
	if hint == "" && !isDebian {
		hint = nearest.Hint(KindDebian+":"+s, known) // a suite without "debian:"
	}
	msg += hint
	if _, err := os.Stat(s); err == nil && s != "" {
		msg += fmt.Sprintf(" (for a file of that name use ./%s)", s)
	}
	return Ref{}, fmt.Errorf("%s; known: %s, the release of a cached kernel, build:NAME, or a path that contains a slash", msg, strings.Join(known, ", "))
}

// parseModule parses what follows "gomod:" in s.
func parseModule(s, name string) (Ref, error) {
	name, version, named := strings.Cut(name, "@")
	if named && (!semver.IsValid(version) || semver.Canonical(version)+semver.Build(version) != version) {
		return Ref{}, fmt.Errorf("kernel %q: version %q: want one such as v1.2.3 or v0.0.0-20251127164438-9778ec0261de; omit @ for the latest", s, version)
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
	return Ref{}, fmt.Errorf("kernel %q is not known%s; known: %s; add others to labctl/kernels.yaml in your configuration directory", s, nearest.Hint(KindModule+":"+name, known), strings.Join(known, ", "))
}

// buildName matches the names allowed for kernels built by labctl. The name is
// part of a directory name.
var buildName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// knownRefs returns the names that ParseRef knows, in the order of the list, short
// ones first.
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

// newSeries matches what follows the two numbers of a release that precedes the
// first point release: "7.3-rc7", and Debian's "7.3-amd64".
var newSeries = regexp.MustCompile(`^-(rc[0-9]|([!-~]*-)?(amd64|arm64|armmp)$)`)

// looksLikeRelease reports whether s has the three numbers of a release; a series
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
