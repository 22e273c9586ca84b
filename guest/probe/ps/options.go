package ps

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Synopsis are the options of procps' that there are, for usage.
const Synopsis = `ps [-A|-e|a|x] [-f|-F|-l|-ly|-j|u|l|j] [-H|f] [-L|-T] [-p PIDS] [-C NAMES] [-u USERS] [-o COLUMNS] [--sort KEYS] [--no-headers]`

// listing is what the options ask for.
type listing struct {
	columns    []column
	threads    bool
	indent     bool // -H: two blanks a level
	art        bool // f: lines that lead from a task to its children
	noHeadings bool
	wide       bool
	wanted     func(sys *System, t task) bool
	sort       []sortKey
}

type sortKey struct {
	less    func(sys *System, a, b task) int
	reverse bool
}

// flags are the options as they come, before what they mean together is settled.
type flags struct {
	all, noTTY            bool // -e, x
	withTTY               bool // a
	full, extra, long, y  bool // -f, -F, -l, -y
	jobs                  bool // -j
	user, bsdLong, bsdJob bool // u, l, j
	threads, spid         bool // -L, -T
	bsd                   bool // any option without a dash
	pids, names, users    []string
	format                []string
}

// Parse reads options as procps does: with a dash those of UNIX, without one those of
// BSD, which may be together in one word, and long ones.
func Parse(args []string) (*listing, error) {
	var f flags
	l := &listing{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		value := func(rest string) (string, error) {
			if rest != "" {
				return strings.TrimPrefix(rest, "="), nil
			}
			if len(args) == 0 {
				return "", fmt.Errorf("%s: give its value", arg)
			}
			v := args[0]
			args = args[1:]
			return v, nil
		}
		var err error
		switch {
		case strings.HasPrefix(arg, "--"):
			name, v, has := strings.Cut(arg[2:], "=")
			if !has && slices.Contains([]string{"sort", "format", "pid", "user"}, name) {
				if v, err = value(""); err != nil {
					return nil, err
				}
			}
			err = l.longOption(&f, name, v)
		case strings.HasPrefix(arg, "-aux"): // so many write it
			f.bsd = true
			err = l.bareOptions(&f, arg[1:], value)
		case strings.HasPrefix(arg, "-"):
			err = l.dashOptions(&f, arg[1:], value)
		case arg != "" && arg[0] >= '0' && arg[0] <= '9':
			f.pids = append(f.pids, list(arg)...)
		default:
			f.bsd = true
			err = l.bareOptions(&f, arg, value)
		}
		if err != nil {
			return nil, err
		}
	}
	return l, l.settle(f)
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (l *listing) longOption(f *flags, name, v string) error {
	switch name {
	case "no-headers", "no-heading", "no-headings":
		l.noHeadings = true
	case "headers":
	case "forest":
		l.art = true
	case "sort":
		return l.sortBy(v)
	case "format":
		f.format = append(f.format, v)
	case "pid":
		f.pids = append(f.pids, list(v)...)
	case "user":
		f.users = append(f.users, list(v)...)
	default:
		return fmt.Errorf("option --%s is not known", name)
	}
	return nil
}

func (l *listing) dashOptions(f *flags, letters string, value func(string) (string, error)) error {
	for i, c := range letters {
		rest := letters[i+1:]
		switch c {
		case 'e', 'A':
			f.all = true
		case 'a', 'd': // all but session leaders; those without a terminal, too
			f.all = true
		case 'f':
			f.full = true
		case 'F':
			f.full, f.extra = true, true
		case 'l':
			f.long = true
		case 'y':
			f.y = true
		case 'j':
			f.jobs = true
		case 'H':
			l.indent = true
		case 'L':
			f.threads = true
		case 'T':
			f.threads, f.spid = true, true
		case 'w':
			l.wide = true
		case 'c', 'M', 'Z': // procps' of scheduling classes and labels
			return fmt.Errorf("option -%c is not known", c)
		case 'p', 'C', 'u', 'U', 'o', 'O', 'q':
			v, err := value(rest)
			if err != nil {
				return err
			}
			switch c {
			case 'p', 'q':
				f.pids = append(f.pids, list(v)...)
			case 'C':
				f.names = append(f.names, list(v)...)
			case 'u', 'U':
				f.users = append(f.users, list(v)...)
			case 'o':
				f.format = append(f.format, v)
			default:
				return fmt.Errorf("option -%c is not known", c)
			}
			return nil
		default:
			return fmt.Errorf("option -%c is not known", c)
		}
	}
	return nil
}

func (l *listing) bareOptions(f *flags, letters string, value func(string) (string, error)) error {
	for i, c := range letters {
		switch c {
		case 'a':
			f.withTTY = true
		case 'x':
			f.noTTY = true
		case 'u':
			f.user = true
		case 'l':
			f.bsdLong = true
		case 'j':
			f.bsdJob = true
		case 'f':
			l.art = true
		case 'h':
			l.noHeadings = true
		case 'w', 'e': // e shows the environment, which is left out
			l.wide = l.wide || c == 'w'
		case 'H', 'm':
			f.threads = true
		case 'p', 'o', 'U':
			v, err := value(letters[i+1:])
			if err != nil {
				return err
			}
			switch c {
			case 'p':
				f.pids = append(f.pids, list(v)...)
			case 'U':
				f.users = append(f.users, list(v)...)
			default:
				f.format = append(f.format, v)
			}
			return nil
		default:
			return fmt.Errorf("option %c is not known", c)
		}
	}
	return nil
}

// settle turns flags into columns and a selection.
func (l *listing) settle(f flags) error {
	l.threads = f.threads
	var err error
	if l.columns, err = f.columns(); err != nil {
		return err
	}
	var pids []int
	for _, p := range f.pids {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a pid", p)
		}
		pids = append(pids, n)
	}
	l.wanted = func(sys *System, t task) bool {
		mine := sys.self.tgid != 0 && t.uid == sys.self.uid
		switch {
		case len(pids) > 0 || len(f.names) > 0 || len(f.users) > 0:
			return slices.Contains(pids, t.tgid) || slices.Contains(f.names, t.Comm) ||
				slices.Contains(f.users, sys.names[t.uid]) || slices.Contains(f.users, strconv.Itoa(t.uid))
		case f.all, f.withTTY && f.noTTY:
			return true
		case f.withTTY:
			return t.TTY != 0
		case f.noTTY:
			return mine
		case f.bsd:
			return mine && t.TTY != 0
		}
		return mine && t.TTY == sys.self.TTY
	}
	return nil
}

func (f flags) columns() (columns []column, err error) {
	named := func(names ...string) []column {
		var cs []column
		for _, n := range names {
			cs = append(cs, columnOf(n))
		}
		return cs
	}
	switch {
	case len(f.format) > 0:
		return formatColumns(f.format)
	case f.user:
		columns = named("user", "pid", "%cpu", "%mem", "vsz", "rss", "tname", "stat", "start", "bsdtime", "command")
	case f.bsdLong:
		columns = named("f", "uid", "pid", "ppid", "priority", "ni", "vsz", "rss", "wchan", "stat", "tname", "bsdtime", "command")
	case f.bsdJob:
		columns = named("ppid", "pid", "pgid", "sid", "tname", "tpgid", "stat", "uid", "bsdtime", "command")
	case f.long && f.y:
		columns = named("s", "uid", "pid", "ppid", "c", "opri", "ni", "rss", "sz", "wchan", "tname", "time", "ucmd")
	case f.long:
		columns = named("f", "s", "uid", "pid", "ppid", "c", "opri", "ni", "addr", "sz", "wchan", "tname", "time", "ucmd")
	case f.full:
		columns = named("euser", "pid", "ppid", "c", "stime", "tname", "time", "cmd")
		if f.extra {
			columns = slices.Insert(columns, 4, named("sz", "rss", "psr")...)
		}
		if f.jobs {
			columns = slices.Insert(columns, 3, named("pgid", "sid")...)
		}
	case f.jobs:
		columns = named("pid", "pgid", "sid", "tname", "time", "ucmd")
	case f.bsd:
		columns = named("pid", "tname", "stat", "bsdtime", "command")
	default:
		columns = named("pid", "tname", "time", "ucmd")
	}
	if !f.threads {
		return columns, nil
	}
	// The thread stands behind its process, or behind the parent where that is shown.
	after := slices.IndexFunc(columns, func(c column) bool { return c.title == "PPID" })
	if pid := slices.IndexFunc(columns, func(c column) bool { return c.title == "PID" }); after < pid || f.spid {
		after = pid
	}
	id := "lwp"
	if f.spid {
		id = "spid"
	}
	columns = slices.Insert(columns, after+1, columnOf(id))
	if f.full || f.user {
		if c := slices.IndexFunc(columns, func(c column) bool { return c.title == "C" || c.title == "%CPU" }); c >= 0 && !f.spid {
			columns = slices.Insert(columns, c+1, columnOf("nlwp"))
		}
	}
	return columns, nil
}

// formatColumns reads -o: names with commas or blanks between, each with another heading
// behind = if wanted. An empty heading of every column is none at all.
func formatColumns(formats []string) ([]column, error) {
	var columns []column
	for _, format := range formats {
		for format != "" {
			var word string
			if i := strings.IndexAny(format, ", ="); i >= 0 && format[i] == '=' && !strings.Contains(format[:i], ",") {
				// The heading is all that follows.
				word, format = format, ""
				if j := strings.IndexByte(word, ','); j >= 0 && strings.HasSuffix(word[:j], "=") { // pid=,comm=
					word, format = word[:j], word[j+1:]
				}
			} else if i >= 0 {
				word, format = format[:i], format[i+1:]
			} else {
				word, format = format, ""
			}
			if word == "" {
				continue
			}
			name, title, has := strings.Cut(word, "=")
			name = strings.ToLower(name)
			if alias, ok := aliases[name]; ok {
				name = alias
			}
			c, ok := known[name]
			if !ok {
				return nil, fmt.Errorf("column %q is not known", name)
			}
			if has {
				c.title = title
				if c.width > 0 {
					c.width = max(c.width, len(title))
				}
				c.least = len(title)
			}
			columns = append(columns, c)
		}
	}
	if len(columns) == 0 {
		return nil, errors.New("-o: give columns")
	}
	return columns, nil
}

func (l *listing) sortBy(keys string) error {
	for _, key := range list(keys) {
		name := strings.TrimLeft(key, "+-")
		k := sortKey{reverse: strings.HasPrefix(key, "-")}
		if alias, ok := aliases[name]; ok {
			name = alias
		}
		number := map[string]func(sys *System, t task) float64{
			"pid": func(_ *System, t task) float64 { return float64(t.tgid) }, "ppid": func(_ *System, t task) float64 { return float64(t.PPID) },
			"rss": func(sys *System, t task) float64 { return float64(sys.resident(t)) }, "vsz": func(_ *System, t task) float64 { return float64(t.VSize) },
			"%mem": func(sys *System, t task) float64 { return float64(sys.resident(t)) }, "%cpu": func(sys *System, t task) float64 { return sys.share(t) },
			"time": func(_ *System, t task) float64 { return float64(t.UTime + t.STime) }, "start": func(_ *System, t task) float64 { return float64(t.StartTime) },
			"stime": func(_ *System, t task) float64 { return float64(t.StartTime) }, "ni": func(_ *System, t task) float64 { return float64(t.Nice) },
			"nlwp": func(_ *System, t task) float64 { return float64(t.Threads) }, "uid": func(_ *System, t task) float64 { return float64(t.uid) },
		}[name]
		switch {
		case number != nil:
			k.less = func(sys *System, a, b task) int { return cmp.Compare(number(sys, a), number(sys, b)) }
		case name == "comm", name == "cmd", name == "command", name == "ucmd":
			k.less = func(_ *System, a, b task) int { return cmp.Compare(a.Comm, b.Comm) }
		default:
			return fmt.Errorf("--sort: key %q is not known", name)
		}
		l.sort = append(l.sort, k)
	}
	return nil
}
