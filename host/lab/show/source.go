package show

import (
	"io/fs"
	"regexp"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"labctl/host/lab"
	"labctl/labs"
)

// sourceFile names the sources of labctl's own labs (labs/sources.yaml).
type sourceFile struct {
	Sources map[string]struct {
		EN      string `yaml:"en"`
		KO      string `yaml:"ko"`
		ShortEN string `yaml:"short_en"` // for a column
		ShortKO string `yaml:"short_ko"`
	} `yaml:"sources"`
	Sections map[string]string `yaml:"sections"` // their Korean names
}

// sources is read when a source is first named.
var sources = sync.OnceValue(func() (f sourceFile) {
	b, err := fs.ReadFile(labs.FS, "sources.yaml")
	if err == nil {
		err = yaml.UnmarshalWithOptions(b, &f, yaml.Strict())
	}
	if err != nil {
		panic(err) // it is embedded
	}
	return f
})

// reference is "seed0: a section" or "book 4.4.1, log".
var reference = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9]+)(?:: *| +([0-9]+(?:\.[0-9]+)*),? *)(.*)$`)
})

// Source is a source by its name: the title of the text that it is of, and the section.
// A source that is not labctl's own is shown as it is written.
func Source(lang, source string) string { return name(lang, source, false) }

func name(lang, source string, short bool) string {
	var out []string
	for part := range strings.SplitSeq(source, ";") {
		part = strings.TrimSpace(part)
		m := reference().FindStringSubmatch(part)
		if m == nil {
			out = append(out, section(lang, part))
			continue
		}
		s, known := sources().Sources[m[1]]
		if !known {
			out = append(out, part)
			continue
		}
		title, number := s.EN, m[2]
		switch {
		case short && lang == "ko":
			title = s.ShortKO
		case short:
			title = s.ShortEN
		case lang == "ko":
			title = s.KO
		}
		if number != "" && lang == "ko" {
			number += "절"
		}
		words := []string{strings.TrimSpace(title + " " + number)}
		if m[3] != "" && !short {
			words = append(words, section(lang, m[3]))
		}
		out = append(out, strings.Join(words, ", "))
	}
	return Clean(strings.Join(out, "; "))
}

func section(lang, s string) string {
	if lang == "ko" {
		if ko := sources().Sections[s]; ko != "" {
			return ko
		}
	}
	return s
}

// sectionsOf are the sections of a lab's sources in which words are.
func sectionsOf(l *lab.Lab, lang, words string) (found []string) {
	for part := range strings.SplitSeq(l.Source.Seed+";"+l.Source.Text, ";") {
		part = strings.TrimSpace(part)
		if !strings.Contains(strings.ToLower(part), strings.ToLower(words)) {
			continue
		}
		if m := reference().FindStringSubmatch(part); m != nil && m[3] != "" {
			part = section(lang, m[3])
		}
		if part = Clean(part); part != "" {
			found = append(found, part)
		}
	}
	return found
}

// sourcesOf are a lab's sources: as a column has room for them, or by their titles.
func sourcesOf(l *lab.Lab, lang string, short bool) []string {
	var parts []string
	add := func(s string) {
		if s != "" && (len(parts) == 0 || parts[len(parts)-1] != s) {
			parts = append(parts, s)
		}
	}
	for s := range strings.SplitSeq(l.Source.Seed, ";") {
		if s = strings.TrimSpace(s); s != "" {
			add(name(lang, s, short))
		}
	}
	for _, s := range l.Source.Book {
		add(name(lang, "book "+s, short))
	}
	add(Clean(l.Source.Text))
	return parts
}
