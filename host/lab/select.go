package lab

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Selection is the labs that a user asks for: those of Names, or all that match
// what is set of the other fields.
type Selection struct {
	Names  []string // as MatchIDs takes them
	All    bool
	Topic  string
	Source string // words of Source.Seed or Source.Text, in any case
	// Section is a section of the book: its labs, and those of sections below it.
	Section string
}

// Filtered reports whether labs are chosen by what they are about.
func (s *Selection) Filtered() bool { return s.Topic != "" || s.Source != "" || s.Section != "" }

// Matches reports whether a lab is about what is asked for.
func (s *Selection) Matches(l *Lab) bool {
	return (s.Topic == "" || l.Topic == s.Topic) &&
		(s.Source == "" || strings.Contains(strings.ToLower(l.Source.Seed+"\n"+l.Source.Text), strings.ToLower(s.Source))) &&
		(s.Section == "" || slices.ContainsFunc(l.Source.Book, func(section string) bool {
			return section == s.Section || strings.HasPrefix(section, strings.TrimSuffix(s.Section, ".")+".")
		}))
}

// Of reads the labs of a directory that are asked for, each once: names in the
// order in which they are given, others in that of Load. Labs that are named are
// read alone, so that a broken one elsewhere does not matter; otherwise the error
// has all that are broken.
func (s *Selection) Of(root fs.FS) ([]*Lab, error) {
	switch filtered := s.All || s.Filtered(); {
	case len(s.Names) > 0 && filtered:
		return nil, outcome.Inputf("give the ids of labs, or --all, --topic, --source, --section")
	case len(s.Names) > 0:
		return s.named(root)
	case !filtered:
		return nil, outcome.Inputf("which labs? give ids (labctl lab ls lists them), --all, --topic, --source or --section")
	}
	set, err := Load(root)
	if err != nil {
		return nil, err
	}
	if len(set.Broken) > 0 {
		return nil, outcome.Default(outcome.BadInput, errors.Join(set.Broken...))
	}
	chosen := slices.DeleteFunc(set.Labs, func(l *Lab) bool { return !s.Matches(l) })
	if len(chosen) == 0 {
		return nil, outcome.Inputf("no lab matches: labctl lab ls lists them")
	}
	return chosen, nil
}

func (s *Selection) named(root fs.FS) (chosen []*Lab, err error) {
	var ids []string
	for _, name := range s.Names {
		found := []string{name}
		if strings.ContainsAny(name, `*?[\`) {
			if ids == nil {
				if ids, err = IDs(root); err != nil {
					return nil, err
				}
			}
			if found, err = MatchIDs(name, ids); err != nil {
				return nil, outcome.Default(outcome.BadInput, err)
			}
		}
		for _, id := range found {
			l, err := One(root, id)
			if err != nil {
				return nil, outcome.Default(outcome.BadInput, err)
			}
			if !slices.ContainsFunc(chosen, func(c *Lab) bool { return c.ID == l.ID }) {
				chosen = append(chosen, l)
			}
		}
	}
	return chosen, nil
}

// MatchIDs gives those of ids that a name means: an id, or a glob over them as
// path.Match takes it, in any case. It is an error when there is none.
func MatchIDs(name string, ids []string) (found []string, err error) {
	for _, id := range ids {
		ok, err := path.Match(strings.ToUpper(name), id)
		if err != nil {
			return nil, outcome.Inputf("%q: %w", text.Line(name, 40), err)
		}
		if ok {
			found = append(found, id)
		}
	}
	if len(found) == 0 {
		return nil, nearest.Unknown("lab", name, ids)
	}
	return found, nil
}
