package text

import (
	"regexp"
	"sync"
)

// Pattern is a regular expression that is compiled when it is first used. What
// reads crashes and traces has dozens of them; compiled at start they would cost
// every run of labctl what few need. Methods are those of regexp.Regexp.
type Pattern struct {
	compiled func() *regexp.Regexp
}

// Lazy is a Pattern of an expression. One that is none panics at its first use.
func Lazy(expr string) *Pattern {
	return &Pattern{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })}
}

func (p *Pattern) MatchString(s string) bool            { return p.compiled().MatchString(s) }
func (p *Pattern) FindStringSubmatch(s string) []string { return p.compiled().FindStringSubmatch(s) }
func (p *Pattern) FindStringSubmatchIndex(s string) []int {
	return p.compiled().FindStringSubmatchIndex(s)
}
func (p *Pattern) ReplaceAllString(s, with string) string {
	return p.compiled().ReplaceAllString(s, with)
}
func (p *Pattern) SubexpNames() []string { return p.compiled().SubexpNames() }
