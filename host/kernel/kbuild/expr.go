package kbuild

import (
	"strconv"
	"strings"
)

// maxExprDepth limits the nesting of parentheses.
const maxExprDepth = 64

// expr is a Kconfig expression: symbols and constants combined with !, &&, ||, =
// and other comparisons. The zero value is an expression that could not be parsed.
type expr struct {
	op   string // "", "!", "&&", "||", "=", "!=", "<", "<=", ">", ">="
	args []expr
	leaf string // with op "": a symbol, or a constant in double quotes, or a macro
}

// truth is a tristate, or unknown.
type truth int

const (
	no truth = iota
	module
	yes
	cannotTell truth = -1
)

// values is a .config: option → value, as returned by kernel.ParseConfig.
type values map[string]string

func (v values) truth(name string) truth {
	switch v[name] {
	case "y":
		return yes
	case "m":
		return module
	}
	return no
}

// parseExpr parses an expression. What it cannot parse becomes a leaf of unknown
// truth.
func parseExpr(s string) expr {
	p := exprParser{tokens: tokenize(s)}
	e, ok := p.or(0)
	if !ok || len(p.tokens) > 0 {
		return expr{leaf: "$(" + strings.TrimSpace(s) + ")"}
	}
	return e
}

// tokenize splits an expression; a macro is one token.
func tokenize(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			i++
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return append(out, s[i:])
			}
			out = append(out, `"`+s[i+1:i+1+end]+`"`)
			i += end + 2
		case strings.HasPrefix(s[i:], "$("):
			depth, j := 0, i
			for ; j < len(s); j++ {
				if s[j] == '(' {
					depth++
				} else if s[j] == ')' {
					if depth--; depth == 0 {
						j++
						break
					}
				}
			}
			out = append(out, s[i:j])
			i = j
		default:
			op := ""
			for _, o := range []string{"&&", "||", "!=", "<=", ">=", "!", "=", "<", ">", "(", ")"} {
				if strings.HasPrefix(s[i:], o) {
					op = o
					break
				}
			}
			if op != "" {
				out = append(out, op)
				i += len(op)
				continue
			}
			j := i
			for j < len(s) && !strings.ContainsRune(" \t&|!=<>()\"'", rune(s[j])) {
				j++
			}
			if j == i { // a lone & or |
				j++
			}
			out = append(out, s[i:j])
			i = j
		}
	}
	return out
}

type exprParser struct{ tokens []string }

func (p *exprParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *exprParser) next() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *exprParser) or(depth int) (expr, bool)  { return p.chain("||", depth, p.and) }
func (p *exprParser) and(depth int) (expr, bool) { return p.chain("&&", depth, p.not) }

func (p *exprParser) chain(op string, depth int, part func(int) (expr, bool)) (expr, bool) {
	e, ok := part(depth)
	if !ok {
		return e, false
	}
	args := []expr{e}
	for p.peek() == op {
		p.next()
		if e, ok = part(depth); !ok {
			return e, false
		}
		args = append(args, e)
	}
	if len(args) == 1 {
		return e, true
	}
	return expr{op: op, args: args}, true
}

func (p *exprParser) not(depth int) (expr, bool) {
	if depth > maxExprDepth {
		return expr{}, false
	}
	switch p.peek() {
	case "!":
		p.next()
		e, ok := p.not(depth + 1)
		return expr{op: "!", args: []expr{e}}, ok
	case "(":
		p.next()
		e, ok := p.or(depth + 1)
		return e, ok && p.next() == ")"
	}
	a, ok := p.leaf()
	switch op := p.peek(); op {
	case "=", "!=", "<", "<=", ">", ">=":
		p.next()
		b, ok2 := p.leaf()
		return expr{op: op, args: []expr{a, b}}, ok && ok2
	}
	return a, ok
}

func (p *exprParser) leaf() (expr, bool) {
	switch t := p.next(); t {
	case "", "&&", "||", "!", "=", "!=", "<", "<=", ">", ">=", "(", ")", "&", "|":
		return expr{}, false
	default:
		return expr{leaf: t}, true
	}
}

func (e expr) isMacro() bool    { return strings.Contains(e.leaf, "$") }
func (e expr) isConstant() bool { return strings.HasPrefix(e.leaf, `"`) }

// value returns the value of a leaf in a comparison.
func (e expr) value(cfg values) string {
	switch {
	case e.isConstant():
		return strings.Trim(e.leaf, `"`)
	case e.leaf == "y" || e.leaf == "m" || e.leaf == "n":
		return e.leaf
	}
	if v, ok := cfg[e.leaf]; ok {
		return v
	}
	if _, err := strconv.ParseInt(e.leaf, 0, 64); err == nil {
		return e.leaf
	}
	return "n"
}

// eval evaluates the expression for a configuration. An operand of unknown truth
// matters only if the other does not determine the result.
func (e expr) eval(cfg values) truth {
	switch e.op {
	case "":
		switch {
		case e.leaf == "" || e.isMacro():
			return cannotTell
		case e.leaf == "y" || e.leaf == `"y"`:
			return yes
		case e.leaf == "m" || e.leaf == `"m"`:
			return module
		case e.isConstant():
			return no
		}
		return cfg.truth(e.leaf)
	case "!":
		if t := e.args[0].eval(cfg); t != cannotTell {
			return yes - t
		}
		return cannotTell
	case "&&", "||":
		all, unsure := yes, false
		if e.op == "||" {
			all = no
		}
		for _, a := range e.args {
			switch t := a.eval(cfg); {
			case t == cannotTell:
				unsure = true
			case e.op == "&&":
				all = min(all, t)
			default:
				all = max(all, t)
			}
		}
		if unsure && (e.op == "&&" && all != no || e.op == "||" && all != yes) {
			return cannotTell
		}
		return all
	}
	a, b := e.args[0], e.args[1]
	if a.isMacro() || b.isMacro() {
		return cannotTell
	}
	cmp := strings.Compare(a.value(cfg), b.value(cfg))
	x, errA := strconv.ParseInt(a.value(cfg), 0, 64)
	y, errB := strconv.ParseInt(b.value(cfg), 0, 64)
	if errA == nil && errB == nil {
		cmp = int(max(-1, min(1, x-y)))
	}
	holds := map[string]bool{"=": cmp == 0, "!=": cmp != 0, "<": cmp < 0, "<=": cmp <= 0, ">": cmp > 0, ">=": cmp >= 0}[e.op]
	if holds {
		return yes
	}
	return no
}

// String formats the expression in Kconfig syntax.
func (e expr) String() string {
	switch e.op {
	case "":
		return e.leaf
	case "!":
		return "!" + e.args[0].part()
	case "&&", "||":
		parts := make([]string, len(e.args))
		for i, a := range e.args {
			parts[i] = a.part()
		}
		return strings.Join(parts, " "+e.op+" ")
	}
	return e.args[0].leaf + " " + e.op + " " + e.args[1].leaf
}

func (e expr) part() string {
	if e.op == "&&" || e.op == "||" {
		return "(" + e.String() + ")"
	}
	return e.String()
}

// blame describes what keeps an expression below want: "BPF_SYSCALL is not set",
// "PAHOLE_VERSION >= 116 (it is 0)". It is empty if nothing does, or the cause is
// unknown. culprits are the symbols that would have to be set.
func (e expr) blame(cfg values, want truth) (words string, culprits []string) {
	if t := e.eval(cfg); t >= want || t == cannotTell {
		return "", nil
	}
	switch e.op {
	case "":
		if cfg.truth(e.leaf) == module {
			return e.leaf + " is m", []string{e.leaf}
		}
		return e.leaf + " is not set", []string{e.leaf}
	case "!":
		if a := e.args[0]; a.op == "" {
			return a.leaf + " is " + cfg[a.leaf], nil
		}
		return "not " + e.String(), nil
	case "&&", "||":
		var parts []string
		for _, a := range e.args {
			w, c := a.blame(cfg, want)
			if w == "" {
				continue
			}
			parts, culprits = append(parts, w), append(culprits, c...)
		}
		joint := " and "
		if e.op == "||" && len(parts) > 3 {
			return "none of " + e.String() + " is true", nil
		}
		return strings.Join(parts, joint), culprits
	}
	var are []string
	for _, a := range e.args {
		if a.isConstant() || a.leaf == "y" || a.leaf == "m" || a.leaf == "n" {
			continue
		}
		if _, err := strconv.ParseInt(a.leaf, 0, 64); err == nil {
			continue
		}
		v := cfg[a.leaf]
		if v == "" {
			v = "not set"
		}
		are = append(are, a.leaf+" is "+v)
	}
	return e.String() + " is false: " + strings.Join(are, ", "), nil
}
