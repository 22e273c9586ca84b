// Package id is the guest's id: who runs it, by number and by name.
//
// Synopsis:
//
//	id [-u | -g | -G] [-n] [-r]
//
// Busybox's leaves out the groups of a process that has no supplementary ones, and
// u-root's the names; scripts and test suites look for both.
package id

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxFile is ample for a list of users, in bytes.
const maxFile = 1 << 20

// names maps numbers to names, of /etc/passwd or /etc/group. Lines of another form are
// passed over; the first of a number counts.
func names(file string) map[int]string {
	all := map[int]string{}
	f, err := os.Open(file)
	if err != nil {
		return all
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxFile))
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			continue
		}
		if n, err := strconv.Atoi(fields[2]); err == nil && all[n] == "" {
			all[n] = fields[0]
		}
	}
	return all
}

// ids are those of a process.
type ids struct {
	uid, euid, gid, egid int
	groups               []int // supplementary
}

// Main is the program with its arguments, args[0] its own name; it gives the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	groups, err := os.Getgroups()
	if err != nil {
		fmt.Fprintf(stderr, "id: %v\n", err)
		return 1
	}
	who := ids{os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups}
	line, err := who.describe(args[1:], names("/etc/passwd"), names("/etc/group"))
	if err != nil {
		fmt.Fprintf(stderr, "id: %v; usage: id [-u | -g | -G] [-n] [-r]\n", err)
		return 2
	}
	fmt.Fprintln(stdout, line)
	return 0
}

// describe is what id prints, as coreutils' does.
func (who ids) describe(args []string, users, groups map[int]string) (string, error) {
	var which rune
	var byName, real bool
	for _, arg := range args {
		if len(arg) < 2 || arg[0] != '-' {
			return "", fmt.Errorf("%q: other users are not looked up", arg)
		}
		for _, c := range arg[1:] {
			switch {
			case c == 'n':
				byName = true
			case c == 'r':
				real = true
			case strings.ContainsRune("ugG", c) && (which == 0 || which == c):
				which = c
			default:
				return "", fmt.Errorf("option -%c is not known, or not with others", c)
			}
		}
	}
	if which == 0 && (byName || real) {
		return "", fmt.Errorf("-n and -r go with -u, -g or -G")
	}
	uid, gid := who.euid, who.egid
	if real {
		uid, gid = who.uid, who.gid
	}
	all := []int{gid}
	if !real && who.gid != gid {
		all = append([]int{who.gid}, all...)
	}
	for _, g := range who.groups {
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	one := func(n int, known map[int]string) string {
		if name := known[n]; byName && name != "" {
			return name
		}
		return strconv.Itoa(n)
	}
	switch which {
	case 'u':
		return one(uid, users), nil
	case 'g':
		return one(gid, groups), nil
	case 'G':
		var words []string
		for _, g := range all {
			words = append(words, one(g, groups))
		}
		return strings.Join(words, " "), nil
	}
	both := func(n int, known map[int]string) string {
		if name := known[n]; name != "" {
			return fmt.Sprintf("%d(%s)", n, name)
		}
		return strconv.Itoa(n)
	}
	line := fmt.Sprintf("uid=%s gid=%s", both(who.uid, users), both(who.gid, groups))
	if who.euid != who.uid {
		line += " euid=" + both(who.euid, users)
	}
	if who.egid != who.gid {
		line += " egid=" + both(who.egid, groups)
	}
	var words []string
	for _, g := range all {
		words = append(words, both(g, groups))
	}
	return line + " groups=" + strings.Join(words, ","), nil
}
