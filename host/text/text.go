// Package text makes bytes from a guest fit for a terminal and a one-line error.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean returns s without what a terminal would act on: escape sequences lose
// their ESC, control characters but tab and newline become U+FFFD, and so do
// bytes that are no UTF-8 and the invisible characters that reorder text.
func Clean(s string) string {
	if !dirty(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unsafe(r, n) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
		i += n
	}
	return b.String()
}

func dirty(s string) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unsafe(r, n) {
			return true
		}
		i += n
	}
	return false
}

func unsafe(r rune, n int) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r == utf8.RuneError && n <= 1:
		return true
	}
	// Cf holds the bidirectional controls, which can make a line read as another.
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// Line is Clean on one line of at most max bytes, cut with "…".
func Line(s string, max int) string {
	s = Clean(strings.Join(strings.Fields(s), " "))
	if len(s) <= max {
		return s
	}
	cut := max
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// Lines cleans console text for display: CR LF becomes LF, a lone CR starts the
// line again as a terminal would show it.
func Lines(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		l = strings.TrimRight(l, "\r")
		if j := strings.LastIndexByte(l, '\r'); j >= 0 {
			l = l[j+1:]
		}
		lines[i] = Clean(l)
	}
	return strings.Join(lines, "\n")
}
