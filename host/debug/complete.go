package debug

import (
	"slices"
	"strings"

	"labctl/host/debug/command"
	"labctl/host/kernel/ctype"
)

// maxComplete limits what Complete returns.
const maxComplete = 500

// Complete returns what a word that has been begun can become, in order; before is the
// line up to it. First words are commands, others what the command takes: functions,
// types and their members, tasks.
func (s *Session) Complete(before, word string) []string {
	var from []string
	c := command.Find(before)
	switch {
	case strings.TrimSpace(before) == "":
		// TRACE32's words only where they are meant: they are many.
		for _, w := range command.Words {
			from = append(from, w.Name)
		}
		if word == "" || !slices.ContainsFunc(from, func(f string) bool { return strings.HasPrefix(f, word) }) {
			for _, w := range command.Words {
				from = append(from, w.Lauterbach...)
			}
		}
	case c == nil:
	case c.Name == "struct" || c.Name == "watch":
		from = s.types(word)
	case c.Name == "break" || c.Name == "tbreak" || c.Name == "until" || c.Name == "go" || c.Name == "list" || c.Name == "symbol":
		if strings.Count(strings.TrimSpace(before), " ") > 0 {
			for _, o := range c.Options {
				from = append(from, o.Name)
				if o.Lauterbach != "" {
					from = append(from, "/"+o.Lauterbach)
				}
			}
			break
		}
		if word != "" {
			from = s.g.SymbolNames()
		}
	case c.Name == "help":
		for _, w := range command.Words {
			from = append(from, w.Name)
		}
	case c.Name == "registers" || c.Name == "set":
		for r := range s.place.regs {
			from = append(from, r)
		}
	}
	var found []string
	for _, f := range from {
		if len(f) >= len(word) && strings.EqualFold(f[:len(word)], word) {
			found = append(found, f)
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	return found[:min(len(found), maxComplete)]
}

// types are names of structures, or, behind a dot, of the members of one.
func (s *Session) types(word string) []string {
	spec, err := s.g.Types()
	if err != nil {
		return nil
	}
	typ, _, ok := strings.Cut(word, ".")
	if !ok {
		return ctype.Names(spec)
	}
	t, err := ctype.Composite(spec, typ)
	if err != nil || t == nil {
		return nil
	}
	var out []string
	for _, m := range ctype.MembersOf(t, 8*s.g.Word()) {
		out = append(out, typ+"."+m.Name)
	}
	return out
}
