package kernel

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Ref names a kernel without its architecture. Exactly one of Suite, Release,
// Path and Build is set.
type Ref struct {
	Suite   string // Debian suite: "trixie"
	Series  string // set with Suite when the user named the series: "6.12"
	Release string // `uname -r` of a cached kernel: "6.12.107+deb13-amd64"
	Path    string // an image file
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
	case r.Series != "":
		return r.Series
	}
	return KindDebian + ":" + r.Suite
}

// ParseRef reads what `--kernel` takes: a series ("6.12"), a source
// ("debian:trixie"), a kernel that was built ("build:lab-6.12"), the release of a
// cached kernel ("6.12.107+deb13-amd64") or a path, which has a slash in it
// ("./bzImage").
func ParseRef(s string) (Ref, error) {
	if name, ok := strings.CutPrefix(s, KindBuild+":"); ok {
		if !buildName.MatchString(name) {
			return Ref{}, fmt.Errorf("kernel %q: a build's name has letters, digits and . _ + - in it: build:lab-6.12", s)
		}
		return Ref{Build: name}, nil
	}
	if strings.ContainsRune(s, '/') {
		return Ref{Path: s}, nil
	}
	name, isDebian := strings.CutPrefix(s, KindDebian+":")
	for _, src := range debianSources() {
		switch {
		case isDebian && name == src.Suite:
			return Ref{Suite: src.Suite}, nil
		case name == src.Series:
			return Ref{Suite: src.Suite, Series: src.Series}, nil
		}
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
	return Ref{}, fmt.Errorf("%s; known: %s, the release of a cached kernel, or a path with a slash in it", msg, strings.Join(known, ", "))
}

// buildName is what kernels that labctl built may be called. It is part of the
// name of a folder.
var buildName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// knownRefs are the names that ParseRef knows, in the order of the list.
func knownRefs() []string {
	var series, suites []string
	for _, s := range debianSources() {
		series = append(series, s.Series)
		suites = append(suites, KindDebian+":"+s.Suite)
	}
	return append(series, suites...)
}

// looksLikeRelease says whether s has the three numbers of a release; a series
// has two.
func looksLikeRelease(s string) bool {
	series := seriesOf(s)
	if series == "" || strings.ContainsAny(s, " \t\n") {
		return false
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
