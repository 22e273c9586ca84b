package expr

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"labctl/host/lab/result"
)

// outside are the functions on what was read from outside. What could not be read is an
// error, which fails a check with the reason.
func outside() []cel.EnvOption {
	str, num := cel.StringType, cel.IntType
	object := func(name string) *cel.Type { return cel.ObjectType("result." + name) }
	return []cel.EnvOption{
		member("look", []*cel.Type{stepType, str}, lookType, func(a ...ref.Val) ref.Val {
			s := get[result.Step](a[0])
			var found []result.Look
			for _, l := range s.Looks {
				if l.At == word(a[1]) {
					found = append(found, l)
				}
			}
			switch {
			case len(found) == 0:
				return types.NewErr("step %s did not come to the point %s", s.ID, word(a[1]))
			case len(found) > 1:
				return types.NewErr("step %s came to the point %s %d times; want one", s.ID, word(a[1]), len(found))
			case found[0].Error != "":
				return types.NewErr("at the point %s of step %s: %s", word(a[1]), s.ID, found[0].Error)
			}
			return native(found[0])
		}),
		member("num", []*cel.Type{lookType, str}, num, func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			n, err := only1(&l, word(a[1]))
			return orErr(types.Int(n), err)
		}),
		member("task", []*cel.Type{lookType, str}, object("OutsideTask"), func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			tid, err := only1(&l, word(a[1]))
			if err != nil {
				return types.WrapErr(err)
			}
			for _, t := range l.Tasks {
				if t.TID == tid {
					return native(t)
				}
			}
			return types.NewErr("at the point %s task %d, %s, was not read", l.At, tid, word(a[1]))
		}),
		member("stack", []*cel.Type{lookType, str}, object("OutsideStack"), func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			v, err := one(&l, "stack of "+word(a[1]), l.Stacks, func(s *result.OutsideStack) (bool, string) { return s.Of == word(a[1]), s.Error })
			return orErr(native(v), err)
		}),
		member("maps", []*cel.Type{lookType, str}, object("OutsideMaps"), func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			v, err := one(&l, "maps of "+word(a[1]), l.Maps, func(m *result.OutsideMaps) (bool, string) { return m.Of == word(a[1]), m.Error })
			return orErr(native(v), err)
		}),
		member("area", []*cel.Type{object("OutsideMaps"), num}, object("OutsideArea"), func(a ...ref.Val) ref.Val {
			m := get[result.OutsideMaps](a[0])
			for _, area := range m.Areas {
				if addr := uint64(number(a[1])); uint64(area.Start) <= addr && addr < uint64(area.End) {
					return native(area)
				}
			}
			return types.NewErr("no memory area of %s has the address %#x", m.Of, uint64(number(a[1])))
		}),
		member("page", []*cel.Type{lookType, str, str}, object("OutsidePage"), func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			v, err := one(&l, word(a[2])+" of "+word(a[1]), l.Pages, isPage(a))
			return orErr(native(v), err)
		}),
		member("pages", []*cel.Type{lookType, str, str}, cel.ListType(object("OutsidePage")), func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			found, is := []result.OutsidePage{}, isPage(a)
			for i := range l.Pages {
				if ok, bad := is(&l.Pages[i]); ok && bad != "" {
					return types.NewErr("at the point %s: %s", l.At, bad)
				} else if ok {
					found = append(found, l.Pages[i])
				}
			}
			return native(found)
		}),
		member("struct", []*cel.Type{lookType, str, str}, structType, func(a ...ref.Val) ref.Val {
			l := get[result.Look](a[0])
			v, err := one(&l, word(a[2])+" of "+word(a[1]), l.Structs, func(s *result.OutsideStruct) (bool, string) {
				return s.Of == word(a[1]) && s.Type == word(a[2]), s.Error
			})
			return orErr(native(v), err)
		}),
		member("has", []*cel.Type{structType, str}, cel.BoolType, func(a ...ref.Val) ref.Val {
			m, err := memberOf(a)
			return orErr(types.Bool(m.There), err)
		}),
		member("at", []*cel.Type{structType, str}, object("OutsideMember"), func(a ...ref.Val) ref.Val {
			m, err := memberThere(a)
			return orErr(native(m), err)
		}),
		member("num", []*cel.Type{structType, str}, num, func(a ...ref.Val) ref.Val {
			m, err := memberThere(a)
			return orErr(types.Int(m.Number), err)
		}),
		member("text", []*cel.Type{structType, str}, str, func(a ...ref.Val) ref.Val {
			m, err := memberThere(a)
			return orErr(types.String(m.Text), err)
		}),
		global("hex", []*cel.Type{num}, str, func(a ...ref.Val) ref.Val {
			return types.String(fmt.Sprintf("%#x", uint64(number(a[0]))))
		}),
	}
}

// only1 is the one number of a name that the program's mark gave.
func only1(l *result.Look, name string) (int64, error) {
	switch all := l.Said[name]; len(all) {
	case 0:
		return 0, fmt.Errorf("at the point %s the program does not say what %s is", l.At, name)
	case 1:
		return all[0], nil
	default:
		return 0, fmt.Errorf("at the point %s the program names %d of %s; want one", l.At, len(all), name)
	}
}

// one is the one reading that is meant.
func one[T any](l *result.Look, what string, all []T, is func(*T) (bool, string)) (found T, err error) {
	n := 0
	for i := range all {
		ok, bad := is(&all[i])
		if !ok {
			continue
		}
		if bad != "" {
			return found, fmt.Errorf("at the point %s: %s", l.At, bad)
		}
		found = all[i]
		n++
	}
	if n != 1 {
		return found, fmt.Errorf("at the point %s there are %d readings: %s; want one", l.At, n, what)
	}
	return found, nil
}

func isPage(a []ref.Val) func(p *result.OutsidePage) (bool, string) {
	return func(p *result.OutsidePage) (bool, string) { return p.Of == word(a[1]) && p.Name == word(a[2]), p.Error }
}

func memberOf(a []ref.Val) (result.OutsideMember, error) {
	s := get[result.OutsideStruct](a[0])
	var names []string
	for _, m := range s.Members {
		if m.Name == word(a[1]) {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return result.OutsideMember{}, fmt.Errorf("of %s %s was not read, but %s", s.Type, word(a[1]), strings.Join(names, ", "))
}

func memberThere(a []ref.Val) (result.OutsideMember, error) {
	m, err := memberOf(a)
	switch {
	case err != nil:
	case !m.There:
		err = fmt.Errorf("this kernel's %s has no member %s", get[result.OutsideStruct](a[0]).Type, m.Name)
	case m.Error != "":
		err = fmt.Errorf("%s: %s", m.Name, m.Error)
	}
	return m, err
}
