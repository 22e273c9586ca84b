// Package command is the language of labctl's debugger: its own words, and those of
// Lauterbach's TRACE32 with their abbreviations.
package command

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Command is one line, understood.
type Command struct {
	Name    string // of the Word
	Args    []string
	Options map[string]string // by their names: "task", "count", "if", "write"
	Line    string            // as it was written
}

// Limits on a line.
const (
	maxLine  = 4096 // bytes
	maxWords = 256
)

// Parse parses a line. A line without a command, empty or a comment ("#", "//" or ";"
// first), is nil.
func Parse(line string) (*Command, error) {
	if len(line) > maxLine || !utf8.ValidString(line) {
		return nil, outcome.Inputf("command: want a line of text of at most %d bytes", maxLine)
	}
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//") || strings.HasPrefix(line, ";") {
		return nil, nil
	}
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	w, rest, err := find(words)
	if err != nil {
		return nil, err
	}
	if w.Name == "break" && len(rest) == 0 { // TRACE32's Break stops
		w = Find("stop")
	}
	c := &Command{Name: w.Name, Options: map[string]string{}, Line: line}
	if w.Raw {
		c.Args = plain(rest)
		return c, nil
	}
	return c, c.options(w, rest)
}

// word is a word of a line. One that was quoted is no option.
type word struct {
	text   string
	quoted bool
}

func plain(words []word) []string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w.text; w.quoted {
			out[i] = fmt.Sprintf("%q", w.text)
		}
	}
	return out
}

// split splits a line at spaces. Quotes, single or double, keep a word together.
func split(line string) ([]word, error) {
	var words []word
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		if len(words) == maxWords {
			return nil, outcome.Inputf("command: more than %d words", maxWords)
		}
		if q := line[0]; q == '"' || q == '\'' {
			end := strings.IndexByte(line[1:], q)
			if end < 0 {
				return nil, outcome.Inputf("command: a quote is not closed: %s", text.Line(line, 80))
			}
			words = append(words, word{line[1 : 1+end], true})
			line = line[2+end:]
			continue
		}
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		words = append(words, word{line[:end], false})
		line = line[end:]
	}
	return words, nil
}

// SplitLine splits several commands in one string at semicolons outside of quotes.
func SplitLine(s string) (lines []string) {
	var quote rune
	start := 0
	for i, c := range s {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ';':
			lines = append(lines, s[start:i])
			start = i + 1
		}
	}
	return append(lines, s[start:])
}

// find finds the Word that a line starts with: labctl's own, or one of TRACE32's.
func find(words []word) (*Word, []word, error) {
	first := words[0].text
	lower := strings.ToLower(first)
	for i := range Words {
		w := &Words[i]
		for _, name := range append([]string{w.Name}, w.Short...) {
			if lower == name {
				return w, words[1:], nil
			}
		}
	}
	for i := range Words {
		for _, form := range Words[i].Lauterbach {
			if abbreviates(first, form) {
				return &Words[i], words[1:], nil
			}
		}
	}
	return nil, nil, outcome.Inputf("command %q is not known%s; help lists them", text.Line(first, 80), hint(first))
}

// hint names the nearest word.
func hint(got string) string {
	var own, theirs []string
	lower := map[string]string{}
	for _, w := range Words {
		own = append(own, w.Name)
		for _, form := range w.Lauterbach {
			theirs = append(theirs, strings.ToLower(form))
			lower[strings.ToLower(form)] = form
		}
	}
	if near := nearest.Name(strings.ToLower(got), append(own, theirs...)); near != "" {
		if form := lower[near]; form != "" {
			near = form
		}
		return ", did you mean " + near + "?"
	}
	return ""
}

// abbreviates reports whether a word stands for a form of TRACE32's, such as "Break.Set".
// Capitals must be written, in either case; a part without capitals may be missing.
func abbreviates(got, form string) bool {
	parts, forms := strings.Split(got, "."), strings.Split(form, ".")
	if len(parts) > len(forms) {
		return false
	}
	for i, f := range forms {
		if i < len(parts) {
			if !abbreviatesPart(parts[i], f) {
				return false
			}
		} else if strings.ToLower(f) != f {
			return false
		}
	}
	return true
}

func abbreviatesPart(got, form string) bool {
	if got == "" {
		return false
	}
	if lower := strings.ToLower(form); lower == form {
		return strings.HasPrefix(form, strings.ToLower(got))
	}
	// The capitals alone, or as many letters from the first on as have them all.
	short := strings.Map(func(c rune) rune {
		if c < 'A' || c > 'Z' {
			return -1
		}
		return c
	}, form)
	if strings.EqualFold(got, short) {
		return true
	}
	all := strings.LastIndexAny(form, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") + 1
	return len(got) >= all && len(got) <= len(form) && strings.EqualFold(got, form[:len(got)])
}

// options takes apart what follows a word. Options are labctl's, "task sh", and TRACE32's,
// "/TASK sh".
func (c *Command) options(w *Word, rest []word) error {
	for len(rest) > 0 {
		first := rest[0]
		opt := (*Option)(nil)
		slash := !first.quoted && strings.HasPrefix(first.text, "/") && len(first.text) > 1
		if slash {
			for i := range w.Options {
				if f := w.Options[i].Lauterbach; f != "" && abbreviates(first.text[1:], f) {
					opt = &w.Options[i]
					break
				}
			}
			if opt == nil {
				var known []string
				for _, o := range w.Options {
					if o.Lauterbach != "" {
						known = append(known, "/"+o.Lauterbach)
					}
				}
				return nearest.Unknown("option of "+w.Name, first.text, known)
			}
		} else if !first.quoted && len(c.Args) >= w.Before {
			for i := range w.Options {
				if w.Options[i].Name == first.text {
					opt = &w.Options[i]
					break
				}
			}
		}
		rest = rest[1:]
		if opt == nil {
			c.Args = append(c.Args, first.text)
			continue
		}
		if _, twice := c.Options[opt.Name]; twice {
			return outcome.Inputf("%s: %s is given twice", w.Name, opt.Name)
		}
		if opt.Value == "" {
			c.Options[opt.Name] = "yes"
			continue
		}
		if len(rest) == 0 {
			return outcome.Inputf("%s: %s wants %s", w.Name, first.text, opt.Value)
		}
		if opt.Rest {
			c.Options[opt.Name] = strings.Join(plain(rest), " ")
			return nil
		}
		c.Options[opt.Name] = rest[0].text
		rest = rest[1:]
	}
	return nil
}

// Find returns the Word of a name, in any of its forms; nil if there is none.
func Find(name string) *Word {
	words, err := split(name)
	if err != nil || len(words) == 0 {
		return nil
	}
	w, _, err := find(words[:1])
	if err != nil {
		return nil
	}
	return w
}
