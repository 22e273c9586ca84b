package ps

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"labctl/guest/probe/procfs"
)

// column is one column of a listing.
type column struct {
	title string
	width int // 0 is the width of a pid; negative stands left
	value func(sys *System, t task) string
	least int // width of a pid's column at least
}

// known are procps' columns by their names (ps(1), STANDARD FORMAT SPECIFIERS).
var known = map[string]column{
	"s":        {title: "S", width: 1, value: func(_ *System, t task) string { return string(t.State) }},
	"stat":     {title: "STAT", width: -4, value: func(_ *System, t task) string { return state(t) }},
	"f":        {title: "F", width: 1, value: func(_ *System, t task) string { return strconv.FormatUint(t.Flags>>6&7, 8) }},
	"uid":      {title: "UID", width: 5, value: func(_ *System, t task) string { return strconv.Itoa(t.uid) }},
	"euser":    {title: "UID", width: -8, value: func(sys *System, t task) string { return sys.user(t.uid) }},
	"user":     {title: "USER", width: -8, value: func(sys *System, t task) string { return sys.user(t.uid) }},
	"pid":      {title: "PID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.tgid) }},
	"tgid":     {title: "TGID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.tgid) }},
	"ppid":     {title: "PPID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.PPID) }},
	"lwp":      {title: "LWP", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.PID) }},
	"spid":     {title: "SPID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.PID) }},
	"tid":      {title: "TID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.PID) }},
	"pgid":     {title: "PGID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.PGRP) }},
	"sid":      {title: "SID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.Session) }},
	"tpgid":    {title: "TPGID", width: 0, value: func(_ *System, t task) string { return strconv.Itoa(t.TPGID) }},
	"nlwp":     {title: "NLWP", width: 4, value: func(_ *System, t task) string { return strconv.Itoa(t.Threads) }},
	"c":        {title: "C", width: 2, value: func(sys *System, t task) string { return sys.percent(t) }},
	"%cpu":     {title: "%CPU", width: 4, value: func(sys *System, t task) string { return tenths(sys.share(t)) }},
	"%mem":     {title: "%MEM", width: 4, value: func(sys *System, t task) string { return sys.memory(t) }},
	"vsz":      {title: "VSZ", width: 6, value: func(_ *System, t task) string { return strconv.FormatUint(t.VSize/1024, 10) }},
	"rss":      {title: "RSS", width: 5, value: func(sys *System, t task) string { return strconv.FormatUint(sys.resident(t), 10) }},
	"sz":       {title: "SZ", width: 5, value: func(sys *System, t task) string { return strconv.FormatUint(t.VSize/uint64(sys.Page), 10) }},
	"addr":     {title: "ADDR", width: -1, value: func(*System, task) string { return "-" }},
	"pri":      {title: "PRI", width: 3, value: func(_ *System, t task) string { return strconv.Itoa(39 - t.Priority) }},
	"opri":     {title: "PRI", width: 3, value: func(_ *System, t task) string { return strconv.Itoa(60 + t.Priority) }},
	"priority": {title: "PRI", width: 3, value: func(_ *System, t task) string { return strconv.Itoa(t.Priority) }},
	"ni":       {title: "NI", width: 3, value: func(_ *System, t task) string { return nice(t) }},
	"rtprio":   {title: "RTPRIO", width: 6, value: func(_ *System, t task) string { return realTime(t) }},
	"cls":      {title: "CLS", width: 3, value: func(_ *System, t task) string { return class(t) }},
	"psr":      {title: "PSR", width: 3, value: func(_ *System, t task) string { return strconv.Itoa(t.Processor) }},
	"wchan":    {title: "WCHAN", width: -6, value: func(_ *System, t task) string { return wchan(t.wchan) }},
	"tty":      {title: "TT", width: -8, value: func(sys *System, t task) string { return ttyName(sys.ttys, t.TTY) }},
	"tname":    {title: "TTY", width: -8, value: func(sys *System, t task) string { return ttyName(sys.ttys, t.TTY) }},
	"stime":    {title: "STIME", width: 5, value: func(sys *System, t task) string { return sys.started(t) }},
	"start":    {title: "START", width: 5, value: func(sys *System, t task) string { return sys.started(t) }},
	"lstart":   {title: "STARTED", width: 24, value: func(sys *System, t task) string { return sys.startedAt(t).Format(time.ANSIC) }},
	"etime":    {title: "ELAPSED", width: 11, value: func(sys *System, t task) string { return elapsed(sys.age(t)) }},
	"etimes":   {title: "ELAPSED", width: 7, value: func(sys *System, t task) string { return strconv.FormatUint(sys.age(t), 10) }},
	"time":     {title: "TIME", width: 8, value: func(_ *System, t task) string { return duration((t.UTime + t.STime) / procfs.Hz) }},
	"bsdtime":  {title: "TIME", width: 6, value: func(_ *System, t task) string { return minutes((t.UTime + t.STime) / procfs.Hz) }},
	"ucmd":     {title: "CMD", width: -1, value: func(_ *System, t task) string { return printable(t.Comm) + defunct(t) }},
	"comm":     {title: "COMMAND", width: -15, value: func(_ *System, t task) string { return printable(t.Comm) + defunct(t) }},
	"cmd":      {title: "CMD", width: -27, value: func(_ *System, t task) string { return command(t) }},
	"command":  {title: "COMMAND", width: -27, value: func(_ *System, t task) string { return command(t) }},
}

// aliases are other names of columns.
var aliases = map[string]string{
	"state": "s", "flag": "f", "flags": "f", "pcpu": "%cpu", "pmem": "%mem", "vsize": "vsz", "rssize": "rss", "rsz": "rss",
	"args": "command", "ucomm": "comm", "pgrp": "pgid", "sess": "sid", "session": "sid", "thcount": "nlwp", "nice": "ni",
	"tt": "tty", "cputime": "time", "start_time": "start", "class": "cls", "policy": "cls", "euid": "uid", "uname": "user",
}

// columnOf is a column by its name, which is one of known.
func columnOf(name string) column { return known[name] }

// isName reports whether a column names the task, and so is indented in a tree.
func (c column) isName() bool { return c.title == "CMD" || c.title == "COMMAND" }

// state is the state of a task with what procps adds to it (ps(1), PROCESS STATE CODES).
func state(t task) string {
	s := string(t.State)
	for _, more := range []struct {
		is     bool
		letter string
	}{
		{t.Nice < 0, "<"}, {t.Nice > 0, "N"}, {t.locked, "L"}, {t.Session == t.tgid, "s"},
		{t.Threads > 1, "l"}, {t.TPGID > 0 && t.PGRP == t.TPGID, "+"},
	} {
		if more.is {
			s += more.letter
		}
	}
	return s
}

// class is the scheduling class by its policy (include/uapi/linux/sched.h).
func class(t task) string {
	names := []string{"TS", "FF", "RR", "B", "ISO", "IDL", "DLN", "EXT"}
	if t.Policy < 0 || t.Policy >= len(names) {
		return "?"
	}
	return names[t.Policy]
}

func realTime(t task) string {
	if t.RTPriority == 0 {
		return "-"
	}
	return strconv.Itoa(t.RTPriority)
}

// row writes one line, cut to limit cells unless that is 0. A cell that is too wide takes
// room from the blanks of the next ones, as procps does, so that the rest of the line
// stays in place.
func row(w *bufio.Writer, limit, pidWidth int, columns []column, value func(column) string) {
	var line strings.Builder
	at, edge := 0, 0 // runes written, and the column's right edge
	for i, c := range columns {
		text, width := value(c), c.width
		if width == 0 {
			width = max(pidWidth, c.least)
		}
		gap := min(i, 1)
		edge += gap + max(width, -width)
		start := edge - utf8.RuneCountInString(text)
		if width < 0 {
			start = edge + width
		}
		pad := max(gap, start-at)
		line.WriteString(strings.Repeat(" ", pad))
		line.WriteString(text)
		at += pad + utf8.RuneCountInString(text)
	}
	out := line.String()
	if limit > 0 && at > limit {
		out = string([]rune(out)[:limit])
	}
	w.WriteString(out)
	w.WriteByte('\n')
}

// user is a name cut to the column's 8 characters, or the number.
func (sys *System) user(uid int) string {
	name, ok := sys.names[uid]
	switch {
	case !ok:
		return strconv.Itoa(uid)
	case utf8.RuneCountInString(name) > 8:
		return string([]rune(name)[:7]) + "+"
	}
	return name
}

// nice is "-" for a task whose class knows no nice value.
func nice(t task) string {
	const schedOther, schedBatch = 0, 3
	if t.Policy != schedOther && t.Policy != schedBatch {
		return "-"
	}
	return strconv.Itoa(t.Nice)
}

// percent is the CPU time used over the life of the task, 0 to 99.
func (sys *System) percent(t task) string {
	if sys.up <= t.StartTime {
		return "0"
	}
	seconds := (sys.up - t.StartTime) / procfs.Hz
	if seconds == 0 {
		return "0"
	}
	return strconv.FormatUint(min((t.UTime+t.STime)*100/procfs.Hz/seconds, 99), 10)
}

// age is how long ago a task started, in seconds.
func (sys *System) age(t task) uint64 {
	if sys.up <= t.StartTime {
		return 0
	}
	return (sys.up - t.StartTime) / procfs.Hz
}

// share is the CPU time used over the life of the task, in percent.
func (sys *System) share(t task) float64 {
	if sys.up <= t.StartTime {
		return 0
	}
	return float64(t.UTime+t.STime) * 100 / float64(sys.up-t.StartTime)
}

// memory is the share of the memory that a task has, in percent.
func (sys *System) memory(t task) string {
	if sys.total == 0 {
		return "0.0"
	}
	return tenths(min(float64(sys.resident(t))/float64(sys.total)*100, 99.9))
}

// resident is the memory that a task has, in KB. That of /proc/PID/stat may lag behind
// (fs/proc/array.c), so it is for kernels that have no better.
func (sys *System) resident(t task) uint64 {
	if t.rss > 0 {
		return t.rss
	}
	return uint64(max(t.RSS, 0)) * uint64(sys.Page) / 1024
}

// tenths is a percentage, cut and not rounded.
func tenths(percent float64) string {
	n := int64(percent * 10)
	if n >= 1000 {
		return strconv.FormatInt(n/10, 10)
	}
	return fmt.Sprintf("%d.%d", n/10, n%10)
}

// minutes is M:SS.
func minutes(seconds uint64) string { return fmt.Sprintf("%d:%02d", seconds/60, seconds%60) }

// elapsed is [[DD-]HH:]MM:SS.
func elapsed(seconds uint64) string {
	if seconds < 3600 {
		return fmt.Sprintf("%02d:%02d", seconds/60, seconds%60)
	}
	return strings.TrimPrefix(fmt.Sprintf("%02d-%02d:%02d:%02d", seconds/86400, seconds/3600%24, seconds/60%60, seconds%60), "00-")
}

func (sys *System) startedAt(t task) time.Time {
	return sys.boot.Add(time.Duration(t.StartTime) * (time.Second / procfs.Hz)).In(sys.Now.Location())
}

// started is the time of day, the day or the year, whichever tells it apart from now.
func (sys *System) started(t task) string {
	at := sys.startedAt(t)
	switch {
	case at.Year() != sys.Now.Year():
		return at.Format("2006")
	case at.YearDay() != sys.Now.YearDay():
		return at.Format("Jan02")
	}
	return at.Format("15:04")
}

// duration is [DD-]HH:MM:SS.
func duration(seconds uint64) string {
	clock := fmt.Sprintf("%02d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
	if days := seconds / 86400; days > 0 {
		return fmt.Sprintf("%d-%s", days, clock)
	}
	return clock
}

// wchan is the first six letters of the function that a task sleeps in, "-" for
// one that runs or may not be looked at.
func wchan(text string) string {
	text = strings.TrimLeft(strings.TrimPrefix(text, "."), "_")
	if text == "" || text == "0" {
		return "-"
	}
	text = printable(text)
	return text[:min(len(text), 6)]
}

// command is the command line, or the name in brackets where there is none.
func command(t task) string {
	if t.cmdline == "" || t.State == 'Z' {
		return "[" + printable(t.Comm) + "]" + defunct(t)
	}
	return t.cmdline
}

func defunct(t task) string {
	if t.State == 'Z' {
		return " <defunct>"
	}
	return ""
}

// printable replaces control characters, and bytes that are no UTF-8, by their
// octal code, as the kernel does in /proc/PID/status: a name must not move the
// reader's cursor or forge a line.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(s[i : i+n])
		} else {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
		i += n
	}
	return b.String()
}
