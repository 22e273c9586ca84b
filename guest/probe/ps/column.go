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
}

// layouts are procps' columns, by option.
var layouts = map[string][]column{
	"-ely": {
		{"S", 1, func(_ *System, t task) string { return string(t.State) }},
		{"UID", 5, func(_ *System, t task) string { return strconv.Itoa(t.uid) }},
		pid, ppid, usage,
		{"PRI", 3, func(_ *System, t task) string { return strconv.Itoa(60 + t.Priority) }},
		{"NI", 3, func(_ *System, t task) string { return nice(t) }},
		{"RSS", 5, func(sys *System, t task) string { return strconv.FormatInt(t.RSS*int64(sys.Page)/1024, 10) }},
		{"SZ", 5, func(sys *System, t task) string { return strconv.FormatUint(t.VSize/uint64(sys.Page), 10) }},
		{"WCHAN", -6, func(_ *System, t task) string { return wchan(t.wchan) }},
		tty, cpuTime, comm,
	},
	"-ejH": {
		pid,
		{"PGID", 0, func(_ *System, t task) string { return strconv.Itoa(t.PGRP) }},
		{"SID", 0, func(_ *System, t task) string { return strconv.Itoa(t.Session) }},
		tty, cpuTime, comm,
	},
	"-eLf": {
		{"UID", -8, func(sys *System, t task) string { return sys.user(t.uid) }},
		pid, ppid,
		{"LWP", 0, func(_ *System, t task) string { return strconv.Itoa(t.PID) }},
		usage,
		{"NLWP", 4, func(_ *System, t task) string { return strconv.Itoa(t.Threads) }},
		{"STIME", 5, func(sys *System, t task) string { return sys.started(t) }},
		tty, cpuTime,
		{"CMD", -1, func(_ *System, t task) string { return command(t) }},
	},
}

var (
	pid     = column{"PID", 0, func(_ *System, t task) string { return strconv.Itoa(t.tgid) }}
	ppid    = column{"PPID", 0, func(_ *System, t task) string { return strconv.Itoa(t.PPID) }}
	usage   = column{"C", 2, func(sys *System, t task) string { return sys.percent(t) }}
	tty     = column{"TTY", -8, func(sys *System, t task) string { return ttyName(sys.ttys, t.TTY) }}
	cpuTime = column{"TIME", 8, func(_ *System, t task) string { return duration((t.UTime + t.STime) / procfs.Hz) }}
	comm    = column{"CMD", -1, func(_ *System, t task) string { return printable(t.Comm) + defunct(t) }}
)

// row writes one line. A cell that is too wide takes room from the blanks of
// the next ones, as procps does, so that the rest of the line stays in place.
func row(w *bufio.Writer, pidWidth int, columns []column, value func(column) string) {
	at, edge := 0, 0 // runes written, and the column's right edge
	for i, c := range columns {
		text, width := value(c), c.width
		if width == 0 {
			width = pidWidth
		}
		gap := min(i, 1)
		edge += gap + max(width, -width)
		start := edge - utf8.RuneCountInString(text)
		if width < 0 {
			start = edge + width
		}
		pad := max(gap, start-at)
		w.WriteString(strings.Repeat(" ", pad))
		w.WriteString(text)
		at += pad + utf8.RuneCountInString(text)
	}
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

// started is the time of day, the day or the year, whichever tells it apart from now.
func (sys *System) started(t task) string {
	at := sys.boot.Add(time.Duration(t.StartTime) * (time.Second / procfs.Hz)).In(sys.Now.Location())
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
