package shell

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// A modeFlag is one that stty shows and sets: NAME, or -NAME to clear it.
type modeFlag struct {
	name string
	word func(*unix.Termios) *uint32
	bit  uint32
}

func input(t *unix.Termios) *uint32   { return &t.Iflag }
func output(t *unix.Termios) *uint32  { return &t.Oflag }
func control(t *unix.Termios) *uint32 { return &t.Cflag }
func local(t *unix.Termios) *uint32   { return &t.Lflag }

// modeFlags are in lines, as -a shows them.
var modeFlags = [][]modeFlag{
	{{"parenb", control, unix.PARENB}, {"cstopb", control, unix.CSTOPB}, {"cread", control, unix.CREAD}, {"clocal", control, unix.CLOCAL}, {"hupcl", control, unix.HUPCL}},
	{{"ignbrk", input, unix.IGNBRK}, {"brkint", input, unix.BRKINT}, {"inlcr", input, unix.INLCR}, {"igncr", input, unix.IGNCR}, {"icrnl", input, unix.ICRNL},
		{"ixon", input, unix.IXON}, {"ixoff", input, unix.IXOFF}, {"istrip", input, unix.ISTRIP}, {"iutf8", input, unix.IUTF8}},
	{{"opost", output, unix.OPOST}, {"onlcr", output, unix.ONLCR}, {"ocrnl", output, unix.OCRNL}},
	{{"isig", local, unix.ISIG}, {"icanon", local, unix.ICANON}, {"iexten", local, unix.IEXTEN}, {"echo", local, unix.ECHO}, {"echoe", local, unix.ECHOE},
		{"echok", local, unix.ECHOK}, {"echonl", local, unix.ECHONL}, {"noflsh", local, unix.NOFLSH}, {"tostop", local, unix.TOSTOP}, {"echoctl", local, unix.ECHOCTL}, {"echoke", local, unix.ECHOKE}},
}

// modeKeys are the control characters.
var modeKeys = []struct {
	name  string
	index int
}{
	{"intr", unix.VINTR}, {"quit", unix.VQUIT}, {"erase", unix.VERASE}, {"kill", unix.VKILL}, {"eof", unix.VEOF},
	{"start", unix.VSTART}, {"stop", unix.VSTOP}, {"susp", unix.VSUSP}, {"werase", unix.VWERASE}, {"lnext", unix.VLNEXT},
}

// stty is the builtin: -a, size, rows N, cols N, sane, raw, cooked and the flags
// above, on the terminal that is its standard input.
func (s *shell) stty(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	f, ok := hc.Stdin.(*os.File)
	if !ok || f == nil {
		return s.fail(hc, 1, "stty: standard input is no terminal")
	}
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return s.fail(hc, 1, "stty: standard input is no terminal")
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return s.fail(hc, 1, "stty: %v", err)
	}
	if len(args) == 0 {
		args = []string{"-a"}
	}
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; arg {
		case "-a", "--all":
			return s.write(hc, "stty", describeMode(t, size))
		case "size":
			return s.write(hc, "stty", fmt.Sprintf("%d %d\n", size.Row, size.Col))
		case "rows", "cols", "columns":
			if i++; i == len(args) {
				return s.fail(hc, 1, "stty: %s: give a number", arg)
			}
			n, err := strconv.ParseUint(args[i], 10, 16)
			if err != nil {
				return s.fail(hc, 1, "stty: %s: %q is no number", arg, args[i])
			}
			if arg == "rows" {
				size.Row = uint16(n)
			} else {
				size.Col = uint16(n)
			}
			if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size); err != nil {
				return s.fail(hc, 1, "stty: %v", err)
			}
		default:
			if !setMode(t, arg) {
				return s.fail(hc, 1, "stty: %s: want -a, size, rows N, cols N, sane, raw, cooked or a flag that -a shows", arg)
			}
		}
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETSW, t); err != nil {
		return s.fail(hc, 1, "stty: %v", err)
	}
	return nil
}

// setMode does one word of stty.
func setMode(t *unix.Termios, word string) bool {
	switch word {
	case "raw", "-cooked": // as cfmakeraw(3)
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return true
	case "sane", "cooked", "-raw":
		t.Iflag = t.Iflag&^(unix.IGNBRK|unix.INLCR|unix.IGNCR|unix.ISTRIP|unix.IXOFF) | unix.BRKINT | unix.ICRNL | unix.IXON
		t.Oflag |= unix.OPOST | unix.ONLCR
		t.Lflag = t.Lflag&^(unix.ECHONL|unix.NOFLSH|unix.TOSTOP) | unix.ISIG | unix.ICANON | unix.IEXTEN | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE
		for _, key := range []struct{ index, value int }{
			{unix.VINTR, 3}, {unix.VQUIT, 28}, {unix.VERASE, 127}, {unix.VKILL, 21}, {unix.VEOF, 4},
			{unix.VSTART, 17}, {unix.VSTOP, 19}, {unix.VSUSP, 26}, {unix.VWERASE, 23}, {unix.VLNEXT, 22},
		} {
			t.Cc[key.index] = byte(key.value)
		}
		return true
	}
	name, off := strings.CutPrefix(word, "-")
	for _, f := range slices.Concat(modeFlags...) {
		if f.name == name {
			if off {
				*f.word(t) &^= f.bit
			} else {
				*f.word(t) |= f.bit
			}
			return true
		}
	}
	return false
}

func describeMode(t *unix.Termios, size *unix.Winsize) string {
	var b strings.Builder
	fmt.Fprintf(&b, "speed %d baud; rows %d; columns %d;\n", baud(t.Cflag&unix.CBAUD), size.Row, size.Col)
	for i, k := range modeKeys {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s = %s;", k.name, keyName(t.Cc[k.index]))
	}
	fmt.Fprintf(&b, " min = %d; time = %d;\ncs%d", t.Cc[unix.VMIN], t.Cc[unix.VTIME], 5+(t.Cflag&unix.CSIZE)/unix.CS6)
	for i, line := range modeFlags {
		sep := " "
		if i > 0 {
			sep = "\n"
		}
		for _, f := range line {
			b.WriteString(sep)
			if *f.word(t)&f.bit == 0 {
				b.WriteByte('-')
			}
			b.WriteString(f.name)
			sep = " "
		}
	}
	return b.String() + "\n"
}

// keyName is ^C for 3.
func keyName(c byte) string {
	switch {
	case c == 0:
		return "<undef>"
	case c < ' ':
		return "^" + string(rune(c+'@'))
	case c == 127:
		return "^?"
	}
	return string(rune(c))
}

// baud is a speed of asm-generic/termbits.h in bits a second, 0 if it is none of
// those that consoles have.
func baud(speed uint32) int {
	switch speed {
	case unix.B9600:
		return 9600
	case unix.B19200:
		return 19200
	case unix.B38400:
		return 38400
	case unix.B57600:
		return 57600
	case unix.B115200:
		return 115200
	}
	return 0
}
