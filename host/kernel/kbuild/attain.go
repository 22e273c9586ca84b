package kbuild

import "slices"

// attainable reports whether any configuration of the tree sets an option for this
// architecture. It is optimistic: a comparison, a negation, a macro and a circle of
// options count as true. What it rules out is an option that is not in the tree, or
// that needs one which nothing sets, such as HIST_TRIGGERS on an architecture that
// does not select ARCH_HAVE_NMI_SAFE_CMPXCHG.
func (k *rules) attainable(name string) bool { return k.attain(name, map[string]bool{}) }

// attain holds in seen the answers so far; true for options that are being looked at.
func (k *rules) attain(name string, seen map[string]bool) bool {
	if answer, ok := seen[name]; ok {
		return answer
	}
	s := k.symbols[name]
	if s == nil || len(s.defs) == 0 {
		return false
	}
	seen[name] = true
	seen[name] = slices.ContainsFunc(s.defs, func(d *definition) bool { return (d.prompt || d.automatic) && k.attainDefinition(d, seen) }) ||
		slices.ContainsFunc(s.selected, func(sel selection) bool {
			return k.attain(sel.by.symbol.name, seen) && k.attainDefinition(sel.by, seen) && (sel.when == nil || k.attainExpr(*sel.when, seen))
		})
	return seen[name]
}

// attainDefinition reports whether the dependencies of a definition can be met.
func (k *rules) attainDefinition(d *definition, seen map[string]bool) bool {
	return !slices.ContainsFunc(d.deps, func(e expr) bool { return !k.attainExpr(e, seen) })
}

func (k *rules) attainExpr(e expr, seen map[string]bool) bool {
	can := func(e expr) bool { return k.attainExpr(e, seen) }
	switch e.op {
	case "&&":
		return !slices.ContainsFunc(e.args, func(e expr) bool { return !can(e) })
	case "||":
		return slices.ContainsFunc(e.args, can)
	case "":
		switch {
		case e.leaf == "n":
			return false
		case e.leaf == "" || e.leaf == "y" || e.leaf == "m" || e.isMacro() || e.isConstant():
			return true
		}
		return k.attain(e.leaf, seen)
	}
	return true
}
