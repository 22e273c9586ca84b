package shell

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mvdan.cc/sh/v3/interp"
)

// layouts are those fields of strftime(3) that Go's time package has.
var layouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'c': "Mon Jan _2 15:04:05 2006",
	'd': "02", 'D': "01/02/06", 'e': "_2", 'F': "2006-01-02", 'H': "15", 'I': "03", 'm': "01", 'M': "04",
	'p': "PM", 'r': "03:04:05 PM", 'R': "15:04", 'S': "05", 'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05",
	'y': "06", 'Y': "2006", 'z': "-0700", 'Z': "MST",
}

// date is the builtin: date [-u] [+FORMAT]. To set the clock is for the program.
func (s *shell) date(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	now := time.Now()
	format := "%a %b %e %T %Z %Y"
	for _, arg := range args {
		switch {
		case arg == "-u" || arg == "--utc":
			now = now.UTC()
		case strings.HasPrefix(arg, "+"):
			format = arg[1:]
		default:
			path, status, err := lookUp(hc, "date")
			if err != nil {
				return s.fail(hc, status, "%v", err)
			}
			return s.runProgram(ctx, path, append([]string{"date"}, args...))
		}
	}
	return s.write(hc, "date", formatTime(now, format)+"\n")
}

func formatTime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		year, week := t.ISOWeek()
		switch c := format[i]; c {
		case '%':
			b.WriteByte('%')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 's':
			fmt.Fprintf(&b, "%d", t.Unix())
		case 'N':
			fmt.Fprintf(&b, "%09d", t.Nanosecond())
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'C':
			fmt.Fprintf(&b, "%02d", t.Year()/100)
		case 'u':
			fmt.Fprintf(&b, "%d", (int(t.Weekday())+6)%7+1)
		case 'w':
			fmt.Fprintf(&b, "%d", int(t.Weekday()))
		case 'G':
			fmt.Fprintf(&b, "%d", year)
		case 'V':
			fmt.Fprintf(&b, "%02d", week)
		case 'k':
			fmt.Fprintf(&b, "%2d", t.Hour())
		default:
			if layout, ok := layouts[c]; ok {
				b.WriteString(t.Format(layout))
			} else {
				b.WriteString(format[i-1 : i+1])
			}
		}
	}
	return b.String()
}
