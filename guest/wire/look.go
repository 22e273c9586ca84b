package wire

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Look is a point at which a program of a lab wants to be looked at from outside. It
// prints the line of String on its standard output, and waits for a line on its standard
// input, which comes when that was done.
type Look struct {
	Name string
	// Said are numbers that the program names: of tasks, and addresses.
	Said map[string][]int64
}

// LookEnv is set for a probe at which somebody looks.
const LookEnv = "LABCTL_LOOK"

// Bounds of a Look.
const (
	MaxLookLine = 4096 // bytes, with its newline
	maxLookSaid = 32   // names
	maxLookNums = 64   // numbers of one name
)

// lookPrefix is what the line begins with.
const lookPrefix = "@look "

var lookName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// String is the line, without its end: "@look shared child=12 page=0x7f0000001000,0x7f0000002000".
func (l Look) String() string {
	var b strings.Builder
	b.WriteString(lookPrefix + l.Name)
	names := make([]string, 0, len(l.Said))
	for name := range l.Said {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for i, n := range l.Said[name] {
			sep := ","
			if i == 0 {
				sep = " " + name + "="
			}
			fmt.Fprintf(&b, "%s0x%x", sep, uint64(n))
		}
	}
	return b.String()
}

// IsLook reports whether a line of output is, or wants to be, a Look.
func IsLook(line string) bool { return strings.HasPrefix(line, lookPrefix) }

// ParseLook parses a line for which IsLook holds. Numbers are decimal, or hexadecimal
// behind 0x, and unsigned: those beyond int64 wrap.
func ParseLook(line string) (l Look, err error) {
	if len(line) > MaxLookLine {
		return l, fmt.Errorf("a line @look of more than %d bytes", MaxLookLine)
	}
	words := strings.Fields(strings.TrimPrefix(line, lookPrefix))
	if len(words) == 0 || !lookName.MatchString(words[0]) {
		return l, fmt.Errorf("%q: want @look, a name of a-z, 0-9 and _, and NAME=NUMBER…", clipped(line))
	}
	if len(words) > maxLookSaid+1 {
		return l, fmt.Errorf("@look %s: %d numbers are named; at most %d can be", words[0], len(words)-1, maxLookSaid)
	}
	l = Look{Name: words[0], Said: map[string][]int64{}}
	for _, w := range words[1:] {
		name, list, _ := strings.Cut(w, "=")
		if !lookName.MatchString(name) {
			return l, fmt.Errorf("@look %s: %q: want NAME=NUMBER, or several with commas between them", l.Name, clipped(w))
		}
		for s := range strings.SplitSeq(list, ",") {
			n, err := strconv.ParseUint(s, 0, 64)
			if err != nil {
				return l, fmt.Errorf("@look %s: %q: want NAME=NUMBER, or several with commas between them", l.Name, clipped(w))
			}
			if len(l.Said[name]) == maxLookNums {
				return l, fmt.Errorf("@look %s: %s has more than %d numbers", l.Name, name, maxLookNums)
			}
			l.Said[name] = append(l.Said[name], int64(n))
		}
	}
	return l, nil
}

func clipped(s string) string { return s[:min(len(s), 60)] }
